"""The page of `secateurs show`: training images with the views that training draws."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.report.common.formatting import integer, plain, plural
from secateurs.report.common.next_steps import page_values, shown_data, step
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record

NAME = "show.html"


@dataclass(frozen=True)
class Row:
    """A row of the page; `sources` are data: addresses."""

    name: str
    label: str
    sources: tuple[str, ...]


def write_show_page(
    shown: Record, config: Mapping[str, Any], directory: Path, *, data: str
) -> Path:
    """Write `directory`/show.html, whole or not at all, and return its path."""
    return write_page(directory / NAME, render_show(shown, config, directory, data=data))


def render_show(
    shown: Record, config: Mapping[str, Any], directory: Path | None = None, *, data: str
) -> str:
    """The page as text.

    `shown` is a `ViewsShown` as plain data, `config` are the options that decide the views.
    """
    images: list[Record] = list(shown["images"])
    num_views = len(images[0]["pictures"]) - 1
    steps = [step("Train with these views:", "study", shown_data(data))]
    return render_page(
        "show.html.j2",
        (),
        {
            "shown": shown,
            "headline": f"What {shown['backbone']} sees of {shown['data']}",
            "standfirst": (
                f"{plural(len(images), 'training image')} of {integer(shown['num_train'])}: "
                f"the evaluation view and the views of the first "
                f"{plural(num_views, 'epoch')}, {shown['size']} pixels wide and high."
            ),
            "tiles": [],
            "cautions": [],
            "lead": (
                "A view depends on the seed, the epoch and the image alone: a training with these "
                "options sees exactly these pictures."
            ),
            "images": [
                Row(image["name"], image["label"], tuple(map(_address, image["pictures"])))
                for image in images
            ],
            "record_groups": [
                ("Configuration", [(name, plain(value)) for name, value in config.items()])
            ],
            **page_values(steps, {}, directory),
        },
    )


def _address(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
