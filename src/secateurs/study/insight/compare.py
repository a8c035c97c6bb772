"""Two saved networks, or two studies, compared on the same images."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.directories import clear_output, open_output
from secateurs.errors import InputError
from secateurs.files import atomic_path, write_json
from secateurs.fit.metrics import grouped_interval
from secateurs.fit.paired import paired_difference
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import TENSORS_NAME, Loaded
from secateurs.ship.cost import cost
from secateurs.ship.latency import compare_latency, spread
from secateurs.study.records.sameness import refuse_other, refuse_other_images, shown_place
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.opened import open_saved
from secateurs.study.saved.samples import THUMBNAIL_PX, thumbnail
from secateurs.study.setup.trial_context import Dataset

MARKER = "comparison.json"
KIND = "a comparison"
SCHEMA = 1
SHOWN = 24
LATENCY_S = 6.0
NAMES = ("first", "second")
Record = dict[str, Any]


@dataclass(frozen=True)
class _Side:
    """A network with the images of a side that it may be tested on, and its answers to them."""

    place: Path
    loaded: Loaded
    dataset: Dataset
    names: list[str]
    probabilities: NDArray[np.float64]


def compare_saved(
    first: Path,
    second: Path,
    data: str,
    out: Path,
    *,
    side: str = "test",
    changes: Record | None = None,
    cache: Path,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Record:
    """Compare two saved networks on the images that are on `side` for both; write comparison.json.

    Images that one of them was trained or chosen on are no test images and left out. Networks may
    have other backbones and sizes of images, and must have the same classes. Raises InputError for
    bad input and when no image is left.
    """
    started = time.perf_counter()
    open_output(out, marker=MARKER, kind=KIND, early=("thumbnails",))
    config = {"first": str(first), "second": str(second), "data": shown_place(data), "side": side}
    if not overwrite:
        refuse_other(out / MARKER, config, KIND)
    opened = [_open(model, data, side, changes or {}, cache, progress) for model in (first, second)]
    one, other = opened
    if one.loaded.spec.classes != other.loaded.spec.classes:
        raise InputError("the two models have other classes: they cannot be compared")
    place = {name: row for row, name in enumerate(other.names)}
    common = [name for name in one.names if name in place]
    if not common:
        raise InputError(
            f"no image is on the {side} side of both models: each was trained or chosen on the "
            "other's; give new images"
        )
    identity = one.dataset.identity()
    if overwrite:
        clear_output(out, "compare")
    else:
        refuse_other_images(out / MARKER, identity, KIND)
    rows = np.asarray([row for row, name in enumerate(one.names) if name in place])
    theirs = np.asarray([place[name] for name in common])
    record = _compared(one, other, rows, theirs, side)
    record |= {"config": config, "identity": identity}
    record["num_left_out"] = max(len(one.names), len(other.names)) - len(common)
    _write_thumbnails(record, one, rows, side, out)
    record["seconds"] = round(time.perf_counter() - started, 2)
    write_json(out / MARKER, record)
    return record


def _open(
    model: Path, data: str, side: str, changes: Record, cache: Path, progress: Progress
) -> _Side:
    try:
        loaded, _, dataset = open_saved(model, data, changes, cache, progress, sides=(side,))
    except InputError as error:
        if str(model) in str(error):
            raise
        raise InputError(f"{model}: {error}") from None
    device = resolve_device("auto")
    with progress.task(f"evaluate {model.name}", len(dataset.sides[side])) as advance:
        logits = side_logits(loaded.model.to(device), dataset, side, device, advance=advance)
    return _Side(
        saved_model(model),
        loaded,
        dataset,
        dataset.names(side),
        torch.softmax(logits.double(), 1).numpy(),
    )


def _compared(
    one: _Side, other: _Side, rows: NDArray[np.int64], theirs: NDArray[np.int64], side: str
) -> Record:
    dataset = one.dataset
    labels = dataset.sides[side].labels[rows]
    given = dataset.side_groups(side)
    groups = None if given is None else tuple(given[row] for row in rows)
    answers = [one.probabilities[rows].argmax(1), other.probabilities[theirs].argmax(1)]
    correct = [answer == labels for answer in answers]
    difference = paired_difference(correct[1], correct[0], groups)
    return {
        "schema": SCHEMA,
        "data": {"name": dataset.name, "classes": list(dataset.classes)},
        "side": side,
        "num_images": len(rows),
        "num_groups": None if groups is None else len(set(groups)),
        "models": {
            name: _model_record(who, own, groups)
            for name, who, own in zip(NAMES, (one, other), correct, strict=True)
        },
        "latency": _latency(one, other, side),
        "difference": asdict(difference),
        "agreement": {
            "both_right": int((correct[0] & correct[1]).sum()),
            "only_first": int((correct[0] & ~correct[1]).sum()),
            "only_second": int((~correct[0] & correct[1]).sum()),
            "both_wrong": int((~correct[0] & ~correct[1]).sum()),
            "same_answer": int((answers[0] == answers[1]).sum()),
        },
        "per_class": [
            {
                "class": name,
                "num_images": int((labels == k).sum()),
                **{
                    when: int(own[labels == k].sum())
                    for when, own in zip(NAMES, correct, strict=True)
                },
            }
            for k, name in enumerate(dataset.classes)
        ],
        "images": _changed(one, other, rows, theirs, labels, correct),
    }


def _model_record(who: _Side, correct: NDArray[np.bool_], groups: tuple[str, ...] | None) -> Record:
    folder = who.place.parent if who.place.is_file() else who.place
    found = cost(
        who.loaded.model,
        size=who.loaded.spec.preprocessing.size,
        file_bytes=(folder / TENSORS_NAME).stat().st_size,
    )
    low, high = grouped_interval(correct, groups)
    return {
        "backbone": who.loaded.spec.backbone,
        "size": who.loaded.spec.preprocessing.size,
        "accuracy": float(correct.mean()),
        "low": low,
        "high": high,
        **found.to_json(),
    }


def _latency(one: _Side, other: _Side, side: str) -> Record:
    """Milliseconds for one image, in alternating runs, on the CPU."""
    cpu = torch.device("cpu")
    calls = {}
    for name, who in zip(NAMES, (one, other), strict=True):
        model = who.loaded.model.to(cpu).eval()
        image = who.dataset.sides[side].eval_views(slice(0, 1), cpu)
        calls[name] = lambda model=model, image=image: model(image)
    with torch.inference_mode():
        times = compare_latency(calls, budget_s=LATENCY_S)
    return {"batch": 1, "device": "cpu", **{n: asdict(spread(t)) for n, t in times.items()}}


def _changed(
    one: _Side,
    other: _Side,
    rows: NDArray[np.int64],
    theirs: NDArray[np.int64],
    labels: NDArray[np.int64],
    correct: list[NDArray[np.bool_]],
) -> list[Record]:
    """Images that one of the two gets wrong, the most confident mistakes first."""
    tables = (one.probabilities[rows], other.probabilities[theirs])
    confidence = [np.where(own, 0.0, p.max(1)) for p, own in zip(tables, correct, strict=True)]
    differs = correct[0] != correct[1]
    order = np.argsort(-np.where(differs, np.maximum(*confidence), -1.0), kind="stable")
    classes = one.dataset.classes
    return [
        {
            "name": one.names[rows[k]],
            "row": int(k),
            "label": classes[labels[k]],
            "thumbnail": None,
            **{
                when: {
                    "label": classes[int(p[k].argmax())],
                    "probability": round(float(p[k].max()), 4),
                }
                for when, p in zip(NAMES, tables, strict=True)
            },
        }
        for k in order[: min(SHOWN, int(differs.sum()))].tolist()
    ]


def _write_thumbnails(
    record: Record, one: _Side, rows: NDArray[np.int64], side: str, out: Path
) -> None:
    for number, image in enumerate(record["images"]):
        file = f"thumbnails/compared-{number}.jpg"
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        picture = thumbnail(one.dataset.sides[side], int(rows[image.pop("row")]), THUMBNAIL_PX)
        with atomic_path(out / file) as temporary:
            picture.save(temporary, format="JPEG", quality=85)
        image["thumbnail"] = file
