"""How a saved network turns its outputs into answers: temperature, and when it does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from secateurs.errors import InputError
from secateurs.ship.spec import ModelSpec

KEY = "confidence"  # in `extra` of a model's recipe


@dataclass(frozen=True)
class Confidence:
    """What a saved model keeps for `predict`.

    softmax(logits / `temperature`) are its probabilities; below `threshold` it does not know, None
    answers always. `target` is the accuracy that the threshold was chosen for, `bound` the one that
    its answers exceed with 95% confidence by the validation images, which may be less where these
    are few, and `coverage` the share of validation images that it answers.
    """

    temperature: float = 1.0
    threshold: float | None = None
    target: float | None = None
    coverage: float | None = None
    bound: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `extra` of a model's recipe."""
        return asdict(self)


def confidence_of(spec: ModelSpec) -> Confidence:
    """What a model's recipe says, or temperature 1 and no threshold.

    Raises InputError when it is not what `to_json` made.
    """
    plain = spec.extra.get(KEY)
    if plain is None:
        return Confidence()
    wrong = InputError(f"the model's extra.{KEY} is damaged: expected temperature and threshold")
    if not isinstance(plain, dict):
        raise wrong
    given = cast("dict[str, Any]", plain)
    temperature, threshold = _number(given.get("temperature")), _number(given.get("threshold"))
    if temperature is None or not 0 < temperature < math.inf:
        raise wrong
    if given.get("threshold") is not None and (threshold is None or not 0 <= threshold <= 1):
        raise wrong
    return Confidence(temperature, threshold)


def without_confidence(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe keeps of a network that is changed: its confidence was measured before.

    >>> without_confidence({"confidence": {"temperature": 2.0}, "depth": 5})
    {'depth': 5}
    """
    return {name: value for name, value in extra.items() if name != KEY}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
