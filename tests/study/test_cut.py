from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from secateurs.errors import InputError
from secateurs.study.bench import seeded_model
from secateurs.study.config import StudyConfig
from secateurs.study.cut import layers_to_cut, search_angle


def fake(low_deg: float):
    """A cut that keeps fewer units the larger the angle, and whose model is that angle."""
    survivors = range(1000 - int(10 * low_deg))
    return (SimpleNamespace(model=low_deg, selection=SimpleNamespace(survivors=survivors)),)


@pytest.mark.parametrize(
    ("accuracy", "expected", "num_tried"),
    [
        (lambda angle: 0.9, 15.0, 1),
        # Good, bad, good, bad from below: the largest good one counts.
        (lambda angle: 0.9 if angle <= 4 or 11 <= angle <= 12 else 0.5, 12.0, 7),
        (lambda angle: 0.9 if angle == 0 else 0.5, 0.0, 31),
        (lambda angle: 0.5, 0.0, 31),
    ],
)
def test_the_largest_angle_within_the_loss_is_taken(accuracy, expected: float, num_tried: int):
    cuts, angle, tried = search_angle(fake, accuracy, 0.8, 15.0)
    assert angle == expected
    assert cuts[-1].model == expected
    assert len(tried) == num_tried
    assert [row["low_deg"] for row in tried] == sorted(row["low_deg"] for row in tried)
    assert tried[0]["num_kept"] == 1000 - int(10 * expected)


def test_layers_are_cut_in_the_order_they_run():
    model = seeded_model("alexnet", 3, 0)
    config = StudyConfig(layers=("fc7", "classifier.1", "fc6"))
    assert layers_to_cut(model, config) == (["classifier.1", "classifier.4"], ["fc6", "fc7"])


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("fc9", "has no weighted layer 'fc9'; it has conv1, conv2"),
        ("fc8", "classifier.6"),
        ("conv5", "features.10"),
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
