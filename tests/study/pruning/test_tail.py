from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from secateurs.errors import InputError
from secateurs.fit.images import Images
from secateurs.study.pruning.tail import (
    SMALLEST,
    layers_to_cut,
    prune_network,
    search_angle,
    search_fraction,
)
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import seeded_model


@pytest.mark.parametrize(
    ("good", "expected", "num_tried"),
    [
        (lambda angle: True, 15.0, 1),
        # Good, bad, good, bad from below: the largest good one counts.
        (lambda angle: angle <= 4 or 11 <= angle <= 12, 12.0, 7),
        (lambda angle: angle == 0, 0.0, 31),
        (lambda angle: False, 0.0, 31),
    ],
)
def test_the_largest_angle_within_the_loss_is_taken(good, expected: float, num_tried: int):
    tried: list[float] = []
    assert search_angle(lambda angle: tried.append(angle) or good(angle), 15.0) == expected
    assert len(tried) == num_tried and tried == sorted(tried, reverse=True)


@pytest.mark.parametrize("limit", [0.9, 0.4, 0.03, 0.0021])
def test_the_smallest_fraction_within_the_loss_is_found(limit: float):
    tried: list[float] = []
    found = search_fraction(lambda part: tried.append(part) or part >= limit)
    assert limit <= found < 1.1 * limit
    assert found in tried
    assert len(tried) <= 16


def test_the_ends_of_the_search_for_a_fraction():
    assert search_fraction(lambda part: True) == SMALLEST
    assert search_fraction(lambda part: False) == 1.0


def data(num: int, seed: int):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num, 64, 64, 3), dtype=np.uint8)
    return Images(
        pixels=pixels,
        eval_pixels=pixels,
        ids=np.arange(num, dtype=np.uint64),
        sizes=np.full((num, 2), 64),
        labels=np.arange(num) % 3,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )


@pytest.mark.parametrize(
    ("changes", "kept", "searched"),
    [
        ({"rule": "cluster", "keep": (24, 12), "layers": ("fc6", "fc7")}, [24, 12], None),
        ({"rule": "random", "keep_fraction": 0.01}, [41], None),
        ({"rule": "cluster", "max_loss": 100.0}, [8], "keep_fraction"),
        ({"rule": "taylor", "keep": (7,), "compensation": "drop"}, [7], None),
        ({"rule": "subspace", "keep": (5,), "compensation": "least_squares"}, [5], None),
    ],
)
def test_pruning_by_number_and_by_loss(changes, kept: list[int], searched: str | None):
    model = seeded_model("alexnet", 3, 0)
    config = StudyConfig(**changes)
    cut = prune_network(model, data(9, 0), data(6, 1), config, device=torch.device("cpu"))
    assert [layer["num_kept"] for layer in cut.layers] == kept
    assert cut.parity <= 1e-5
    assert cut.low_deg is None
    assert bool(cut.tried) == (searched is not None)
    assert all(searched in row and "check_parity" not in row for row in cut.tried)


def test_layers_are_cut_in_the_order_they_run():
    model = seeded_model("alexnet", 3, 0)
    config = StudyConfig(layers=("fc7", "classifier.1", "fc6"))
    assert layers_to_cut(model, config) == (["classifier.1", "classifier.4"], ["fc6", "fc7"])


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("fc9", "has no weighted layer 'fc9'; it has conv1, conv2"),
        ("fc8", "layer fc8: no linear layer found that reads its units"),
        ("conv5", "layer conv5: expected a Linear, got Conv2d"),
    ],
)
def test_layers_that_cannot_be_cut(layer: str, text: str):
    with pytest.raises(InputError, match=text):
        layers_to_cut(seeded_model("alexnet", 3, 0), StudyConfig(layers=(layer,)))


def test_a_seed_makes_a_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (seeded_model("squeezenet1_1", 3, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(a.features[0].weight, b.features[0].weight)
    assert not torch.equal(a.features[0].weight, c.features[0].weight)


class Steps:
    """Progress that keeps the steps of each task."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[int, list[int]]] = {}

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        steps: list[int] = []
        self.tasks[name] = total, steps
        yield steps.append

    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize(
    ("changes", "total"),
    [({"rule": "pairwise"}, 32), ({"rule": "l2"}, 13), ({"keep": (9,)}, 1), ({"rule": "dead"}, 1)],
)
def test_every_cut_that_is_tried_is_a_step_of_the_progress(changes: dict[str, Any], total: int):
    model = seeded_model("mobilenet_v3_small", 3, 0)
    config = StudyConfig(backbone="mobilenet_v3_small", layers=("classifier.0",), **changes)
    progress = Steps()
    cut = prune_network(
        model, data(9, 0), data(6, 1), config, device=torch.device("cpu"), progress=progress
    )
    expected, steps = progress.tasks["pruning"]
    assert expected == total == sum(steps)
    assert len([step for step in steps if step]) <= len(cut.tried) + 2
