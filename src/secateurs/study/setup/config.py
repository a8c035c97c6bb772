"""What a study is asked to do: one frozen record, its presets, and words turned into values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from secateurs.data.views import Augmentation
from secateurs.errors import InputError
from secateurs.fit.config import FitConfig
from secateurs.fit.recipe import Recipe
from secateurs.limits import LIMITS, MAX_LISTED, check_fields, check_number, shown, whole_number
from secateurs.prune.layer import Compensation, PruneOptions
from secateurs.prune.selection.rules import BY_NUMBER, Rule
from secateurs.study.records.fields import check_fields as check_types

Dropout = Literal["on", "off", "first-epoch"]
FITTED = ("depths", "batch_size", "layers")  # fields that may be fitted where they were not set


def per_layer(keep: tuple[int, ...] | None, num_layers: int) -> list[int | None]:
    """Units to keep of each layer; InputError unless there is one number or one a layer.

    >>> per_layer((64,), 2), per_layer(None, 1)
    ([64, 64], [None])
    """
    if keep is None:
        return [None] * num_layers
    if len(keep) not in (1, num_layers):
        raise InputError(f"keep: expected one number or {num_layers}, got {len(keep)}")
    return [*keep] * (num_layers // len(keep))


@dataclass(frozen=True)
class StudyConfig:
    """Everything that decides a study's numbers, beside the images and the weights themselves.

    `depths` empty means every depth of the backbone, and with `auto_depths` some are chosen by the
    network's parts, as they are for every backbone but alexnet where none were asked for;
    `image_size` None is the backbone's own, in pixels; `batch_size` None means the whole training
    set; `keep_epoch` is the network that a trial ends with, the best on validation or the last;
    `views` views of each image are shared by all epochs, None for a new one in every epoch;
    `scratch_runs` runs of the baseline with random weights. `rotation_deg` and `min_scale` bound
    the views' rotation and the crop's share of the image, whose shape follows `resize`: squashed
    as the evaluation picture is, or in true proportions. `rule` selects the units that survive
    pruning and `compensation` is what is done with their weights; `keep` (one number for all
    layers, or one a layer in the order in which they run) or `keep_fraction` says how many
    survive. Without either, `max_loss` is what pruning may cost in points of validation accuracy,
    None to take the angle `low_deg` as it is. No `layers` means that none is pruned. Angles in
    degrees. `recipe` holds what a training does beside the plain loop. `fitted` names the fields
    that were not asked for, so that they may be replaced where they do not fit the network or the
    images (see `fitting`); by default those of `FITTED` that have the value of the quick preset.
    """

    preset: str = "quick"
    backbone: str = "alexnet"
    weights: str = "auto"
    split: str = "auto"
    group_by: str | None = None
    resize: Literal["straight", "crop"] = "straight"
    image_size: int | None = None
    auto_depths: bool = False
    depths: tuple[int, ...] = (3, 5, 7)
    runs: int = 2
    scratch_runs: int = 1
    epochs: int = 20
    lr: float = 1e-4
    batch_size: int | None = 64
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    dropout: Dropout = "on"
    patience: int | None = None
    keep_epoch: Literal["best", "last"] = "best"
    views: int | None = 2
    rotation_deg: float = 0.0
    min_scale: float = 1.0
    augment: bool = True
    schedule: Literal["constant", "cosine"] = "cosine"
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0
    layers: tuple[str, ...] = ("fc7",)
    rule: Rule = "cluster"
    low_deg: float = 15.0
    high_deg: float = 165.0
    norm_std: float | None = None
    keep: tuple[int, ...] | None = None
    keep_fraction: float | None = None
    max_loss: float | None = 2.0
    compensation: Compensation = "merge"
    recipe: Recipe = field(default_factory=Recipe)
    fitted: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.fitted is None:
            own = {known.name: known.default for known in fields(self)}
            same = tuple(name for name in FITTED if getattr(self, name) == own[name])
            object.__setattr__(self, "fitted", same)
        check_fields(self)
        self.fit_config(run=0)  # checks the words that training shares
        self.augmentation()
        for options in self.prune_options(max(1, len(self.layers))):
            options.check()
        checks = {
            "split": self.split in ("auto", "random", "ungrouped", "paper", "folders"),
            "resize": self.resize in ("straight", "crop"),
            "fitted": self.fitted is not None and set(self.fitted) <= set(FITTED),
        }
        for name, good in checks.items():
            if not good:
                raise InputError(f"{name} is out of range: {getattr(self, name)!r}")

    def augmentation(self) -> Augmentation | None:
        """How views differ from the image; None when training sees the evaluation view."""
        if not self.augment:
            return None
        return Augmentation(
            rotation_deg=self.rotation_deg,
            scale=(self.min_scale, 1.0),
            ratio_to="image" if self.resize == "straight" else "square",
        )

    def prune_options(self, num_layers: int) -> list[PruneOptions]:
        """How each of the layers is pruned, before an angle or a number is searched."""
        fraction = self.keep_fraction
        asked = self.keep is not None or fraction is not None
        if self.rule in BY_NUMBER and not asked and self.max_loss is not None:
            fraction = 1.0  # the search decides
        return [
            PruneOptions(
                rule=self.rule,
                compensation=self.compensation,
                low_deg=self.low_deg,
                high_deg=self.high_deg,
                norm_std=self.norm_std,
                keep=keep,
                keep_fraction=fraction,
                seed=self.seed,
            )
            for keep in per_layer(self.keep, num_layers)
        ]

    def fit_config(self, *, run: int) -> FitConfig:
        """How one run is trained; its seed is the study's plus the run's number."""
        return FitConfig(
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            dropout=self.dropout,
            schedule=self.schedule,
            patience=self.patience,
            keep=self.keep_epoch,
            seed=self.seed + run,
            recipe=self.recipe,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data: what `results.json` keeps, and what makes two studies the same."""
        plain = asdict(self)
        plain["depths"], plain["layers"] = list(self.depths), list(self.layers)
        plain["keep"] = None if self.keep is None else list(self.keep)
        plain["fitted"] = list(self.fitted or ())
        # Only what differs from the plain loop, so that records of before it stay the same.
        del plain["recipe"]
        changes = self.recipe.changes()
        return plain | ({"recipe": changes} if changes else {})


PRESETS: dict[str, StudyConfig] = {
    "quick": StudyConfig(),
    "full": StudyConfig(
        preset="full",
        depths=(),
        runs=5,
        scratch_runs=5,
        epochs=30,
        views=None,
        rotation_deg=10.0,
        min_scale=0.5,
    ),
}


def from_preset(name: str, **changes: Any) -> StudyConfig:
    """A preset with some fields changed.

    None leaves a field as the preset has it; `batch_size` "full" and `views` 0 give the fields
    that are None when set: the whole training set, and new views in every epoch. So does a
    negative `max_loss`. `depths` may be text: "auto", "all", or what `parse_depths` takes. Fields
    of the recipe are given by their own names.

    >>> from_preset("quick", runs=3, batch_size="full").batch_size is None
    True
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    given: dict[str, Any] = {key: v for key, v in changes.items() if v is not None}
    if isinstance(given.get("depths"), str):
        given |= _depths_from(given.pop("depths"))
    parts = {part.name: given.pop(part.name) for part in fields(Recipe) if part.name in given}
    if parts:
        given["recipe"] = replace(PRESETS[name].recipe, **parts)
    given.setdefault("fitted", tuple(name for name in FITTED if name not in given))
    if "batch_size" in given:
        given["batch_size"] = parse_batch_size(str(given["batch_size"]))
    if given.get("max_loss", 0) < 0:
        given["max_loss"] = None
    if given.get("views") == 0:
        given["views"] = None
    return replace(PRESETS[name], **given)


def _depths_from(text: str) -> dict[str, Any]:
    """The fields that words for depths stand for."""
    if text == "auto":
        return {"auto_depths": True}
    return {"depths": () if text == "all" else parse_depths(text)}


def from_json(plain: Any) -> StudyConfig:
    """The configuration that `to_json` made plain.

    Raises InputError for fields that do not belong and values of another type. A field that an
    older version did not have takes its default, the rule what was the only one, and nothing is
    fitted.
    """
    if not isinstance(plain, dict) or not {"depths", "layers"} <= plain.keys():
        raise InputError("configuration: expected an object with depths and layers")
    recipe = plain.get("recipe", {})
    plain = {key: value for key, value in plain.items() if key != "recipe"}
    check_types(StudyConfig, plain, where="configuration")
    known = {each.name for each in fields(StudyConfig)}
    odd = sorted(plain.keys() - known)
    if odd:
        raise InputError(f"configuration of another version: it differs in {', '.join(odd)}")
    given: dict[str, Any] = {"rule": "pairwise", "fitted": (), **plain}
    given["fitted"] = tuple(given["fitted"])
    given["depths"], given["layers"] = tuple(plain["depths"]), tuple(plain["layers"])
    keep = plain.get("keep")
    given["keep"] = None if keep is None else tuple(keep)
    return StudyConfig(**given, recipe=recipe_from_json(recipe))


def recipe_from_json(plain: Any) -> Recipe:
    """The recipe whose `changes` these are; InputError for other fields or types.

    >>> recipe_from_json({"mixup": 0.2}).mixup
    0.2
    """
    names = {each.name for each in fields(Recipe)}
    if not isinstance(plain, dict) or not plain.keys() <= names:
        raise InputError(f"configuration: recipe: expected some of {', '.join(sorted(names))}")
    check_types(Recipe, asdict(Recipe()) | plain, where="configuration: recipe")
    return Recipe(**plain)


def parse_depths(text: str) -> tuple[int, ...]:
    """Depths from words such as `0-7` or `3,5,7`, in ascending order.

    >>> parse_depths("5-7,2")
    (2, 5, 6, 7)
    """
    if text.count(",") >= MAX_LISTED:
        raise InputError(f"depths: expected at most {MAX_LISTED:,} numbers")
    depths: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low = whole_number(first)
        high = whole_number(last) if dash else low
        if low is None or high is None:
            raise InputError(f"depths must look like 0-7 or 3,5,7, got {shown(text)}")
        check_number("depths", max(low, high), LIMITS["depths"])
        if low > high:
            raise InputError(f"depths {part.strip()!r} run backwards; write {high}-{low}")
        depths.update(range(low, high + 1))
    return tuple(sorted(depths))


def rule_of(rule: str | None, *, search: bool = True, **angles: float | None) -> str:
    """The rule asked for: `cluster` unless named.

    `pairwise` when an option of `angles` is given, and without a `search` or a number of units,
    which leaves only an angle to decide.

    >>> rule_of(None, low=None), rule_of(None, low=10.0), rule_of("l2", low=None)
    ('cluster', 'pairwise', 'l2')
    """
    given = [name for name, value in angles.items() if value is not None]
    if rule is None:
        return "pairwise" if given or not search else "cluster"
    if given and rule in BY_NUMBER:
        raise InputError(f"{given[0]}: rule {rule} goes by number, not by angle; leave one out")
    return rule


def parse_keep(text: str) -> tuple[int, ...]:
    """Units to keep from words such as `64` or `128,64`.

    >>> parse_keep("128, 64")
    (128, 64)
    """
    if text.count(",") >= MAX_LISTED:
        raise InputError(f"keep: expected at most {MAX_LISTED:,} numbers")
    parts = [whole_number(part.strip()) for part in text.split(",")]
    numbers = tuple(part for part in parts if part)
    if len(numbers) < len(parts):
        raise InputError(f"keep must look like 64, or 128,64 with one a layer, got {shown(text)}")
    return numbers


def parse_batch_size(text: str) -> int | None:
    """A batch size from a number or the word `full`, which becomes None.

    >>> parse_batch_size("full"), parse_batch_size("32")
    (None, 32)
    """
    if text == "full":
        return None
    number = whole_number(text)
    if not number:
        raise InputError(f"batch size must be a positive number or full, got {shown(text)}")
    check_number("batch_size", number, LIMITS["batch_size"])
    return number


SHOWN = 5  # fields that differ


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """In words, the fields in which two configurations differ, the first few of them.

    Those that both have come first.

    >>> difference({"lr": 0.1, "runs": 2}, {"lr": 0.2, "runs": 2})
    'lr (0.1 there, 0.2 now)'
    """
    found = [
        f"{key:.40} ({old.get(key)!s:.60} there, {new.get(key)!s:.60} now)"
        for key in sorted(
            (old.keys() | new.keys()) - {"fitted"},
            key=lambda key: (old.get(key) is None or new.get(key) is None, key),
        )
        if old.get(key) != new.get(key)
    ]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ", ".join(found[:SHOWN] + more)
