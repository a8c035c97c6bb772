"""A position of an explorer's sliders: what is asked of one cut, out of untrusted JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from secateurs.errors import InputError
from secateurs.prune.layer import Compensation

WishRule = Literal["pairwise", "cluster"]
LARGEST = 1e9
FIELDS = {"rule", "compensation", "low_deg", "keep", "norm_std"}


@dataclass(frozen=True)
class SliderRequest:
    """How one layer is cut: by an angle in degrees or by a number of units to keep, never both.

    `pairwise` takes either, and with a number the smallest angle that leaves no more; `cluster`
    takes a number. A pair is opposite above 180 less the angle. `norm_std` None looks at every
    unit.
    """

    rule: WishRule = "pairwise"
    compensation: Compensation = "merge"
    low_deg: float | None = 15.0
    keep: int | None = None
    norm_std: float | None = None


def parse_request(plain: Any, *, num_units: int) -> SliderRequest:
    """A position out of JSON text or plain data; InputError names the field that is wrong.

    >>> parse_request({"keep": 64, "rule": "cluster"}, num_units=4096).keep
    64
    """
    if isinstance(plain, str | bytes):
        try:
            plain = json.loads(plain)
        except (ValueError, RecursionError, MemoryError):
            raise InputError("settings: not readable as JSON") from None
    if not isinstance(plain, dict):
        raise InputError("settings: expected a JSON object")
    odd = sorted(str(key) for key in plain.keys() - FIELDS)
    if odd:
        raise InputError(
            f"settings: unknown field {odd[0]!r:.40}; expected {', '.join(sorted(FIELDS))}"
        )
    rule = _word(plain, "rule", get_args(WishRule), "pairwise")
    compensation = _word(plain, "compensation", get_args(Compensation), "merge")
    low_deg = _number(plain, "low_deg")
    norm_std = _number(plain, "norm_std")
    keep = plain.get("keep")
    if keep is not None and (type(keep) is not int or not 1 <= keep <= num_units):
        raise InputError(f"keep: expected a whole number, 1 to {num_units}, got {keep!r:.40}")
    if (low_deg is None) == (keep is None):
        raise InputError("settings: expected either low_deg or keep")
    if low_deg is not None and not 0 <= low_deg < 90:
        raise InputError(f"low_deg: expected degrees, at least 0 and below 90, got {low_deg:g}")
    if norm_std is not None and norm_std < 0:
        raise InputError(f"norm_std: expected a number >= 0 or null, got {norm_std:g}")
    if rule == "cluster" and (keep is None or norm_std is not None):
        raise InputError("rule cluster goes by keep alone, without low_deg or norm_std")
    return SliderRequest(rule, compensation, low_deg, keep, norm_std)


def _word(plain: dict[str, Any], name: str, known: tuple[Any, ...], default: str) -> Any:
    value = plain.get(name, default)
    if value not in known:
        raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r:.40}")
    return value


def _number(plain: dict[str, Any], name: str) -> float | None:
    value = plain.get(name)
    if value is None:
        return None
    # No angle or norm is as large, and whole numbers of 400 digits are no fractions at all.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LARGEST:
        raise InputError(f"{name}: expected a number or null, got {value!r:.40}")
    return float(value)
