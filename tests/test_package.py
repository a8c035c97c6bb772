"""The package's metadata: extras, pins, supported versions, and the messages of missing extras."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from torch import nn

from secateurs import extras
from secateurs.data.faces.dataset import embedded_faces, write_faces
from secateurs.errors import InputError
from secateurs.prune.coupling.groups import find_groups
from secateurs.report.common.table_files import write_table
from secateurs.ship.latency import onnx_session
from secateurs.study.tracking.log import check_log

ROOT = Path(__file__).parent.parent
LOWEST = "3.11"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def setup_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_messages_know_the_extras_of_pyproject(project: dict[str, Any]):
    declared: dict[str, list[str]] = project["optional-dependencies"]
    users = declared.keys() - {"all", "docs", "dev", "bench"}
    assert users == extras.MODULES.keys()
    (everything,) = declared["all"]
    # More runtimes, of 150 MB and more: asked for by name, and not installed for tests.
    apart = {"openvino", "executorch", "coreml", "litert"}
    # What PyTorch for CUDA brings with it, and of no use without a card.
    assert Requirement(everything).extras == users - apart - {"gpu"}
    known = packages_distributions()
    for extra in users - apart:
        names = {_normal(Requirement(line).name) for line in declared[extra]}
        modules = extras.MODULES[extra]
        assert names == {_normal(known[module][0]) for module in modules}, extra


def test_src_imports_what_the_core_or_an_extra_installs(project: dict[str, Any]):
    declared = [*project["dependencies"]]
    for extra in extras.MODULES:
        declared += project["optional-dependencies"][extra]
    allowed = {_normal(Requirement(line).name) for line in declared} - {"scikit-learn"}
    allowed |= {"markupsafe", "click"}  # parts of what jinja2 and typer offer
    known = packages_distributions()
    pattern = re.compile(r"^\s*(?:from|import) (\w+)", re.M)
    for path in (ROOT / "src").rglob("*.py"):
        for name in pattern.findall(re.sub(r'"""[\s\S]*?"""', "", path.read_text())):
            if name not in sys.stdlib_module_names and name not in ("secateurs", "mlflow"):
                assert _normal(known[name][0]) in allowed, f"{path}: {name}"


def test_pins_satisfy_what_is_declared(project: dict[str, Any], pins: dict[str, str]):
    pinned = {_normal(name): version for name, version in pins.items()}
    lines = [*project["dependencies"]]
    for name, extra in project["optional-dependencies"].items():
        if name != "litert":  # its converter wants an older PyTorch than the pinned one
            lines += [line for line in extra if not line.startswith("secateurs[")]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pinned[_normal(requirement.name)]), requirement


def test_installed_pins_support_the_lowest_version(project: dict[str, Any], pins: dict[str, str]):
    assert project["requires-python"] == f">={LOWEST}"
    checked = 0
    for name, version in pins.items():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if found.version.split("+")[0] == version:
            needs = SpecifierSet(found.metadata.get("Requires-Python", ""))
            assert f"{LOWEST}.0" in needs, f"{name}=={version} needs Python {needs}"
            checked += 1
    assert checked > 40


def test_classifiers_start_at_the_lowest_version(project: dict[str, Any]):
    found = re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    numbers = [int(minor) for minor in found]
    assert numbers == list(range(int(LOWEST.split(".")[1]), numbers[-1] + 1)) and len(numbers) == 4


SMALL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
IMAGE = torch.empty(1, 3, 8, 8)
PARQUET = Path("table.parquet")


@pytest.mark.parametrize(
    ("extra", "call", "text"),
    [
        ("onnx", lambda: onnx_session(Path("x.onnx")), "ONNX Runtime needs onnx, onnxruntime, onn"),
        ("parquet", lambda: write_table([{"a": 1}], "parquet", PARQUET), "parquet needs pyarrow"),
        ("faces", lambda: write_faces(Path("faces")), "embedded faces needs python_avatars, resvg"),
        ("faces", lambda: embedded_faces(Path("cache")), "embedded faces needs python_avatars"),
        (
            "graph",
            lambda: find_groups(SMALL, IMAGE, by="graph"),
            "needs torch_pruning",
        ),
        ("tensorboard", lambda: check_log("tensorboard"), "--log tensorboard needs tensorboard"),
        ("search", lambda: extras.require("search", "method tpe"), "method tpe needs optuna"),
    ],
)
def test_a_missing_extra_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    extra: str,
    call: Callable[[], object],
    text: str,
):
    monkeypatch.chdir(tmp_path)
    for module in extras.MODULES[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value)
    assert str(error.value).endswith(f": pip install 'secateurs[{extra}]'")
    assert list(tmp_path.iterdir()) == []


def test_the_readme_of_an_index_has_absolute_links_or_none(setup_script: ModuleType):
    text = (ROOT / "README.md").read_text()
    url = "https://host.example/owner/name/blob/v1"
    published = setup_script.long_description(text, url)
    local = setup_script.long_description(text, "")
    relative = re.compile(r"\]\((?!https?://|#)")
    assert relative.search(text)
    assert not relative.search(published) and not relative.search(local)
    assert f"]({url}/docs/start.md" in published
    assert "![" not in local or "](http" in local
    assert "https://host.example/owner/name/raw/v1/docs/" in published
    assert setup_script.project_urls(url)["Source"] == "https://host.example/owner/name"
    assert setup_script.project_urls("") == {}


def test_tests_that_make_test_leaves_out_run_in_ci():
    make = (ROOT / "Makefile").read_text()
    chosen = ("not slow and not browser", "browser and not slow")
    assert all(f'-m "{text}"\n' in make for text in chosen) and "-m slow\n" in make
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    browser = "SECATEURS_REQUIRE_BROWSER=1 make test-browser"
    assert {"make test", browser, "make test-slow"} <= set(lines)
