"""The page of a search: one self-contained HTML file with its figures, numbers and the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.report.common.canvas import Plot
from secateurs.report.common.formatting import (
    percent,
    seconds,
)
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.grid.figures import angle_colours
from secateurs.report.search import captions as search_captions
from secateurs.report.search import figures, grid_figures, summary
from secateurs.report.search.parallel import lines_of, parallel
from secateurs.report.search.tables import cells_table, ranked_table, rungs_table, trials_table

SCHEMA = 1
NAME = "search.html"


@dataclass(frozen=True)
class Section:
    """A part of the page with its panels."""

    key: str
    title: str
    lead: str
    panels: tuple[Panel, ...]


def write_search_page(search: Record, directory: Path) -> Path:
    """Write the page of a search (what `search.json` holds) to `directory`/search.html.

    The file is written whole or not at all and loads nothing from anywhere. Raises InputError
    when the search is of another schema or the page cannot be written.
    """
    if search.get("schema") != SCHEMA:
        raise InputError(f"search: schema is {search.get('schema')!r}, expected {SCHEMA}")
    return write_page(directory / NAME, render_search(search))


def render_search(search: Record) -> str:
    """The page as text."""
    sections = _sections(search)
    colours = angle_colours(len(search["trials"])) if search["cells"] is not None else []
    return render_page(
        "search.html.j2",
        (panel for section in sections for panel in section.panels),
        {
            "search": search,
            "headline": summary.headline(search),
            "standfirst": summary.standfirst(search),
            "tiles": summary.tiles(search),
            "cautions": summary.cautions(search),
            "sections": sections,
            "record": _record(search),
        },
        colours=dict(colours),
    )


def _sections(search: Record) -> list[Section]:
    """Each method's own evidence, and what all have in common."""
    method = search["settings"]["method"]
    own = {"grid": _grid_sections, "halving": _rung_sections, "tpe": _history_sections}[method]
    mattered = Section(
        "importance",
        "What mattered",
        "How much of the differences in validation accuracy each parameter explains.",
        (_importance(search),),
    )
    return [*own(search), _together(search), mattered]


def _grid_sections(search: Record) -> list[Section]:
    caption = search_captions.cells_caption(search)
    order = "rows are learning rates, columns numbers of epochs"
    unit = ", %" if len(search["settings"]["epochs"]) > grid_figures.SMALL_TEXT else ""
    maps = tuple(
        Plot(
            grid_figures.cell_map(search, key),
            title + unit,
            f"Heat map, {title}, {order}. {caption}",
        )
        for key, title in (
            ("val_accuracy_mean", "Best of the first epochs"),
            ("last_epoch_accuracy_mean", "At that epoch"),
        )
    )
    cells = Panel("cells", "All cells", caption, maps, (cells_table(search),), wide=False)
    text = search_captions.curves_caption(search)
    runs = search["settings"]["runs"]
    curves = Panel(
        "curves",
        "Learning curves",
        text,
        tuple(
            Plot(grid_figures.curves(search, key), title, f"{title} by epoch. {text}")
            for key, title in (("val_accuracy", "Accuracy"), ("val_loss", "Loss"))
        ),
        switch="Show single runs" if runs > 1 else "",
        wide=False,
    )
    lead = (
        "One training at each learning rate. A cell says what a training of that many epochs would "
        "have given: at a constant learning rate it is the beginning of the longer one."
    )
    return [
        Section("cells", "Cells", lead, (cells,)),
        Section("curves", "Curves", "Where each learning rate was, epoch by epoch.", (curves,)),
    ]


def _rung_sections(search: Record) -> list[Section]:
    caption = search_captions.rungs_caption(search)
    plot = Plot(figures.rungs(search), "", f"Accuracy from rung to rung. {caption}")
    panel = Panel("rungs", "From rung to rung", caption, (plot,), (rungs_table(search),))
    eta = search["settings"]["eta"]
    lead = (
        f"Every configuration is trained briefly; the best in {eta} go on to a training {eta} "
        "times as long, and so forth."
    )
    return [Section("rungs", "Rungs", lead, (panel,))]


def _history_sections(search: Record) -> list[Section]:
    caption = search_captions.history_caption(search)
    plot = Plot(figures.history(search), "", f"Accuracy trial by trial. {caption}")
    panel = Panel("history", "Best so far", caption, (plot,), (trials_table(search),))
    lead = "After the random trials each one is drawn where earlier ones were good."
    return [Section("history", "Trials", lead, (panel,))]


def _together(search: Record) -> Section:
    caption = search_captions.parallel_caption(search)
    plot = Plot(parallel(search), "", f"Parallel coordinates. {caption}")
    what = "cells" if search["cells"] is not None else "configurations"
    table = ranked_table(search, lines_of(search), f"All {what}, best first")
    return Section(
        "parallel",
        "All together",
        f"Where good {what} lie.",
        (Panel("parallel", "Parameters and accuracy", caption, (plot,), (table,)),),
    )


def _importance(search: Record) -> Panel:
    caption = search_captions.importance_caption(search)
    figure = figures.importance(search)
    if figure is None:
        return Panel("importance", "Importance of each parameter", caption)
    rows = [
        (summary.NAMES[part["name"]], percent(part["share"]))
        for part in search["importance"]["parts"]
    ]
    table = Table("Shares of variance", ("parameter", "share"), tuple(rows))
    plot = Plot(figure, "", f"Bars. {caption}")
    return Panel("importance", "Importance of each parameter", caption, (plot,), (table,))


def _record(search: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """What made these numbers: settings, data, versions, time."""
    counts = search["split"]["counts"]
    data = {
        "images": search["data"]["name"],
        "split": f"{search['split']['rule']} ({counts['train']}/{counts['val']}/{counts['test']})",
        "pretrained layers": ", ".join(search["identity"]["weights"]["loaded"]) or "none",
    }
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Settings", search["settings"]),
        ("Data and weights", data),
        ("Versions", search["versions"]),
        ("Time", {key: seconds(value) for key, value in search["timing"].items()}),
    ]
    return [(title, [(k, _plain(v)) for k, v in pairs.items()]) for title, pairs in groups]


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return summary.typed(value) if isinstance(value, int | float) else str(value)
