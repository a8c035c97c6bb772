"""Networks evaluated on a side of a study's images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from secateurs.fit.metrics import grouped_interval, wilson_interval
from secateurs.study.saved.evaluation import evaluate_model


class Side:
    """24 images of one pixel whose value says whether they are answered correctly."""

    labels = np.zeros(24, np.int64)
    right = np.repeat([True, False, True, True], 6)

    def __len__(self) -> int:
        return 24

    def eval_views(self, rows: slice, device: torch.device) -> torch.Tensor:
        return torch.tensor(np.where(self.right, 1.0, -1.0)[rows], dtype=torch.float32)[:, None]


class Answers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x], 1)


def test_the_interval_is_as_wide_as_groups_make_it():
    groups: tuple[str, ...] | None = tuple(f"sender {row // 6}" for row in range(24))
    found = {}
    for name, given in (("grouped", groups), ("single", None)):
        dataset = SimpleNamespace(
            sides={"test": Side()}, classes=("a", "b"), side_groups=lambda _side, own=given: own
        )
        evaluated = evaluate_model(Answers(), cast(Any, dataset), "test", torch.device("cpu"))
        found[name] = (evaluated.accuracy_low, evaluated.accuracy_high)
    assert found["single"] == wilson_interval(18, 24)
    assert found["grouped"] == grouped_interval(Side.right, groups)
    assert found["grouped"][0] < found["single"][0]
