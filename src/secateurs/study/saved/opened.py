"""A saved network opened with a folder of images, each known as trained on, chosen on or new."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from secateurs.data.splits.image_groups import parse_group_by
from secateurs.data.splits.split import Split
from secateurs.errors import InputError
from secateurs.paths import saved_model
from secateurs.progress import Progress
from secateurs.ship.checkpoint import Loaded, load
from secateurs.ship.spec import ModelSpec
from secateurs.study.setup.config import StudyConfig, from_json
from secateurs.study.setup.seen_images import (
    UNKNOWN,
    UNKNOWN_ALL,
    ImageStatus,
    Recognised,
    check_side,
    is_refitted,
)
from secateurs.study.setup.splitting import split_listing
from secateurs.study.setup.trial_context import (
    Dataset,
    Opened,
    group_rule,
    open_images,
    settle_split,
)

Record = dict[str, Any]
DRAWN_BY = ("split", "group_by", "seed")


def own_config(spec: ModelSpec, changes: Record) -> StudyConfig:
    """The configuration that a saved network was trained under, with what is given changed.

    A split that is given replaces the network's grouping too. Raises InputError for a network
    that was not saved by a study or by `train`, unless a split is given.
    """
    given: Record = {key: value for key, value in changes.items() if value is not None}
    if "config" not in spec.extra and "split" not in given:
        raise InputError("the model does not say how it was trained; give --split")
    if "rule" in changes:
        # A pruning says anew how many are kept: the network's own number would rule out a fraction.
        given |= {key: changes.get(key) for key in ("keep", "keep_fraction")}
    if "split" in given or "group_by" in given:
        own: Record = {"split": "auto", "group_by": None}
        given = own | given
    if given.get("max_loss", 0) < 0:
        given["max_loss"] = None
    return replace(_trained_under(spec), **given)


def _trained_under(spec: ModelSpec) -> StudyConfig:
    if "config" not in spec.extra:
        return StudyConfig(backbone=spec.backbone, resize=spec.preprocessing.resize)
    try:
        config = from_json(spec.extra["config"])
    except InputError as error:
        raise InputError(f"the model's extra.config: {error}") from None
    if config.backbone != spec.backbone:
        raise InputError(
            f"the model's extra.config: backbone {config.backbone}, but it is a {spec.backbone}"
        )
    return config


def open_saved(
    model: Path,
    data: str,
    changes: Record,
    cache: Path,
    progress: Progress,
    *,
    sides: tuple[str, ...] = ("train", "val"),
    unpruned: bool = False,
) -> tuple[Loaded, StudyConfig, Dataset]:
    """A saved network, the configuration that it was trained under with `changes`, and its images.

    Images that the network knows stay on the side that they were on: what it was trained or chosen
    on is never a test image. `sides` are those that must have images. Where the folder has none of
    the network's training or validation images and these are needed, new ones take their place. A
    split, group or seed in `changes` that is not the network's own is drawn, less the images that
    a side must not have. Raises InputError when the folder has a class that the network does not
    know, or nothing for a side that is needed, and with `unpruned` for a network that was pruned.
    """
    loaded = unpruned_model(model) if unpruned else load(saved_model(model))
    config = settle_split(data, own_config(loaded.spec, changes))
    dataset = saved_dataset(loaded.spec, data, config, cache=cache, progress=progress, sides=sides)
    return loaded, config, dataset


def unpruned_model(model: Path) -> Loaded:
    """A saved network, or a study's before pruning; InputError for one that was pruned."""
    loaded = load(saved_model(model, pruned=False))
    if loaded.spec.kept:
        raise InputError(f"{model}: already pruned; give the network that it was made from")
    return loaded


def saved_dataset(
    spec: ModelSpec,
    data: str,
    config: StudyConfig,
    *,
    cache: Path,
    progress: Progress,
    sides: tuple[str, ...],
) -> Dataset:
    """The images of a folder on the sides that they have for a saved network; see `open_saved`."""
    opened = open_images(
        data,
        spec.preprocessing,
        classes=spec.classes,
        split=config.split,
        cache=cache,
        progress=progress,
    )
    dataset = (
        _drawn_again(opened, data, config)
        if spec.split is None
        else _own_sides(opened, data, spec, config, sides)
    )
    for side in sides:
        check_side(dataset.split, side, where=data)
    if dataset.image_status is not None:
        for note in dataset.image_status.notes:
            progress.note(note)
    return dataset


def _drawn_again(opened: Opened, data: str, config: StudyConfig) -> Dataset:
    split, groups = _draw(opened, data, config)
    return opened.dataset(split, groups, image_status=ImageStatus(known=False, notes=(UNKNOWN,)))


def _draw(opened: Opened, data: str, config: StudyConfig) -> tuple[Split, tuple[str, ...] | None]:
    return split_listing(
        opened.audit.listing,
        rule=config.split,
        group_by=group_rule(data, config),
        seed=config.seed,
        spared=range(len(opened.audit.listing.classes)),  # a trained network needs no class anew
    )


def _own_sides(
    opened: Opened, data: str, spec: ModelSpec, config: StudyConfig, needed: tuple[str, ...]
) -> Dataset:
    assert spec.split is not None, "the caller has looked"
    trained = settle_split(data, own_config(spec, {})) if "config" in spec.extra else config
    notes: list[str] = []
    if any(getattr(trained, key) != getattr(config, key) for key in DRAWN_BY):
        drawn, groups = _draw(opened, data, config)
        known = _recognised(spec, opened, groups)
        split = known.restricted(drawn)
        num = sum(len(getattr(drawn, side)) - len(getattr(split, side)) for side in ("val", "test"))
        if num:
            notes.append(
                f"{num} images of this split's validation and test sides are left out: the model "
                "was trained or chosen on them, or keeps them for its own test"
            )
        return opened.dataset(split, groups, image_status=known.image_status(split, notes))
    groups = _groups(opened, data, config, notes)
    known = _recognised(spec, opened, groups)
    split = known.own_split()
    lacking = [
        side for side in ("train", "val") if side in needed and not len(getattr(split, side))
    ]
    if lacking and len(known.rows(None)):
        drawn, groups = _draw(opened, data, config)
        split = known.filled(split, drawn)
        notes.append(
            "the folder has none of the model's own "
            + " and ".join({"train": "training", "val": "validation"}[side] for side in lacking)
            + " images: new ones take their place"
        )
    return opened.dataset(split, groups, image_status=known.image_status(split, notes))


def _recognised(spec: ModelSpec, opened: Opened, groups: tuple[str, ...] | None) -> Recognised:
    assert spec.split is not None, "the caller has looked"
    return Recognised.of(spec.split, opened.audit, groups, refitted=is_refitted(spec.extra))


def _groups(
    opened: Opened, data: str, config: StudyConfig, notes: list[str]
) -> tuple[str, ...] | None:
    # Groups decide nothing here: where they cannot be had, that is only said.
    rule = group_rule(data, config)
    if rule is None:
        return None
    try:
        return parse_group_by(opened.audit.listing.names, rule)
    except InputError as error:
        notes.append(f"the groups of these images are not known ({error})")
        return None


def unsplit(opened: Opened, spec: ModelSpec) -> Dataset:
    """All images without a split: those that the network has not seen as the side `all`.

    Its training and validation images, where the folder has them, are the sides `train` and `val`.
    """
    nothing = np.zeros(0, dtype=np.int64)
    everything = np.arange(len(opened.audit.listing))
    if spec.split is None:
        split = Split("none", 0, nothing, nothing, everything)
        dataset = opened.dataset(
            split, None, image_status=ImageStatus(known=False, notes=(UNKNOWN_ALL,))
        )
    else:
        known = _recognised(spec, opened, None)
        split = Split("none", 0, known.rows("train"), known.rows("val"), known.rows("test", None))
        dataset = opened.dataset(split, None, image_status=known.image_status(split))
    return replace(dataset, sides=dataset.sides | {"all": dataset.sides["test"]})
