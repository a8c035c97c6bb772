"""What merged, as the page shows it: units with the images that excite them most."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from secateurs.report.common.formatting import integer, number, plural
from secateurs.report.common.panel import Table
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study.angle_captions import merged_words
from secateurs.report.study.samples import thumbnail

RADIUS = 30  # of the little drawing of an angle, in its own units
SIDES = {"train": "training ", "val": "validation ", "test": "test "}


@dataclass(frozen=True)
class Shown:
    """One image under a unit: the symbol that holds it, its words, and how strong it is."""

    picture: int
    label: str
    text: str
    share: float | None  # of the unit's strongest activation, 0..1; None below zero


@dataclass(frozen=True)
class Unit:
    """One row: a unit, its angle to the survivor, its images."""

    name: str
    note: str
    tip: tuple[float, float] | None  # where the unit's arrow ends; None for the survivor
    large_arc: bool
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class Group:
    """A survivor with some of the units that it stands for."""

    name: str
    size: str
    sentence: str
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Layer:
    """The groups of one layer, with a sentence and the numbers behind them."""

    key: str
    title: str
    caption: str
    groups: tuple[Group, ...]
    tables: tuple[Table, ...]
    source: str = "In results.json under merged."


@dataclass(frozen=True)
class Picture:
    """An image carried in the page once; `source` is empty when it is not at hand."""

    number: int
    source: str


def read_pictures(results: Record, study_dir: Path) -> list[Picture]:
    """The images of `results["merged"]` from below `study_dir`."""
    merged = results["merged"]
    entries = merged["pictures"] if merged else []
    return [
        Picture(number, thumbnail(study_dir, entry["thumbnail"]))
        for number, entry in enumerate(entries)
    ]


def layers(results: Record) -> list[Layer]:
    """One block a layer in which units merged."""
    merged: Record | None = results["merged"]
    if not merged:
        return []
    side = SIDES.get(merged["side"], "")  # with its space
    return [
        _layer(index, layer, merged["pictures"], side, merged_words(results))
        for index, layer in enumerate(merged["layers"])
        if layer["groups"]
    ]


def absence(results: Record, pictures: list[Picture]) -> str:
    """Why there is nothing to see of what merged, in a sentence; empty when there is."""
    if results["merged"] and results["merged"]["layers"]:
        if all(picture.source for picture in pictures):
            return ""
        lost = sum(not picture.source for picture in pictures)
        return (
            f"{integer(lost)} of {plural(len(pictures), 'picture')} of what merged "
            f"{'is' if lost == 1 else 'are'} not at hand: the study's folder thumbnails is missing "
            "or not complete. The angles and activations are in the tables."
        )
    if results["schema"] < 2:
        return (
            f"These results are of an older version (schema {results['schema']}), which kept no "
            "pictures of what merged. Run the same study again in the same directory: it adds them."
        )
    return "No unit was merged into another, so there is no picture of what merged."


def _layer(index: int, layer: Record, pictures: list[Record], side: str, angles: str) -> Layer:
    groups = layer["groups"]
    survivors = plural(layer["num_groups"], "unit stands", "units stand")
    text = f"{survivors} for {plural(layer['num_merged'], 'other')} in {layer['layer']}"
    if len(groups) < layer["num_groups"]:
        text += f"; {len(groups)} of them are here, from the largest group to the smallest"
    nearest = [
        (len(_common(group["units"][0], group["units"][1])), len(group["units"][1]["pictures"]))
        for group in groups
        if len(group["units"]) > 1 and group["units"][1]["pictures"]
    ]
    if nearest:
        mean = number(sum(both for both, _ in nearest) / len(nearest), digits=1)
        most = max(total for _, total in nearest)
        text += (
            f"; the nearest unit shares {mean} of its {most} strongest {side}images with the "
            "one that stands for it, on average"
        )
    return Layer(
        key=f"merged-{index}",
        title=f"What merged in {layer['layer']}",
        caption=f"{text}. {angles}",
        groups=tuple(_group(group, pictures) for group in groups),
        tables=(_groups_table(groups, pictures), _units_table(groups, pictures)),
    )


def _around(angle_deg: float) -> str:
    """An angle as a reader needs it: whole degrees, and a tenth below ten.

    >>> _around(35.56), _around(4.32)
    ('36°', '4.3°')
    """
    return f"{angle_deg:.{0 if angle_deg >= 9.95 else 1}f}°"


def _common(first: Record, second: Record) -> set[int]:
    return set(first["pictures"]) & set(second["pictures"])


def _commonest(unit: Record, pictures: list[Record]) -> tuple[str, int, int]:
    """The commonest label among a unit's images, how often, of how many."""
    labels = Counter(pictures[at]["true"] for at in unit["pictures"])
    label, times = labels.most_common(1)[0] if labels else ("", 0)
    return label, times, len(unit["pictures"])


def _group(group: Record, pictures: list[Record]) -> Group:
    survivor = group["units"][0]
    name = f"Unit {integer(survivor['unit'])}"
    others = plural(group["num_merged"], "other")
    if group["num_merged"] == 1:
        text = f"{name} stands for 1 other, {_around(group['angle_deg_max'])} away"
    else:
        text = (
            f"{name} stands for {others}; half of them lie within "
            f"{_around(group['angle_deg_median'])} of it, the farthest at "
            f"{_around(group['angle_deg_max'])}"
        )
    label, times, total = _commonest(survivor, pictures)
    if times > 1:
        text += f". {times} of the {total} images that excite it most are {label}"
    return Group(
        name=name,
        size=f"stands for {integer(group['num_merged'])}",
        sentence=text + ".",
        units=tuple(
            _unit(unit, survivor, pictures, farthest=at > 1 and at == len(group["units"]) - 1)
            for at, unit in enumerate(group["units"])
        ),
    )


def _unit(unit: Record, survivor: Record, pictures: list[Record], *, farthest: bool) -> Unit:
    angle = unit["angle_deg"]
    if unit is survivor:
        note, tip = "stays", None
    else:
        both, total = len(_common(survivor, unit)), len(unit["pictures"])
        note = f"{_around(angle)} away"
        if angle > 90:
            note += ", the opposite way"
        elif farthest:
            note += ", the farthest"
        note += f"; {both} of {total} images shared" if total else "; excited by no image"
        turn = math.radians(angle)
        tip = (round(RADIUS * math.cos(turn), 2), round(-RADIUS * math.sin(turn), 2))
    peak = unit["activations"][0] if unit["activations"] else 0
    images = [
        Shown(
            picture=at,
            label=pictures[at]["true"],
            text=f"{pictures[at]['true']}, {pictures[at]['name']}: activation {number(value)}",
            share=value / peak if peak > 0 and value >= 0 else None,
        )
        for at, value in zip(unit["pictures"], unit["activations"], strict=True)
    ]
    return Unit(f"Unit {integer(unit['unit'])}", note, tip, angle > 180, tuple(images))


def _groups_table(groups: list[Record], pictures: list[Record]) -> Table:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        label, times, total = _commonest(group["units"][0], pictures)
        rows.append(
            (
                integer(group["units"][0]["unit"]),
                integer(group["num_merged"]),
                _around(group["angle_deg_median"]),
                _around(group["angle_deg_max"]),
                f"{label} ({times} of {total})" if total else "none",
            )
        )
    return Table(
        "Groups, one row a survivor",
        ("unit", "stands for", "half within", "farthest", "commonest label of its images"),
        tuple(rows),
    )


def _units_table(groups: list[Record], pictures: list[Record]) -> Table:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        survivor = group["units"][0]
        for unit in group["units"]:
            strongest = zip(unit["pictures"][:3], unit["activations"], strict=False)
            rows.append(
                (
                    integer(unit["unit"]),
                    "stays" if unit is survivor else integer(survivor["unit"]),
                    _around(unit["angle_deg"]),
                    integer(len(_common(survivor, unit))),
                    "; ".join(f"{pictures[at]['name']} {number(value)}" for at, value in strongest)
                    or "none",
                )
            )
    return Table(
        "Units of these groups, with the activation on their three strongest images",
        ("unit", "merged into", "angle", "images shared", "strongest images"),
        tuple(rows),
    )
