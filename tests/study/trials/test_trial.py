from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from narrow import narrowed
from secateurs.errors import InputError
from secateurs.fit.cache import PrefixCache
from secateurs.fit.recipe import Recipe
from secateurs.nets.backbones import bare, layers, trace_of
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.records.checksummed import write_sealed
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import (
    SharedInputs,
    Trial,
    fit_config,
    prefix_cache,
    run_trial,
    trial_key,
)


def test_outputs_too_large_at_one_depth_are_kept_at_a_deeper_one(flags: Path, tmp_path: Path):
    config = StudyConfig(
        backbone="mobilenet_v3_small",
        weights="none",
        depths=(0, 53),
        epochs=1,
        views=1,
        batch_size=8,
        precision="float32",
    )
    context = open_context(str(flags), config, cache=tmp_path)
    model = context.new_model(seed=0, pretrained=False)
    known = tuple(layer.alias for layer in layers(model, config.backbone))
    context = replace(context, weights=replace(context.weights, loaded=known))
    shared = SharedInputs(PrefixCache(10**6))
    shallow, _ = shared.get(context, Trial(0, 0), model)
    deep, _ = shared.get(context, Trial(53, 0), model)
    assert shallow.stored is None  # 28 pictures of 224 x 224 take 17 MB
    assert deep.stored is not None
    assert [len(view) for view in deep.stored] == [len(context.dataset.sides["train"])]


def test_a_claim_is_held_by_one_and_freed_in_the_end(tmp_path: Path):
    store = Store(tmp_path)
    with store.claim("key") as mine:
        assert mine
        with Store(tmp_path).claim("key") as other, store.claim("another") as free:
            assert not other and free
    with pytest.raises(RuntimeError), store.claim("key") as mine:
        assert mine
        raise RuntimeError
    with Store(tmp_path).claim("key") as again:
        assert again


def test_no_lock_stays_when_the_work_is_done_and_one_that_goes_on_has_its_own(tmp_path: Path):
    store = Store(tmp_path)
    with store.claim("key"):
        pass
    assert list((tmp_path / "trials").iterdir()) == []
    with pytest.raises(StopRequested), store.claim("key"):
        raise StopRequested
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["key.lock"]


def test_locks_and_states_that_a_killed_process_left_of_finished_trials_go(tmp_path: Path):
    store, trials = Store(tmp_path), tmp_path / "trials"
    trials.mkdir()
    record = {
        "key": "done", "depth": 5, "run": 0, "pretrained": True, "epochs_run": 0,
        "best_epoch": None, "stopped": "diverged", "val_accuracy": None, "val_loss": None,
        "curve": [], "seed": 0, "precision": "float32",
        "timing": {"seconds": 1.0, "frozen_seconds": 0.5},
    }  # fmt: skip
    write_sealed(store.record("done"), record)
    store.record("damaged").write_text("[")
    for key in ("done", "damaged", "begun"):
        store.state(key).write_text("")
        (trials / f"{key}.lock").write_text("")
    store.tidy()
    assert sorted(path.name for path in trials.iterdir()) == [
        "begun.lock", "begun.state.safetensors", "damaged.json", "damaged.lock",
        "damaged.state.safetensors", "done.json",
    ]  # fmt: skip


def test_waiting_for_a_claim_can_be_stopped(tmp_path: Path):
    store, stop = Store(tmp_path), StopFlag()
    stop.request()
    with store.claim("key"), pytest.raises(StopRequested), Store(tmp_path).wait_for("key", stop):
        raise AssertionError("held by two")
    reached = False
    with store.wait_for("key", stop):
        reached = True
    assert reached


class StopAfter(StopFlag):
    """Asks to stop when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize(
    ("backbone", "asked", "loaded", "pretrained", "expected"),
    [
        ("mobilenet_v3_small", "auto", True, True, "fixed"),
        ("mobilenet_v3_small", "trained", True, True, "trained"),
        ("mobilenet_v3_small", "auto", False, True, "trained"),
        ("mobilenet_v3_small", "auto", True, False, "trained"),
        ("squeezenet1_1", "auto", True, True, "trained"),  # it has none
    ],
)
def test_norms_are_fixed_where_their_statistics_are_pretrained(
    flags: Path,
    tmp_path: Path,
    backbone: str,
    asked: Any,
    loaded: bool,
    pretrained: bool,
    expected: str,
):
    config = StudyConfig(
        backbone=backbone, weights="none", depths=(0,), recipe=Recipe(norms=asked), epochs=1
    )
    context = open_context(str(flags), config, cache=tmp_path)
    known = tuple(layer.alias for layer in layers(bare(backbone, 3), backbone)) if loaded else ()
    context = replace(context, weights=replace(context.weights, loaded=known))
    found = fit_config(context, Trial(0, 0, pretrained=pretrained))
    assert found.recipe.norms == expected
    assert found.identity().get("recipe", {}) == ({"norms": "fixed"} if expected == "fixed" else {})


def test_fixed_norms_keep_their_statistics_and_train_their_scales(flags: Path, tmp_path: Path):
    config = StudyConfig(
        backbone="mobilenet_v3_small",
        weights="none",
        depths=(40,),
        recipe=Recipe(norms="fixed"),
        epochs=1,
        views=1,
        batch_size=14,
        precision="float32",
        image_size=64,
    )
    context = open_context(str(flags), config, cache=tmp_path / "cache")
    before = {
        n: t.clone() for n, t in context.new_model(seed=0, pretrained=True).state_dict().items()
    }
    _, model = run_trial(context, Trial(40, 0), SharedInputs(), Store(tmp_path / "trials"))
    after = model.state_dict()
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    scales = [f"{name.removesuffix('running_mean')}weight" for name in statistics if "mean" in name]
    assert any(not torch.equal(before[name], after[name]) for name in scales)


FROZEN = [("alexnet", 6), ("resnet18", 12), ("mobilenet_v2", 40)]


@pytest.fixture
def small(backbone: str) -> Generator[None]:
    """An AlexNet is a narrow one."""
    with narrowed() if backbone == "alexnet" else nullcontext():
        yield


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("backbone", "depth"), FROZEN)
def test_what_is_frozen_stays_as_it_was_also_after_a_resume(
    flags: Path, tmp_path: Path, backbone: str, depth: int
):
    config = StudyConfig(
        backbone=backbone,
        weights="none",
        depths=(depth,),
        epochs=2,
        views=1,
        batch_size=14,
        precision="float32",
        image_size=64,
    )
    context = open_context(str(flags), config, cache=tmp_path / "cache")
    trial, store = Trial(depth, 0), Store(tmp_path / "trials")
    before = {
        n: t.clone() for n, t in context.new_model(seed=0, pretrained=True).state_dict().items()
    }
    with pytest.raises(StopRequested):
        run_trial(context, trial, SharedInputs(), store, stop=StopAfter(2))
    with safe_open(store.state(trial_key(context, trial)), framework="pt") as file:
        saved = {key.split("/", 1)[1].rsplit(":", 1)[0] for key in file.keys() if "adam/" in key}  # noqa: SIM118
    _, model = run_trial(context, trial, SharedInputs(), store)
    after = model.state_dict()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    seen = trace_of(model, backbone)
    frozen = [
        name
        for name in before
        if seen.state_layer[name.rsplit(".", 1)[0]] < depth and "num_batches" not in name
    ]
    assert len(frozen) > 5
    assert not trained & set(frozen)
    for name in frozen:  # parameters, and running means and variances
        assert torch.equal(before[name], after[name]), name
    assert {name.replace("/", ".") for name in saved} == trained
    assert all(not torch.equal(before[name], after[name]) for name in trained)


def test_frozen_layers_with_random_weights_are_computed_once_with_the_same_curve(
    flags: Path, tmp_path: Path
):
    config = StudyConfig(
        backbone="mobilenet_v3_small",
        weights="none",
        depths=(51,),
        epochs=3,
        views=2,
        batch_size=8,
        precision="float32",
        image_size=64,
    )
    context = open_context(str(flags), config, cache=tmp_path / "cache")
    curves = []
    for at, cache in enumerate((PrefixCache(), PrefixCache(0))):
        shared = SharedInputs(cache)
        model = context.new_model(seed=0, pretrained=True)
        inputs, tail = shared.get(context, Trial(51, 0), model)
        assert (inputs.stored is None) == (at == 1)
        assert (len(tail) < 12) == (at == 0)  # the tail holds the frozen layers when not kept
        record, _ = run_trial(context, Trial(51, 0), shared, Store(tmp_path / f"trials{at}"))
        curves.append([(row["train_loss"], row["val_loss"]) for row in record["curve"]])
    assert np.allclose(curves[0], curves[1], rtol=1e-4)


def test_one_shared_input_serves_benches_that_agree_on_views_and_prefix(
    flags: Path, tmp_path: Path
):
    config = StudyConfig(
        backbone="mobilenet_v3_small",
        weights="none",
        depths=(0,),
        views=1,
        precision="float32",
        image_size=64,
    )
    context = open_context(str(flags), replace(config, batch_size=8), cache=tmp_path / "cache")
    shared, model = SharedInputs(), context.new_model(seed=0, pretrained=False)
    first, _ = shared.get(context, Trial(0, 0), model)
    other_lr = replace(context, config=replace(context.config, lr=0.1))
    assert shared.get(other_lr, Trial(0, 1, pretrained=False), model)[0] is first
    other_views = replace(context, config=replace(context.config, rotation_deg=5.0))
    assert shared.get(other_views, Trial(0, 0), model)[0] is not first


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((2.0, "ram"), "cache-in must be memory, disk or keep, got 'ram'"),
        ((-1.0, "disk"), "is out of range: -1.0; expected a number from 0"),
    ],
)
def test_a_cache_that_cannot_be(words: tuple[float, str], text: str):
    with pytest.raises(InputError, match=text):
        prefix_cache(Path("out"), *words)
