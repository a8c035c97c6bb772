"""A saved network evaluated on images that it has not seen, and an evaluation put into words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateurs.errors import InputError
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import load
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.saved.opened import open_saved, unsplit
from secateurs.study.setup.seen_images import is_refitted
from secateurs.study.setup.trial_context import Dataset, open_images
from secateurs.wording import counted

SIDES = ("train", "val", "test", "all")
FEW_IMAGES = 50

Record = dict[str, Any]


def evaluate_saved(
    model: Path,
    data: str,
    *,
    side: str = "test",
    split: str | None = None,
    group_by: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    cache: Path,
    progress: Progress = SILENT,
) -> Record:
    """Evaluate a saved network on a side of its own split, or on `all` images that it has not seen.

    Images are known by their content: what the network was trained or chosen on is never counted
    as test, whatever the split asked for, and images that it does not know are test images. `all`
    needs no split and no image of every class; the images that the network was trained and chosen
    on are reported apart, under "apart". Under "split" is how the folder's images stand to the
    network. `device` is auto, cpu or cuda. Raises InputError when there is nothing to evaluate.
    """
    if side not in SIDES:
        raise InputError(f"side must be one of {', '.join(SIDES)}, got {side!r}")
    place = resolve_device(device)
    if side == "all":
        given = (split, group_by, seed)
        return _evaluate_all(model, data, given, place, cache=cache, progress=progress)
    changes = {"split": split, "group_by": group_by, "seed": seed}
    loaded, config, dataset = open_saved(model, data, changes, cache, progress, sides=(side,))
    with progress.task("evaluate", len(dataset.sides[side])) as advance:
        found = evaluate_model(loaded.model.to(place), dataset, side, place, advance=advance)
    answer = found.to_json()
    grouped = dataset.groups is not None or config.split in ("folders", "paper")
    said = cautions(answer, grouped=grouped or side != "test")
    return answer | {"side": side, "split": _standing(dataset), "cautions": said, "apart": None}


def _evaluate_all(
    model: Path,
    data: str,
    given: tuple[Any, ...],
    device: torch.device,
    *,
    cache: Path,
    progress: Progress,
) -> Record:
    if any(value is not None for value in given):
        raise InputError(
            "--side all takes every image and splits nothing: leave out --split, "
            "--group-by and --seed"
        )
    loaded = load(saved_model(model))
    spec = loaded.spec
    opened = open_images(
        data, spec.preprocessing, classes=spec.classes, cache=cache, progress=progress
    )
    dataset = unsplit(opened, spec)
    sides = [side for side in ("all", "train", "val") if len(dataset.sides[side])]
    if sides[:1] != ["all"]:
        raise InputError(
            f"{data}: no unseen image among the {len(opened.images)}: the model was trained or "
            "chosen on all of them; give images that it has not seen, or --side train or val"
        )
    network = loaded.model.to(device)
    found: Record = {}
    with progress.task("evaluate", sum(len(dataset.sides[side]) for side in sides)) as advance:
        for side in sides:
            found[side] = evaluate_model(network, dataset, side, device, advance=advance).to_json()
    answer = found.pop("all")
    if is_refitted(spec.extra) and "val" in found:
        found["val"]["trained_on"] = True
    return answer | {
        "side": "all",
        "split": _standing(dataset),
        "cautions": cautions(answer, grouped=True),
        "apart": found or None,
    }


def _standing(dataset: Dataset) -> Record:
    assert dataset.image_status is not None, "it was opened for a saved model"
    return dataset.image_status.to_json()


def cautions(evaluation: Record, *, grouped: bool) -> list[str]:
    """What a reader must know before relying on an accuracy; `grouped` False says so, too.

    >>> cautions({"num_images": 12, "accuracy_low": 0.5, "accuracy_high": 0.9}, grouped=True)
    ['only 12 images: the 95% interval of the accuracy is 50% to 90%']
    """
    found: list[str] = []
    if evaluation["num_images"] < FEW_IMAGES:
        low, high = evaluation["accuracy_low"], evaluation["accuracy_high"]
        images = counted(evaluation["num_images"], "image")
        found.append(f"only {images}: the 95% interval of the accuracy is {low:.0%} to {high:.0%}")
    if not grouped:
        found.append(
            "split without --group-by: if several images show one person, place or session, the "
            "accuracy is too optimistic"
        )
    return found


def evaluation_words(evaluation: Record, side: str) -> str:
    """Accuracy with its interval, and what it must be compared with, in one line."""
    text = (
        f"{side} accuracy {evaluation['accuracy']:.1%} "
        f"({evaluation['accuracy_low']:.1%} to {evaluation['accuracy_high']:.1%}, 95%) "
        f"on {counted(evaluation['num_images'], 'image')}"
    )
    if "majority_accuracy" not in evaluation:  # recorded by an older version
        return text
    return (
        f"{text}; balanced accuracy {evaluation['balanced_accuracy']:.1%}; always answering the "
        f"largest class gives {evaluation['majority_accuracy']:.1%}"
    )


def evaluation_table(evaluation: Record, side: str) -> str:
    """Accuracy, the SPI measures of each class, and remarks, for people."""
    width = max(len("class"), *(len(score["class"]) for score in evaluation["per_class"]))
    split, apart = evaluation.get("split"), evaluation.get("apart") or {}
    known = side == "all" and split is not None and split["known"]
    lines = [evaluation_words(evaluation, "unseen" if known else side)]
    for name, found in apart.items():
        what = "chosen on" if name == "val" and not found.get("trained_on") else "trained on"
        lines.append(f"apart, the images that it was {what}: {evaluation_words(found, name)}")
    lines.append(f"{'class':{width}}  precision  recall  specificity  images")
    for score in evaluation["per_class"]:
        cells = [
            "-" if score[name] is None else f"{score[name]:.2f}"
            for name in ("precision", "recall", "specificity")
        ]
        lines.append(
            f"{score['class']:{width}}  {cells[0]:>9}  {cells[1]:>6}  {cells[2]:>11}  "
            f"{score['num_true']:>6}"
        )
    lines += evaluation["notes"]
    lines += [f"note: {text}" for text in (split["notes"] if split else ())]
    return "\n".join(lines + [f"caution: {text}" for text in evaluation.get("cautions", ())])
