"""The section about mistakes: the highest losses, and confused classes with example pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateurs.report.common.answers import Answer, answer_of
from secateurs.report.common.formatting import integer, plural
from secateurs.report.common.sweep_rows import Record
from secateurs.report.common.thumbnails import thumbnail


@dataclass(frozen=True)
class Picture:
    """An image with the networks' answers; `maps` are names of networks and where they looked."""

    name: str
    label: str
    source: str
    answers: tuple[Answer, ...]
    maps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused, with examples of both."""

    title: str
    text: str
    images: tuple[Picture, ...]


@dataclass(frozen=True)
class MistakesPart:
    """What the template `mistakes.html.j2` shows."""

    lead: str
    losses: tuple[Picture, ...]
    pairs: tuple[Pair, ...]


def mistakes_part(
    found: Record | None, names: Mapping[str, str], directory: Path | None
) -> MistakesPart | None:
    """The section for what `mistakes_record` found; `names` say what the networks are called."""
    if found is None:
        return None
    who = "the network" + (f" {names[found['network']]}" if len(names) > 1 else "")
    if not found["losses"]:
        return MistakesPart(f"There is no mistake of {who} on these images.", (), ())
    return MistakesPart(
        lead=(
            f"Mistakes of {who}: the images with the highest loss, then the classes that are "
            "confused most. Beside the most confident mistakes of a pair are correct images of the "
            "other class with the highest probability of the true one. Dimmed pictures show which "
            "region decided the prediction (Grad-CAM)."
        ),
        losses=tuple(_picture(row, names, directory) for row in found["losses"]),
        pairs=tuple(_pair(pair, names, directory) for pair in found["confusions"]),
    )


def _pair(pair: Record, names: Mapping[str, str], directory: Path | None) -> Pair:
    text = (
        f"{plural(pair['num_images'], 'image')} of {integer(pair['num_true'])} labelled "
        f"{pair['true']}"
    )
    if len(names) > 1:
        counts = ", ".join(f"{pair['counts'][when]} {name}" for when, name in names.items())
        text += f" ({counts})"
    rows = [*pair["mistakes"], *pair["likest"]]
    return Pair(
        f"{pair['true']} taken for {pair['answer']}",
        f"{text}.",
        tuple(_picture(row, names, directory) for row in rows),
    )


def _picture(row: Record, names: Mapping[str, str], directory: Path | None) -> Picture:
    def shown(file: str | None) -> str:
        return "" if directory is None else thumbnail(directory, file)

    return Picture(
        row["name"],
        row["label"],
        shown(row["thumbnail"]),
        tuple(answer_of(name, row["answers"][when], row["label"]) for when, name in names.items()),
        maps=tuple(
            (name, shown(file))
            for when, name in names.items()
            if (file := row.get("maps", {}).get(when)) is not None
        ),
    )
