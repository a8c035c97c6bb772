from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from secateurs.fit.cache import PrefixCache
from secateurs.nets.backbones import layers
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.bench import open_bench
from secateurs.study.config import StudyConfig
from secateurs.study.trials import SharedInputs, Store, Trial


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
    bench = open_bench(str(flags), config, cache=tmp_path)
    model = bench.new_model(seed=0, pretrained=False)
    known = tuple(layer.alias for layer in layers(model, config.backbone))
    bench = replace(bench, weights=replace(bench.weights, loaded=known))
    shared = SharedInputs(PrefixCache(10**6))
    shallow, _ = shared.get(bench, Trial(0, 0), model)
    deep, _ = shared.get(bench, Trial(53, 0), model)
    assert shallow.stored is None  # 28 pictures of 224 x 224 take 17 MB
    assert deep.stored is not None
    assert [len(view) for view in deep.stored] == [len(bench.dataset.sides["train"])]


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


def test_waiting_for_a_claim_can_be_stopped(tmp_path: Path):
    store, stop = Store(tmp_path), StopFlag()
    stop.request()
    with store.claim("key"), pytest.raises(StopRequested), Store(tmp_path).wait_for("key", stop):
        raise AssertionError("held by two")
    with store.wait_for("key", stop):
        assert True
