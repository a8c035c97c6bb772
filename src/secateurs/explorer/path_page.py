"""The page of a whole network's path as text: everything it needs is in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from secateurs.explorer.layer_page import OWN
from secateurs.nets.stock import stock_name
from secateurs.report.common import formatting
from secateurs.report.common.canvas import DARK
from secateurs.report.common.direction import isolate_names, with_bdi
from secateurs.report.common.render import (
    TEMPLATES,
    embedded_json,
    packed_plotly,
    page_script,
    templates,
)
from secateurs.report.frontier.figures import made_points
from secateurs.study.pruning.size_path import SizePath

Record = dict[str, Any]


@cache
def path_script() -> str:
    """The page's own script."""
    return page_script(OWN / "common.js", OWN / "path.js")


def study_networks(results: Record) -> list[Record]:
    """The networks of a study's frontier, as far as the page shows them."""
    return [
        {
            "name": row["name"],
            "kind": row["kind"],
            "recommended": row["name"] == results["answer"]["name"],
            "bytes": row["cost"]["file_bytes"],
            "macs": row["cost"]["macs"],
            "ms": row["ms"],
            "accuracy": row["val"]["accuracy"],
            "accuracy_low": row["val"]["accuracy_low"],
            "accuracy_high": row["val"]["accuracy_high"],
        }
        for row in made_points(results)
    ]


def path_facts(path: SizePath, study: Record | None) -> Record:
    """What does not change while sizes are computed, as plain data."""
    split = path.dataset.split
    return {
        "model": path.place.model.resolve().name,
        "directory": str(path.place.directory),
        "backbone": stock_name(path.config.backbone),
        "data": path.dataset.name,
        "split": split.rule,
        "num_val": len(path.dataset.sides["val"]),
        "classes": list(path.dataset.classes),
        "networks": [] if study is None else study_networks(study),
        "unpruned": None if study is None else study["recommended"]["unpruned"],
    }


def render_path_page(
    path: SizePath, study: Record | None, saved_in: Path, *, layer_page: bool, max_mb: int = 32
) -> str:
    """The page for a path and, where it is of a study, the networks of its frontier."""
    facts, state = path_facts(path, study), path.state()
    commands = {f"{row['share']:g}": path.command(row["share"]) for row in state["positions"]}
    styles = (TEMPLATES / "report.css", OWN / "explore.css", OWN / "path.css")
    text = (
        templates(OWN)
        .get_template("path.html.j2")
        .render(
            facts=isolate_names(facts),
            whole=state["positions"][0],
            num_sizes=len(state["positions"]),
            layer_page=layer_page,
            formatting=formatting,
            saved_in=saved_in,
            max_mb=max_mb,
            style=Markup("\n".join(file.read_text(encoding="utf-8") for file in styles)),
            script=Markup(path_script()),
            plotly=Markup(packed_plotly()),
            facts_json=embedded_json(facts),
            first_json=embedded_json(state | {"commands": commands}),
            dark=embedded_json(DARK),
        )
    )
    return with_bdi(text)
