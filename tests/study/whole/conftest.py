from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from narrow import narrowed
from secateurs.files import fingerprint, write_json
from secateurs.ship.export import OnnxCheck, export_onnx
from secateurs.ship.spec import ModelSpec
from secateurs.study.study import run_study

# What the tests of this folder share.
sys.path.insert(0, str(Path(__file__).parent))

from narrow_study import CONFIG


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Generator[None]:
    with narrowed():
        yield


@pytest.fixture(scope="session")
def exported() -> dict[str, tuple[Path, OnnxCheck]]:
    """Each network that was exported, by a hash of its values."""
    return {}


@pytest.fixture(scope="module", autouse=True)
def exports(
    exported: dict[str, tuple[Path, OnnxCheck]], tmp_path_factory: pytest.TempPathFactory
) -> Generator[None]:
    """Export a network to ONNX once: the same one again gets a copy of the same file."""
    folder = tmp_path_factory.mktemp("exports")

    def once(
        model: torch.nn.Module, spec: ModelSpec, path: Path, example: torch.Tensor
    ) -> OnnxCheck:
        key = fingerprint(
            [spec.to_json(), [value.tolist() for value in model.state_dict().values()]]
        )
        if key not in exported:
            check = export_onnx(model, spec, folder / f"{key}.onnx", example)
            exported[key] = (folder / f"{key}.onnx", check)
        shutil.copy(exported[key][0], path)
        return exported[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateurs.study.stages.export_onnx", once)
        patch.setattr(
            "secateurs.study.stages.export_program",
            lambda model, spec, path, example: path.write_bytes(b"program"),
        )
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes that test."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared_study"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def cache(shared: Path) -> Path:
    return shared / "cache"


@pytest.fixture(scope="module")
def finished(flags: Path, cache: Path, shared: Path):
    """A study and what it returned, as plain data; made by the process that asks first."""
    out, returned = shared / "study", shared / "returned.json"
    with FileLock(shared / "study.lock"):
        if not returned.exists():
            write_json(returned, run_study(str(flags), CONFIG, out, cache=cache))
    return out, json.loads(returned.read_text())
