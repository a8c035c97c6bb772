"""Which networks and depths the probe suggests."""

from __future__ import annotations

import numpy as np
import torch

from secateurs.study.probe.choice import best_depth, suggest
from secateurs.study.probe.network import NetworkProbe

LABELS = np.arange(200) % 4


def _probe(
    name: str, shares: dict[int, float], parameters: int, *, random_from: int = 1000
) -> NetworkProbe:
    """A probe that classifies the first share of the images correctly."""
    scores: dict[int, torch.Tensor] = {}
    for depth, share in shares.items():
        answers = np.where(np.arange(200) < round(200 * share), LABELS, (LABELS + 1) % 4)
        scores[depth] = torch.nn.functional.one_hot(torch.from_numpy(answers), 4).double()
    rows = [
        {"depth": depth, "random_frozen": ["fc6"] if depth >= random_from else []}
        for depth in shares
    ]
    return NetworkProbe(
        {"backbone": name, "num_parameters": parameters, "depths": rows},
        {depth: table[None, :150] for depth, table in scores.items()},
        {depth: table[150:] for depth, table in scores.items()},
        None,
    )


def test_the_best_comes_first_then_the_smallest_that_is_not_significantly_worse():
    probes = [
        _probe("small", {0: 0.3, 9: 0.79}, 1),
        _probe("tiny", {0: 0.3, 9: 0.5}, 0),
        _probe("large", {0: 0.3, 9: 0.80}, 9),
        _probe("middle", {0: 0.3, 9: 0.795}, 5),
    ]
    found = suggest(probes, LABELS, None, num=4)
    assert [one.backbone for one in found] == ["large", "small", "middle", "tiny"]
    assert "the best" in found[0].reason
    assert "smallest that is not significantly worse" in found[1].reason
    assert found[3].high < 0
    assert found[3].reason == "significantly worse than the best"
    assert suggest(probes, LABELS, None, num=1) == found[:1]


def test_constraints_are_a_predicate_on_the_record():
    probes = [_probe("small", {9: 0.5}, 1), _probe("large", {9: 0.8}, 9)]
    found = suggest(probes, LABELS, None, allowed=lambda record: record["num_parameters"] < 5)
    assert [one.backbone for one in found] == ["small"]
    assert suggest(probes, LABELS, None, allowed=lambda record: False) == ()


def test_depths_are_ordered_around_the_first_that_knows_half():
    one = _probe("net", {0: 0.26, 3: 0.4, 6: 0.6, 9: 0.7, 12: 0.8}, 1)
    [found] = suggest([one], LABELS, None)
    assert found.freeze == (6, 3, 9, 0, 12)
    assert found.best_depth == 12


def test_layers_with_random_weights_are_not_frozen():
    one = _probe("net", {0: 0.26, 3: 0.6, 6: 0.7, 9: 0.8}, 1, random_from=6)
    [found] = suggest([one], LABELS, None)
    assert found.freeze == (3, 0)


def test_of_equal_depths_the_deepest_is_best():
    assert best_depth(_probe("net", {0: 0.2, 3: 0.7, 6: 0.7}, 1), LABELS) == 6
