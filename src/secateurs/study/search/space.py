"""What a search varies: ranges and choices, drawn by seed or by Optuna, and their names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from secateurs.errors import InputError
from secateurs.limits import LIMITS, check_numbers

BATCH_SIZES = (16, 32, 64, 128)
# Below 1e-6 a decay does nothing that can be measured: the lowest fifth of the range stands for 0.
DECAY = (1e-7, 1e-2)
LEAST_DECAY = 1e-6
SMOOTHING = (0.0, 0.2)
LR_RANGE = (1e-5, 1e-2)
DIGITS = 3  # what is trained is what can be typed again

# In the order in which they are drawn: another order would draw other configurations.
WORDS = {
    "lr": "lr",
    "batch_size": "batch",
    "weight_decay": "decay",
    "label_smoothing": "smoothing",
    "depth": "depth",
}

Value = float | int | None
Values = dict[str, Value]


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched: one of `choices`, or a number in `low`..`high`.

    With `log` the number's logarithm is what is even; a number below `zero_below` becomes 0.
    """

    name: str
    choices: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    zero_below: float = 0.0

    def value(self, raw: float) -> float | int:
        """The value that is trained for a number drawn: three digits, or 0.

        >>> Dimension("lr", low=1e-5, high=1e-2, log=True).value(0.000123456)
        0.000123
        """
        if self.choices:
            return int(raw)
        if raw < self.zero_below:
            return 0.0
        return min(self.high, max(self.low, float(f"{raw:.{DIGITS}g}")))

    def at(self, share: float) -> float | int:
        """The value that a uniform draw in 0..1 stands for.

        >>> Dimension("lr", low=1e-4, high=1e-2, log=True).at(0.5)
        0.001
        >>> Dimension("batch_size", choices=(16, 32)).at(0.5)
        32
        """
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return self.value(math.exp(low + share * (high - low)))
        return self.value(self.low + share * (self.high - self.low))

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `search.json` keeps it."""
        return asdict(self) | {"choices": list(self.choices)}


def space_of(
    searched: Sequence[str],
    *,
    lr_range: tuple[float, float] = LR_RANGE,
    depths: Sequence[int] = (),
    num_train: int,
) -> tuple[Dimension, ...]:
    """The dimensions named in `searched`; batch sizes larger than the training set are left out.

    A training set smaller than the smallest batch size has no choice of them.

    >>> [one.name for one in space_of(["depth", "lr"], depths=(5, 7), num_train=99)]
    ['lr', 'depth']
    >>> space_of(["batch_size"], num_train=40)[0].choices
    (16, 32)
    """
    sizes = tuple(size for size in BATCH_SIZES if size <= num_train)
    every = (
        Dimension("lr", low=lr_range[0], high=lr_range[1], log=True),
        Dimension("batch_size", choices=sizes),
        Dimension("weight_decay", low=DECAY[0], high=DECAY[1], log=True, zero_below=LEAST_DECAY),
        Dimension("label_smoothing", low=SMOOTHING[0], high=SMOOTHING[1]),
        Dimension("depth", choices=tuple(depths)),
    )
    return tuple(
        one for one in every if one.name in searched and (one.choices or one.low < one.high)
    )


def check_range(pair: Sequence[float], what: str) -> tuple[float, float]:
    """Two positive finite numbers, the smaller one first; InputError otherwise.

    >>> check_range((1e-5, 0.01), "lr-range")
    (1e-05, 0.01)
    """
    if len(pair) != 2:
        raise InputError(f"{what}: expected two numbers such as 1e-5,1e-2, got {len(pair)}")
    low, high = pair
    check_numbers(what, pair, LIMITS["lr"])
    if low >= high:
        raise InputError(f"{what}: {low:g},{high:g} runs backwards; the smaller number goes first")
    return low, high


def draw(space: Sequence[Dimension], *, seed: int, number: int) -> Values:
    """Configuration `number` of a random search: a pure function of (space, seed, number)."""
    shares = np.random.default_rng((seed, number)).random(len(space))
    return {one.name: one.at(float(share)) for one, share in zip(space, shares, strict=True)}


def value_words(values: Mapping[str, Value]) -> str:
    """A configuration in one line.

    >>> value_words({"lr": 0.001, "batch_size": 32, "depth": 5})
    'lr 0.001, batch 32, depth 5'
    """
    return ", ".join(
        f"{WORDS.get(name, name)} {'full' if value is None else f'{value:g}'}"
        for name, value in values.items()
    )
