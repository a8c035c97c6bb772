"""Merged units: kept units with the units merged into them, and their strongest images."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from secateurs.report.common.formatting import integer, number, plural
from secateurs.report.common.panel import Table
from secateurs.report.common.sweep_rows import Record
from secateurs.report.common.thumbnails import thumbnail
from secateurs.report.study.angle_captions import merged_words

RADIUS = 30  # of the little drawing of an angle, in its own units
SIDES = {"train": "training ", "val": "validation ", "test": "test "}


@dataclass(frozen=True)
class Shown:
    """One image of a unit: its symbol on the page, its texts, and its relative activation."""

    picture: int
    label: str
    text: str
    share: float | None  # of the strongest activation of the unit, 0..1; None below zero


@dataclass(frozen=True)
class Unit:
    """One row: a unit, its angle to the kept unit, its images."""

    name: str
    note: str
    arrow: tuple[float, float] | None  # its end; None for the kept unit
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class Group:
    """A kept unit with some of the units merged into it."""

    name: str
    size: str
    sentence: str
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Layer:
    """The groups of one layer, with a caption and data tables."""

    key: str
    title: str
    caption: str
    groups: tuple[Group, ...]
    tables: tuple[Table, ...]
    source: str = "In results.json under merged."


@dataclass(frozen=True)
class Picture:
    """An image, in the page once; `source` is empty when its file is missing."""

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
    """One block per layer with merged units."""
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
    """Why merged units or their images are not shown; empty when all are."""
    if results["merged"] and results["merged"]["layers"]:
        if all(picture.source for picture in pictures):
            return ""
        lost = sum(not picture.source for picture in pictures)
        return (
            f"{integer(lost)} of {plural(len(pictures), 'image')} of merged units "
            f"{'is' if lost == 1 else 'are'} missing: the study's folder thumbnails is missing or "
            "incomplete. The data tables have the angles and activations."
        )
    if results["schema"] < 2:
        return (
            f"These results are of an older version (schema {results['schema']}), which stored no "
            "images of merged units. Run the same study again in the same directory to add them."
        )
    return "No units were merged."


def _layer(index: int, layer: Record, pictures: list[Record], side: str, angles: str) -> Layer:
    groups = layer["groups"]
    kept = plural(layer["num_groups"], "kept unit")
    text = f"{plural(layer['num_merged'], 'unit')} of {layer['layer']} merged into {kept}"
    if len(groups) < layer["num_groups"]:
        text += f"; {len(groups)} of the groups are shown, from the largest to the smallest"
    nearest = [
        (len(_common(group["units"][0], group["units"][1])), len(group["units"][1]["pictures"]))
        for group in groups
        if len(group["units"]) > 1 and group["units"][1]["pictures"]
    ]
    if nearest:
        mean = number(sum(both for both, _ in nearest) / len(nearest), digits=1)
        most = max(total for _, total in nearest)
        text += (
            f"; on average the nearest merged unit shares {mean} of its {most} strongest "
            f"{side}images with the kept unit"
        )
    return Layer(
        key=f"merged-{index}",
        title=f"Merged units of {layer['layer']}",
        caption=f"{text}. {angles}",
        groups=tuple(_group(group, pictures) for group in groups),
        tables=(_groups_table(groups, pictures), _units_table(groups, pictures)),
    )


def _around(angle_deg: float) -> str:
    """An angle in whole degrees, with one decimal below ten.

    >>> _around(35.56), _around(4.32)
    ('36°', '4.3°')
    """
    return f"{angle_deg:.{0 if angle_deg >= 9.95 else 1}f}°"


def _common(first: Record, second: Record) -> set[int]:
    return set(first["pictures"]) & set(second["pictures"])


def _most_frequent(unit: Record, pictures: list[Record]) -> tuple[str, int, int]:
    """The most frequent label among a unit's images, how often, of how many."""
    labels = Counter(pictures[at]["true"] for at in unit["pictures"])
    label, times = labels.most_common(1)[0] if labels else ("", 0)
    return label, times, len(unit["pictures"])


def _group(group: Record, pictures: list[Record]) -> Group:
    survivor = group["units"][0]
    name = f"Unit {integer(survivor['unit'])}"
    merged = plural(group["num_merged"], "unit")
    if group["num_merged"] == 1:
        text = f"1 unit was merged into {name.lower()}, at {_around(group['angle_deg_max'])}"
    else:
        text = (
            f"{merged} were merged into {name.lower()}; the median angle is "
            f"{_around(group['angle_deg_median'])}, the largest {_around(group['angle_deg_max'])}"
        )
    label, times, total = _most_frequent(survivor, pictures)
    if times > 1:
        text += f". {times} of its {total} strongest images are {label}"
    return Group(
        name=name,
        size=f"{integer(group['num_merged'])} merged",
        sentence=text + ".",
        units=tuple(
            _unit(unit, survivor, pictures, farthest=at > 1 and at == len(group["units"]) - 1)
            for at, unit in enumerate(group["units"])
        ),
    )


def _unit(unit: Record, survivor: Record, pictures: list[Record], *, farthest: bool) -> Unit:
    angle = unit["angle_deg"]
    if unit is survivor:
        note, arrow = "kept", None
    else:
        both, total = len(_common(survivor, unit)), len(unit["pictures"])
        note = _around(angle)
        if angle > 90:
            note += ", opposite"
        elif farthest:
            note += ", the largest angle"
        note += f"; {both} of {total} images shared" if total else "; zero on every image"
        turn = math.radians(angle)
        arrow = (round(RADIUS * math.cos(turn), 2), round(-RADIUS * math.sin(turn), 2))
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
    return Unit(f"Unit {integer(unit['unit'])}", note, arrow, tuple(images))


def _groups_table(groups: list[Record], pictures: list[Record]) -> Table:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        label, times, total = _most_frequent(group["units"][0], pictures)
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
        "Groups, one row per kept unit",
        ("unit", "merged", "median angle", "largest angle", "most frequent label of its images"),
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
                    "kept" if unit is survivor else integer(survivor["unit"]),
                    _around(unit["angle_deg"]),
                    integer(len(_common(survivor, unit))),
                    "; ".join(f"{pictures[at]['name']} {number(value)}" for at, value in strongest)
                    or "none",
                )
            )
    return Table(
        "Units of these groups, with the activations of their three strongest images",
        ("unit", "merged into", "angle", "images shared", "strongest images"),
        tuple(rows),
    )
