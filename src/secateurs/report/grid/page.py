"""The page of a grid: heat maps, trade-off, means by angle, and data tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.report.common.canvas import Plot
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    degrees,
    integer,
    percent,
    percent_interval,
    plain,
    seconds,
)
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.grid import figures, summary

SCHEMA = 1
NAME = "grid.html"


def write_grid_page(
    grid: Record, directory: Path, *, model: Path | None = None, data: str | None = None
) -> Path:
    """Write the page of a grid (what `grid.json` holds) to `directory`/grid.html.

    `model` and `data` are the model and its images, for the commands on the page. The file is
    written whole or not at all and loads nothing from anywhere. Raises InputError when the grid is
    of another schema or the page cannot be written.
    """
    if grid.get("schema") != SCHEMA:
        raise InputError(f"grid: schema is {grid.get('schema')!r}, expected {SCHEMA}")
    return write_page(directory / NAME, render_grid(grid, directory, model=model, data=data))


def render_grid(
    grid: Record,
    directory: Path | None = None,
    *,
    model: Path | None = None,
    data: str | None = None,
) -> str:
    """The page as text."""
    grid = isolate_names(grid)
    blocks = {panel.key: panel for panel in (_maps(grid), _trade_off(grid), _means(grid))}
    colours = figures.angle_colours(len(grid["settings"]["angles_deg"])) + figures.angle_colours(3)
    return render_page(
        "grid.html.j2",
        blocks.values(),
        {
            "grid": grid,
            "headline": summary.headline(grid),
            "standfirst": summary.standfirst(grid),
            "tiles": summary.tiles(grid),
            "cautions": summary.cautions(grid),
            "blocks": blocks,
            "record_groups": _record(grid),
            **page_values(next_steps(grid, directory, model, data), grid, directory),
        },
        colours=dict(colours),
    )


def next_steps(
    grid: Record, directory: Path | None, model: Path | None, data: str | None
) -> list[Step]:
    """Commands that prune at the best cell, explore between cells, or print the cells."""
    out = None if directory is None else shown_path(directory)
    place = "MODEL" if model is None else shown_path(model)
    images = shown_data(data)
    steps: list[Step] = []
    words = summary.prune_words(grid)
    if words is not None:
        pruned = "DIR" if out is None else f"{out}-pruned"
        steps.append(
            step(
                "Prune at the cell that removes most units without loss, and save the network:",
                *("prune", place, images, *words, "--out", pruned),
            )
        )
    layer = str(grid["settings"]["layer"])
    steps.append(
        step(
            "Try angles between the cells in the browser:",
            *("explore", place, images, "--layer", layer),
        )
    )
    if out is not None:
        steps.append(step("Print the cells as a table:", "results", out))
    return steps


def _maps(grid: Record) -> Panel:
    caption = summary.map_caption(grid)
    side = grid["evaluated"]["side"]
    order = "rows are norm thresholds, columns angles"
    plots = (
        Plot(
            figures.accuracy_map(grid),
            f"{side.capitalize()} accuracy",
            f"Heat map of {side} accuracy, {order}. {caption}",
        ),
        Plot(
            figures.removed_map(grid),
            "Units removed",
            f"Heat map of the units removed, {order}. {caption}",
        ),
    )
    return Panel("cells", "All cells", caption, plots, (_cells_table(grid),), wide=False)


def _trade_off(grid: Record) -> Panel:
    caption = summary.trade_caption(grid)
    plot = Plot(figures.trade_off(grid), "", f"Scatter plot, one marker per cell. {caption}")
    return Panel("trade", "Accuracy against units removed", caption, (plot,))


def _means(grid: Record) -> Panel:
    caption = summary.means_caption(grid)
    plots = (
        Plot(
            figures.means(grid, "accuracy", "accuracy_mean", fraction=True),
            "Mean accuracy",
            f"Mean accuracy by angle. {caption}",
        ),
        Plot(
            figures.means(grid, "num_removed", "num_removed_mean", fraction=False),
            "Mean number of units removed",
            f"Mean number of units removed, by angle. {caption}",
        ),
    )
    title = "By angle: the paper's figure 3 and table 3"
    return Panel("means", title, caption, plots, (_means_table(grid),), wide=False)


def _cells_table(grid: Record) -> Table:
    rows = [
        (
            degrees(cell["low_deg"]),
            f"{cell['norm_std']:g}",
            integer(cell["num_candidates"]),
            integer(cell["num_removed"]),
            integer(cell["num_kept"]),
            integer(cell["num_parameters"]),
            "all units removed"
            if cell["accuracy"] is None
            else percent_interval(cell["accuracy"], cell["accuracy_low"], cell["accuracy_high"]),
        )
        for cell in grid["cells"]
    ]
    columns = ("angle", "norm threshold", "candidates", "removed", "kept", "parameters")
    return Table("Every cell", (*columns, "accuracy (95% interval)"), tuple(rows))


def _means_table(grid: Record) -> Table:
    rows = [
        (degrees(row["low_deg"]), percent(row["accuracy_mean"]), f"{row['num_removed_mean']:,.1f}")
        for row in grid["by_angle"]
    ]
    return Table("Means by angle", ("angle", "accuracy", "units removed"), tuple(rows))


def _record(grid: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings, data, versions and times."""
    counts = grid["split"]["counts"]
    data = {
        "images": grid["data"]["name"],
        "split": f"{grid['split']['rule']} ({counts['train']}/{counts['val']}/{counts['test']})",
        "model": f"{grid['model']['name']} ({grid['model']['backbone']})",
        "model sha256": grid["identity"]["model"][:16],
    }
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Settings", grid["settings"]),
        ("Data and model", data),
        ("Versions", grid["versions"]),
        ("Time", {key: seconds(value) for key, value in grid["timing"].items()}),
    ]
    return [(title, [(k, plain(v)) for k, v in pairs.items()]) for title, pairs in groups]
