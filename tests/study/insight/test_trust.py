"""Trust: temperature and threshold from validation, everything else on the side asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.fit.confidence import reliability
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.insight.trust import find_confidence, trust_record
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, open_dataset

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Classes by the mean of each channel: the logits are a linear function of three means."""

    def __init__(self, *, wrong_class: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 6, generator=generator))
        self.wrong_class = wrong_class

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spread = torch.cat([x.mean((3,)).std(2), x.mean((2,)).std(2)], 1)
        logits = spread @ self.weight.T
        if self.wrong_class is not None:
            logits[:, self.wrong_class] = -9
        return logits


@pytest.fixture(scope="module")
def dataset(flags: Path, net_cache: Path) -> Dataset:
    config = StudyConfig(backbone="mobilenet_v3_small", group_by=r"^(\d+)_", weights="none")
    return open_dataset(str(flags), config, cache=net_cache)


@pytest.fixture(scope="module")
def record(dataset: Dataset) -> dict[str, Any]:
    return trust_record(
        {"before": Brightness(), "after": Brightness(wrong_class=0)},
        dataset,
        dataset.side_groups("test"),
        device=CPU,
        target=0.5,
    )


def test_measures_are_those_of_the_networks_answers(dataset: Dataset, record: dict[str, Any]):
    images = dataset.sides["test"]
    with torch.no_grad():
        logits = Brightness()(images.eval_views(slice(None), CPU))
        val = Brightness()(dataset.sides["val"].eval_views(slice(None), CPU))
    correct = logits.argmax(1).numpy() == images.labels
    assert record["clean"]["before"]["accuracy"] == pytest.approx(correct.mean())
    confidence = find_confidence(val, dataset.sides["val"].labels, target=0.5)
    own = record["networks"]["before"]
    assert own["confidence"] == confidence.to_json()
    p = torch.softmax(logits.double() / confidence.temperature, 1).numpy()
    assert own["calibrated"]["error"] == pytest.approx(reliability(p, images.labels).error)
    assert own["coverage"][0]["coverage"] == 1
    assert own["coverage"][0]["accuracy"] == pytest.approx(correct.mean())


def test_both_networks_see_the_same_corrupted_images(record: dict[str, Any]):
    assert [row["name"] for row in record["corruptions"]] == [
        "blur", "noise", "dark", "bright", "jpeg", "crop",
    ]  # fmt: skip
    for row in record["corruptions"]:
        after, before = row["after"]["accuracy"], row["before"]["accuracy"]
        assert row["difference"]["mean"] == pytest.approx(after - before)


def test_groups_and_rare_classes_are_counted_apart(dataset: Dataset, record: dict[str, Any]):
    groups = record["groups"]
    assert (
        groups["num_groups"] == record["num_groups"] == len(set(dataset.side_groups("test") or ()))
    )
    assert sum(row["num_images"] for row in groups["rows"]) == record["num_images"]
    losses = [row["before"] - row["after"] for row in groups["rows"]]
    assert losses == sorted(losses, reverse=True)
    assert sum(part["num_images"] for part in record["rare"]) == record["num_images"]
    right = sum(part["num_images"] * part["before"]["accuracy"] for part in record["rare"])
    assert right == pytest.approx(record["num_images"] * record["clean"]["before"]["accuracy"])


def test_one_network_has_no_difference(dataset: Dataset):
    found = trust_record({"before": Brightness()}, dataset, None, device=CPU, side="val")
    assert found["clean"]["difference"] is None
    assert found["groups"] is None
    stop = StopFlag()
    stop.request()
    with pytest.raises(StopRequested):
        trust_record({"before": Brightness()}, dataset, None, device=CPU, stop=stop)


def test_a_target_that_is_never_reached_gives_no_threshold():
    labels = np.array([0, 1, 0, 1])
    logits = torch.tensor([[0.0, 3.0], [2.0, 0.0], [0.0, 1.0], [4.0, 0.0]])
    found = find_confidence(logits, labels, target=0.9)
    assert found.threshold is None
    assert found.coverage is None
    good = find_confidence(-logits, labels, target=0.9)
    assert good.coverage == 1


def test_where_every_validation_image_is_right_new_images_are_still_answered():
    labels = np.repeat(np.arange(3), 8)
    logits = 9.0 * torch.eye(3)[torch.from_numpy(labels)]
    found = find_confidence(logits, labels)
    assert (found.threshold, found.coverage) == (0.0, 1.0)
    # The most likely probability of the right class is that of the smoothed target.
    p = torch.softmax(logits.double() / found.temperature, 1)
    assert float(p[0, 0]) == pytest.approx(1 - (2 / 3) / 25, abs=1e-6)
