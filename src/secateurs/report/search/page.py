"""The page of a search: figures, data tables, and the command that trains the best."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.report.common.canvas import Plot
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    percent,
    plain,
    seconds,
)
from secateurs.report.common.machines import machine_words
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
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


def write_search_page(search: Record, directory: Path, *, data: str | None = None) -> Path:
    """Write the page of a search (what `search.json` holds) to `directory`/search.html.

    `data` is where the images are, for the commands on the page. The file is written whole or not
    at all and loads nothing from anywhere. Raises InputError when the search is of another schema
    or the page cannot be written.
    """
    if search.get("schema") != SCHEMA:
        raise InputError(f"search: schema is {search.get('schema')!r}, expected {SCHEMA}")
    return write_page(directory / NAME, render_search(search, directory, data=data))


def render_search(search: Record, directory: Path | None = None, *, data: str | None = None) -> str:
    """The page as text."""
    search = isolate_names(search)
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
            "record_groups": _record(search),
            **page_values(next_steps(search, directory, data), search, directory),
        },
        colours=dict(colours),
    )


def next_steps(search: Record, directory: Path | None, data: str | None) -> list[Step]:
    """Commands that train the best configuration, evaluate it, or print the trials."""
    out = None if directory is None else shown_path(directory)
    images, model = shown_data(data), "MODEL" if out is None else f"{out}-model"
    # The record has the command with placeholders, whatever folders the search was of.
    places = {"DATA": images, "MODEL": model}
    words = [places.get(word, word) for word in shlex.split(search["best"]["command"])]
    steps = [
        Step("Train the best configuration and save the network:", shlex.join(words)),
        step("Then measure it on the test images, once:", "evaluate", model, images),
    ]
    if out is not None:
        steps.append(step("Print the trials as a table:", "results", out))
    return steps


def _sections(search: Record) -> list[Section]:
    """The sections of the method, then those that all methods have."""
    method = search["settings"]["method"]
    own = {"grid": _grid_sections, "halving": _rung_sections, "tpe": _history_sections}[method]
    mattered = Section(
        "importance",
        "Importance",
        "The share of the variance of validation accuracy that each parameter explains.",
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
            ("val_accuracy_mean", "Best accuracy up to this epoch"),
            ("last_epoch_accuracy_mean", "Accuracy at this epoch"),
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
        "One training per learning rate. A cell is the result of a training of that many epochs: "
        "at a constant learning rate it is the start of the longest training."
    )
    return [
        Section("cells", "Cells", lead, (cells,)),
        Section(
            "curves",
            "Curves",
            "Validation accuracy and loss of each learning rate by epoch.",
            (curves,),
        ),
    ]


def _rung_sections(search: Record) -> list[Section]:
    caption = search_captions.rungs_caption(search)
    plot = Plot(figures.rungs(search), "", f"Accuracy from rung to rung. {caption}")
    panel = Panel("rungs", "From rung to rung", caption, (plot,), (rungs_table(search),))
    eta = search["settings"]["eta"]
    lead = (
        f"All configurations are trained for few epochs; one in {eta} is promoted to a training "
        f"{eta} times as long, and so on."
    )
    return [Section("rungs", "Rungs", lead, (panel,))]


def _history_sections(search: Record) -> list[Section]:
    caption = search_captions.history_caption(search)
    plot = Plot(figures.history(search), "", f"Accuracy trial by trial. {caption}")
    panel = Panel("history", "Best so far", caption, (plot,), (trials_table(search),))
    lead = "After the random trials, the sampler proposes values near those of good trials."
    return [Section("history", "Trials", lead, (panel,))]


def _together(search: Record) -> Section:
    caption = search_captions.parallel_caption(search)
    plot = Plot(parallel(search), "", f"Parallel coordinates. {caption}")
    what = "cells" if search["cells"] is not None else "configurations"
    table = ranked_table(search, lines_of(search), f"All {what}, best first")
    return Section(
        "parallel",
        "Parallel coordinates",
        f"The parameters of the best {what}.",
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
    """Settings, data, versions and times."""
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
    machines = machine_words(search.get("machines"))
    if machines:
        groups.append(("Where trainings ran", machines))
    return [(title, [(k, plain(v)) for k, v in pairs.items()]) for title, pairs in groups]
