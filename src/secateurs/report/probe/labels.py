"""The section about labels: improbable ones with pictures, duplicates with two labels, classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secateurs.report.common.formatting import integer, listed, percent, plural
from secateurs.report.common.panel import Table
from secateurs.report.common.sweep_rows import Record
from secateurs.report.common.thumbnails import thumbnail

MOST_DUPLICATES = 12


@dataclass(frozen=True)
class LabelSample:
    """An image whose label is improbable; `source` is its picture, empty where it is missing."""

    name: str
    label: str
    probability: str
    suggested: str
    suggested_probability: str
    source: str


@dataclass(frozen=True)
class LabelPart:
    """What the template `labels.html.j2` shows."""

    lead: str
    samples: tuple[LabelSample, ...]
    more: str
    duplicates: tuple[str, ...]
    classes: Table


def label_part(found: Record | None, directory: Path | None) -> LabelPart | None:
    """The section for what `find_labels` recorded, pictures read from `directory`; None for none.

    A study's page imports the macro `labels` of `labels.html.j2` and gives it this.
    """
    if found is None:
        return None
    shown = found["images"]
    more = found["num_flagged"] - len(shown)
    return LabelPart(
        lead=_lead(found),
        samples=tuple(
            LabelSample(
                name=row["name"],
                label=row["label"],
                probability=_probability(row["probability"]),
                suggested=row["suggested"],
                suggested_probability=_probability(row["suggested_probability"]),
                source="" if directory is None else thumbnail(directory, row["thumbnail"]),
            )
            for row in shown
        ),
        more=f"{plural(more, 'more image')} in labels.csv." if more > 0 else "",
        duplicates=_duplicates(found["duplicates"]),
        classes=_classes(found["classes"]),
    )


def _probability(value: float) -> str:
    return "under 1%" if value < 0.01 else percent(value, digits=0)


def _lead(found: Record) -> str:
    flagged, num = found["num_flagged"], found["num_images"]
    how = (
        f"A classifier on frozen features ({found['backbone']}, {found['place']}) that was fitted "
        "without the image and its group"
    )
    if not flagged:
        return f"{how} finds the label of none of the {integer(num)} images improbable."
    return (
        f"{how} finds the label of {flagged} of {integer(num)} training and validation images "
        "improbable, the least probable first. Some of them are hard images with the right "
        "label: look before changing one. The number is that of confident learning (Northcutt et "
        "al. 2021)."
    )


def _duplicates(groups: list[Record]) -> tuple[str, ...]:
    found = [
        f"{'Identical' if group['identical'] else 'Look-alike'}: "
        + listed([f"{name} ({label})" for name, label in zip(*_pairs(group), strict=True)])
        for group in groups[:MOST_DUPLICATES]
    ]
    if len(groups) > MOST_DUPLICATES:
        found.append(f"{plural(len(groups) - MOST_DUPLICATES, 'more group')}.")
    return tuple(found)


def _pairs(group: Record) -> tuple[list[str], list[str]]:
    return group["names"], group["labels"]


def _classes(classes: list[Record]) -> Table:
    rows = [
        (
            row["class"],
            integer(row["num_images"]),
            integer(row["num_flagged"]),
            "" if row["suggested"] is None else f"{row['suggested']} ({row['num_suggested']})",
        )
        for row in classes
    ]
    columns = ("class", "images", "labels to check", "most often more probable")
    return Table("Labels to check, by class", columns, tuple(rows))
