"""What a search is asked for: a grid, successive halving or TPE, from words to records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from secateurs.errors import InputError
from secateurs.limits import (
    LIMITS,
    check_fields,
    check_number,
    check_numbers,
    shown,
    whole_number,
)
from secateurs.study.pruning.saved_grid import parse_numbers
from secateurs.study.search.space import LR_RANGE, WORDS, check_range

METHODS = ("grid", "halving", "tpe")
# Geng and colleagues' grid: 36 cells.
PAPER_LRS = (0.001, 0.005, 0.01, 0.05)
PAPER_EPOCHS = tuple(range(20, 101, 10))
DRAWN = ("lr", "batch_size", "weight_decay", "label_smoothing")

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class GridSearch:
    """Every learning rate by every number of epochs, at a constant learning rate.

    One training to the largest number of epochs holds all smaller ones: under a constant rate
    nothing before epoch e knows how many follow.
    """

    lrs: tuple[float, ...] = PAPER_LRS
    epochs: tuple[int, ...] = PAPER_EPOCHS

    method: ClassVar[str] = "grid"
    schedule: ClassVar[Schedule] = "constant"

    def __post_init__(self) -> None:
        if not self.lrs:
            raise InputError("lr: expected positive numbers, got nothing")
        check_numbers("lr", self.lrs, LIMITS["lr"])
        if len(set(self.lrs)) < len(self.lrs):
            raise InputError(f"lr: {_list(self.lrs)} names one twice")
        check_epochs(self.epochs)

    @property
    def planned(self) -> list[tuple[int, int]]:
        """Trainings of one run as (epochs, how many)."""
        return [(max(self.epochs), len(self.lrs))]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"method": self.method, "lr": sorted(self.lrs), "epochs": list(self.epochs)}


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar 2016): many short trainings, few long ones.

    `trials` configurations are trained for `min_epochs`; the best of them, one in `eta`, for `eta`
    times as many epochs, and so on up to `max_epochs`. Every rung is a whole training with a cosine
    schedule of its own and none resumes from the rung before: a training cut out of a longer one
    has not had its learning rate fall, so rungs would not say what their number of epochs can do;
    every record is of a network that `train` would give; and nothing of a trained network, hundreds
    of megabytes, has to be kept between rungs. It costs at most eta / (eta - 1) times what going on
    would.
    """

    trials: int = 27
    min_epochs: int = 4
    max_epochs: int = 36
    eta: int = 3
    lr_range: tuple[float, float] = LR_RANGE
    searched: tuple[str, ...] = DRAWN

    method: ClassVar[str] = "halving"
    schedule: ClassVar[Schedule] = "cosine"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_epochs > self.max_epochs:
            raise InputError(
                f"min-epochs {self.min_epochs} is more than max-epochs {self.max_epochs}"
            )
        _check_sampling(self.lr_range, self.searched)

    @property
    def planned(self) -> list[tuple[int, int]]:
        """Rungs as (epochs, configurations).

        A single survivor goes to `max_epochs` at once.

        >>> Halving(trials=27, min_epochs=4, max_epochs=50).planned
        [(4, 27), (12, 9), (36, 3), (50, 1)]
        >>> Halving(trials=4, min_epochs=2, max_epochs=90).planned
        [(2, 4), (90, 1)]
        """
        found = [(self.min_epochs, self.trials)]
        while found[-1][0] < self.max_epochs:
            epochs, number = found[-1]
            number = max(1, number // self.eta)
            more = epochs * self.eta if number > 1 else self.max_epochs
            found.append((min(more, self.max_epochs), number))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return _plain(self)


@dataclass(frozen=True)
class Tpe:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), `epochs` a training."""

    trials: int = 20
    epochs: int = 20
    lr_range: tuple[float, float] = LR_RANGE
    searched: tuple[str, ...] = DRAWN

    method: ClassVar[str] = "tpe"
    schedule: ClassVar[Schedule] = "cosine"

    def __post_init__(self) -> None:
        check_fields(self)
        _check_sampling(self.lr_range, self.searched)

    @property
    def planned(self) -> list[tuple[int, int]]:
        """Trainings of one run as (epochs, how many)."""
        return [(self.epochs, self.trials)]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return _plain(self)


SearchPlan = GridSearch | Halving | Tpe


def _plain(plan: Halving | Tpe) -> dict[str, Any]:
    return {
        "method": plan.method,
        **asdict(plan),
        "lr_range": list(plan.lr_range),
        "searched": list(plan.searched),
    }


def _check_sampling(lr_range: tuple[float, float], searched: tuple[str, ...]) -> None:
    check_range(lr_range, "lr-range")
    odd = [name for name in searched if name not in WORDS]
    if odd or not searched:
        raise InputError(f"searched: expected some of {', '.join(WORDS)}, got {_list(searched)}")


def _list(items: tuple[Any, ...]) -> str:
    return ", ".join(str(item) for item in items) or "nothing"


def check_epochs(epochs: tuple[int, ...]) -> None:
    """Raise InputError unless the numbers are positive and ascend."""
    check_numbers("epochs", epochs, LIMITS["epochs"])
    if not epochs or not all(a < b for a, b in pairwise(epochs)):
        raise InputError(f"epochs: expected positive numbers that ascend, got {_list(epochs)}")


def parse_epochs(text: str) -> tuple[int, ...]:
    """Numbers of epochs from words such as `20-100:10` or `5,10,20`, in ascending order.

    >>> parse_epochs("20-50:10"), parse_epochs("5, 8-10")
    ((20, 30, 40, 50), (5, 8, 9, 10))
    """
    found: list[int] = []
    for part in text.split(","):
        ends, colon, step_text = part.strip().partition(":")
        first_text, dash, last_text = ends.partition("-")
        first, step = whole_number(first_text), whole_number(step_text) if colon else 1
        last = whole_number(last_text) if dash else first
        if first is None or last is None or step is None or (colon and not dash):
            raise InputError(f"epochs must look like 20-100:10 or 5,10,20, got {shown(text)}")
        check_number("epochs", max(first, last), LIMITS["epochs"])
        if first > last:
            raise InputError(f"epochs {part.strip()!r} run backwards; write {last}-{first}")
        if step < 1:
            raise InputError(f"epochs {part.strip()!r}: the step must be 1 or more")
        found.extend(range(first, last + 1, step))
    check_epochs(tuple(found))
    return tuple(found)


def plan_of(
    method: str,
    *,
    lr: str | None = None,
    epochs: str | None = None,
    lr_range: str | None = None,
    trials: int | None = None,
    min_epochs: int | None = None,
    max_epochs: int | None = None,
    eta: int | None = None,
    searched: tuple[str, ...] = DRAWN,
) -> SearchPlan:
    """A plan from the words of a command; None takes the method's default.

    Raises InputError for an unknown method, for a word that another method has, and as the plans
    and parsers do.

    >>> plan_of("grid", lr="0.01,0.001", epochs="2-4").to_json()["epochs"]
    [2, 3, 4]
    """
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    given: dict[str, Any] = {
        "lr": lr,
        "epochs": epochs,
        "lr_range": lr_range,
        "trials": trials,
        "min_epochs": min_epochs,
        "max_epochs": max_epochs,
        "eta": eta,
    }
    own = {
        "grid": {"lr", "epochs"},
        "halving": {"lr_range", "trials", "min_epochs", "max_epochs", "eta"},
        "tpe": {"lr_range", "trials", "epochs"},
    }
    for name, value in given.items():
        if value is not None and name not in own[method]:
            others = [one for one in METHODS if name in own[one]]
            raise InputError(
                f"{name.replace('_', '-')}: belongs to method {' and '.join(others)}, "
                f"not to {method}; leave it out"
            )
    words = {name: value for name, value in given.items() if value is not None}
    if lr is not None:
        words["lrs"] = tuple(sorted(parse_numbers(words.pop("lr"), "lr")))
    if lr_range is not None:
        words["lr_range"] = check_range(parse_numbers(lr_range, "lr-range"), "lr-range")
    if epochs is not None:
        words["epochs"] = parse_epochs(epochs)
    if method == "grid":
        return GridSearch(**words)
    if method == "halving":
        return Halving(searched=searched, **words)
    if epochs is not None:
        if len(words["epochs"]) != 1:
            raise InputError(f"epochs: method tpe trains every trial for one number, got {epochs}")
        words["epochs"] = words["epochs"][0]
    return Tpe(searched=searched, **words)
