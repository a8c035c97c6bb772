"""The range of every number that a user can give, in one table.

The command line checks its options against it while it reads them, before any library is loaded,
and configuration records check their fields when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from secateurs.errors import InputError

MAX_LISTED = 1000  # numbers in a list such as --keep or --depths
MAX_DIGITS = 12  # of a whole number in such a list; more is no number of anything here


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included unless open; whole ones only if `whole`.

    >>> Range(1, 1000, whole=True).words, Range(0, 1, open_low=True).words
    ('a whole number from 1 to 1,000', 'a number above 0, up to 1')
    >>> 0.5 in Range(0, 1), float("nan") in Range(0, 1), True in Range(0, 1)
    (True, False, False)
    """

    low: float
    high: float
    whole: bool = False
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        if not self.low <= value <= self.high:  # type: ignore[operator]
            return False  # NaN as well
        if self.open_low and value == self.low:
            return False
        return not (self.open_high and value == self.high)

    @property
    def words(self) -> str:
        """What is expected."""
        kind = "a whole number" if self.whole else "a number"
        low = f"above {_plain(self.low)}," if self.open_low else f"from {_plain(self.low)}"
        high = f"below {_plain(self.high)}" if self.open_high else _plain(self.high)
        return f"{kind} {low} {'up to' if self.open_low else 'to'} {high}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and value < 1e12 else f"{value:g}"


def _whole(low: int, high: int) -> Range:
    return Range(low, high, whole=True)


SEED = _whole(0, 2**31 - 1)
EPOCHS = _whole(1, 100_000)
POSITIVE = Range(0, 1000, open_low=True)
RATE = Range(0, 1e30, open_low=True)  # one far too high diverges, and that is said
SHARE = Range(0, 1, open_low=True)

# By the name of a record's field; a record with a narrower range of its own checks that itself.
LIMITS: dict[str, Range] = {
    "seed": SEED,
    "depth": _whole(0, 10_000),
    "depths": _whole(0, 10_000),
    "run": _whole(0, 10_000),
    "runs": _whole(1, 1000),
    "trial_cpus": _whole(1, 1024),
    "trial_gpus": Range(0, 64, open_low=True),
    "scratch_runs": _whole(0, 1000),
    "epochs": EPOCHS,
    "min_epochs": EPOCHS,
    "max_epochs": EPOCHS,
    "lr": RATE,
    "lrs": RATE,
    "lr_range": RATE,
    "batch_size": _whole(1, 1_000_000),
    "weight_decay": Range(0, 1000),
    "label_smoothing": Range(0, 1, open_high=True),
    "layer_decay": Range(0, 1, open_low=True),
    "l2_sp": Range(0, 10_000),
    "mixup": Range(0, 10),
    "average": Range(0, 1, open_high=True),
    "patience": EPOCHS,
    "views": _whole(1, 10_000),
    "image_size": _whole(8, 4096),
    "rotation_deg": Range(0, 180),
    "min_scale": SHARE,
    "scale": SHARE,
    "ratio": POSITIVE,
    "flip": Range(0, 1),
    "low_deg": Range(0, 180),
    "high_deg": Range(0, 180),
    "angles_deg": Range(0, 90, open_high=True),
    "norm_std": Range(0, 1000),
    "norm_stds": Range(0, 1000),
    "keep": _whole(1, 10_000_000),
    "keep_fraction": SHARE,
    "max_loss": Range(0, 100),
    "copies": _whole(1, 10_000),
    "distil": Range(0, 1),
    "temperature": POSITIVE,
    "trials": _whole(1, 100_000),
    "eta": _whole(2, 1000),
    "params": SHARE,
    "macs": SHARE,
    "latency": SHARE,
    "size_mb": POSITIVE,
    "latency_batch": _whole(1, 65_536),
    "max_mb": Range(0, 1_000_000, open_low=True),
    "max_ms": Range(0, 1_000_000, open_low=True),
    "batch": _whole(1, 65_536),
    "max_mp": Range(0, 1000, open_low=True),
    "max_images": _whole(1, 1000),
    "max_requests": _whole(1, 10_000),
    "decoders": _whole(1, 256),
    "sizes": SHARE,
    "calibration": _whole(1, 100_000_000),
    "agreement": Range(0, 1),
    "threshold": Range(0, 1),
    "target": Range(0, 1),
    "num_images": _whole(1, 100),
    "num_views": _whole(1, 100),
    "num_networks": _whole(1, 1000),
    "num_depths": _whole(1, 1000),
    "round_to": _whole(1, 65_536),
    "fewest": _whole(1, 65_536),
    "starts": _whole(1, 1000),
    "recover": _whole(0, 100_000),
    "cache_budget": Range(0, 1_000_000),
    "port": _whole(0, 65_535),
    "top": _whole(1, 1_000_000),
}


def check_number(name: str, value: object, limits: Range) -> None:
    """Raise InputError unless the value lies within the limits.

    >>> check_number("lr", float("inf"), LIMITS["lr"])
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: lr is out of range: inf; expected a number above 0, up to 1e+30
    """
    if value not in limits:
        raise InputError(f"{name} is out of range: {shown(value)}; expected {limits.words}")


def check_numbers(name: str, values: Iterable[object], limits: Range) -> None:
    """Raise InputError unless all of a list's values lie within the limits, and are not too many.

    >>> check_numbers("runs", (1, -2), LIMITS["runs"])
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: runs is out of range: -2; expected a whole number from 1 to 1,000
    """
    listed = list(values)
    if len(listed) > MAX_LISTED:
        raise InputError(f"{name}: expected at most {MAX_LISTED:,} numbers, got {len(listed):,}")
    for value in listed:
        check_number(name, value, limits)


def check_fields(record: Any, names: Mapping[str, str] | None = None) -> None:
    """Check every field of a dataclass that `LIMITS` knows, one number or a tuple of them.

    `names` maps a field to the entry that holds its limits. None is good where the field's type
    says so.
    """
    for field in fields(record):
        limits = LIMITS.get((names or {}).get(field.name, field.name))
        kinds = set(re.findall(r"\w+", str(field.type)))  # the annotation is text
        if limits is None or not kinds & {"int", "float"}:
            continue
        value = getattr(record, field.name)
        if value is None and "None" in kinds:
            continue
        if isinstance(value, tuple | list):
            check_numbers(field.name, value, limits)
        else:
            check_number(field.name, value, limits)


def whole_number(text: str) -> int | None:
    """A whole number from 0 on in plain digits; None for any other text, or one too long.

    >>> whole_number("64"), whole_number("-1"), whole_number("²"), whole_number("9" * 13)
    (64, None, None, None)
    """
    return int(text) if re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", text) else None


def shown(value: object) -> str:
    """A value in an error message, shortened."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
