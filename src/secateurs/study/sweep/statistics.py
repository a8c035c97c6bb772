"""Means over seeds with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # Student's t; scipy.stats takes a second to import


@dataclass(frozen=True)
class Summary:
    """The mean of runs; standard deviation and 95% t interval are None for a single run."""

    num_runs: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1) and 95% interval by Student's t over runs.

    The interval of accuracies is cut to 0..1.

    >>> round(summarise([0.4, 0.5, 0.6]).std, 3)
    0.1
    """
    assert len(values) > 0
    mean = float(np.mean(values))
    if len(values) == 1:
        return Summary(1, mean, None, None, None)
    std = float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.975)) * std / len(values) ** 0.5
    return Summary(len(values), mean, std, max(0.0, mean - half), min(1.0, mean + half))
