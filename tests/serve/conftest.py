from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The browser and its helpers are those of the report's tests.
sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from secateurs.ship.checkpoint import save
from secateurs.ship.spec import ImageInput, describe
from secateurs.study.bench import seeded_model
from secateurs.study.config import StudyConfig
from secateurs.study.explore import Explorer, find_place, open_explorer

BACKBONE = "mobilenet_v3_small"
LAYER = "classifier.0"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network with random weights."""
    path = tmp_path_factory.mktemp("net") / "model"
    config = StudyConfig(
        backbone=BACKBONE, weights="none", group_by=r"^(\d+)_", device="cpu", layers=(LAYER,)
    )
    network = seeded_model(BACKBONE, 3, 0)
    spec = describe(
        network,
        BACKBONE,
        ("across", "down", "plain"),
        ImageInput.of(BACKBONE),
        extra={"config": config.to_json(), "depth": 53},
    )
    save(network, spec, path)
    return path


@pytest.fixture(scope="session")
def explorer(model: Path, flags: Path, cache: Path) -> Explorer:
    return open_explorer(find_place(model, str(flags)), LAYER, changes={}, cache=cache)
