from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# What tests of several folders share.
sys.path.insert(0, str(Path(__file__).parent))

# Collections of garbage took 6% of the tests' time.
gc.set_threshold(10_000, 20, 20)

# A shell that starts the tests in the background has interrupts ignored, and so would every process
# that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Begun last, a test that takes minutes would keep one process waiting for the other.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what is imported stays to the end: no later collection need look at it


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries look at the end for objects that are left over


@pytest.fixture(scope="session", autouse=True)
def short_latency() -> Generator[None]:
    """Networks are timed for a moment and on a few images: no test asks how fast they are.

    Blocks are tuned by a few steps only.
    """
    from secateurs.study.pruning import savings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateurs.study.pruning.savings.BUDGET_S", 0.2)
        patch.setattr("secateurs.prune.reconstruction.options.STEPS", 3)
        rows = savings.latency_rows
        patch.setattr(savings, "latency_rows", lambda *given: rows(*given, largest=4))
        yield


@pytest.fixture(scope="module")
def large_steps() -> Generator[None]:
    """Surveys take a twelfth of the units at a time, where no test is about which ones go."""
    from secateurs.prune.allocation import all_groups

    steps = partial(all_groups.eliminate, steps=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_groups, "eliminate", steps)
        yield


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned networks get no ONNX file, where a test is about other things: it takes seconds."""
    monkeypatch.setattr(
        "secateurs.study.pruning.saved_output.onnx_obstacle", lambda model: "left out here"
    )


@pytest.fixture(scope="session")
def surveys() -> dict[str, Any]:
    """Surveys of whole networks, by a hash of the network and its calibration images."""
    return {}


@pytest.fixture
def surveys_once(surveys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is surveyed once for the same images, where a test is about what comes after.

    That pruning changes no survey has a test of its own.
    """
    from secateurs.study.pruning import network

    real = network.survey_network

    def once(model: Any, calibration: Any, held_out: Any, hooks: Any, **words: Any) -> Any:
        known = hashlib.sha256(
            repr((words["name"], words["copies"], words["seed"], [*model.state_dict()])).encode()
        )
        for value in (*model.state_dict().values(), *calibration, *held_out):
            known.update(value.detach().contiguous().numpy().tobytes())
        key = known.hexdigest()
        if key not in surveys:
            surveys[key] = real(model, calibration, held_out, hooks, **words)
        return dataclasses.replace(surveys[key], hooks=hooks)

    monkeypatch.setattr(network, "survey_network", once)


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 pictures in three classes, told apart by their stripes; 12 senders."""
    root = tmp_path_factory.mktemp("flags")
    generator = np.random.default_rng(0)
    for label, name in enumerate(("across", "down", "plain")):
        (root / name).mkdir()
        for number in range(16):
            picture = generator.integers(0, 90, (40, 48, 3))
            stripes = (np.arange(48) // 6 % 2) * 150
            if label == 0:
                picture += stripes[None, :, None]
            elif label == 1:
                picture += stripes[:40, None, None]
            file = root / name / f"{number % 12:02d}_{label}{number}.png"
            Image.fromarray(picture.astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="session")
def browser() -> Generator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None and os.environ.get("SECATEURS_REQUIRE_BROWSER"):
        pytest.fail("chromium is not installed, and SECATEURS_REQUIRE_BROWSER asks for it")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=path,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def net_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for what rests on `flags` and `net`."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network with random weights for the classes of `flags`; `classifier.0` can be cut."""
    from secateurs.ship.checkpoint import save
    from secateurs.ship.spec import ImageInput, describe
    from secateurs.study.setup.config import StudyConfig
    from secateurs.study.setup.trial_context import seeded_model

    path = tmp_path_factory.mktemp("net") / "model"
    backbone = "mobilenet_v3_small"
    config = StudyConfig(
        backbone=backbone,
        weights="none",
        group_by=r"^(\d+)_",
        device="cpu",
        layers=("classifier.0",),
    )
    network = seeded_model(backbone, 3, 0)
    spec = describe(
        network,
        backbone,
        ("across", "down", "plain"),
        ImageInput.of(backbone),
        extra={"config": config.to_json(), "depth": 53},
    )
    save(network, spec, path)
    return path


@pytest.fixture(scope="session")
def explorer(net: Path, flags: Path, net_cache: Path) -> Any:
    """The network's layer `classifier.0`, ready to be cut."""
    from secateurs.study.pruning.explorer import open_explorer
    from secateurs.study.saved.location import find_location

    place = find_location(net, str(flags))
    return open_explorer(place, "classifier.0", changes={}, cache=net_cache)
