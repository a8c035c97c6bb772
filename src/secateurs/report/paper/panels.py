"""The panels of a run of the paper: each of its tables and figures beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateurs.report.common.canvas import Plot
from secateurs.report.common.formatting import (
    degrees,
    integer,
    number,
    percent,
    percent_interval,
    plural,
)
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.sweep_rows import Record
from secateurs.report.grid.figures import accuracy_map, removed_map
from secateurs.report.paper import figures
from secateurs.report.search.grid_figures import cell_map
from secateurs.report.study.reduction_figures import confusion
from secateurs.study.paper.published_numbers import published

NUM_UNITS = 4096  # of the paper's fc7
RULES = {
    "published": "the program: incoming weights added",
    "quiet": "without noise: the same without dropout and new views",
    "per_neuron": "scaled per unit: the same, without noise",
    "text": "the text: outgoing weights added",
    "least_squares": "least squares: outgoing weights refitted",
}
DROPOUTS = {
    "first-epoch": "the program: active in the first epoch alone",
    "on": "the text: active in every epoch",
}
RESIZES = {
    "crop": "the program: short side to 256, then the central 224",
    "straight": "the text: straight to 224 x 224",
}


def accuracy_words(evaluation: Record) -> str:
    """An accuracy with its interval."""
    names = ("accuracy", "accuracy_low", "accuracy_high")
    return percent_interval(*(evaluation[name] for name in names))


def _beside(
    title: str, rows: Sequence[Record], *, fraction: bool = True, interval: str = "95% interval"
) -> Table:
    def number(value: float | None) -> str:
        if value is None:
            return "–"
        return percent(value) if fraction else f"{value:,.1f}"

    return Table(
        title,
        ("", "published", "ours", interval, "verdict", "reason"),
        tuple(
            (
                row["what"],
                number(row["published"]),
                number(row["ours"]),
                _interval(row, number),
                row["verdict"],
                row["why"] or "",
            )
            for row in rows
        ),
    )


def _interval(row: Record, number: Callable[[float], str]) -> str:
    return "–" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"


def table1(answer: Record) -> Panel:
    """Table 1 and figure 1: test accuracy over frozen layers."""
    rows = answer["table1"]
    top = max((r for r in rows if r["pretrained"]), key=lambda r: r["ours"])
    theirs = max(published()["table1"], key=lambda row: row["mean"])
    caption = (
        f"Our highest mean is {percent(top['ours'])} with {top['what']}, the published one "
        f"{percent(theirs['mean'] / 100)} with {theirs['depth']}. Open circles are single runs."
    )
    plot = Plot(figures.table1(rows), "", f"Test accuracy over frozen layers. {caption}")
    table = _beside("Table 1: mean test accuracy", rows)
    return Panel("table1", "Table 1 and figure 1", caption, (plot,), (table,))


def search(answer: Record) -> list[Panel]:
    """The search over learning rates and epochs; nothing when it was left out."""
    found = answer["search"]
    if found is None:
        return []
    best, theirs = found["best"], answer["published_search"]
    cells = sorted(
        (c for c in found["cells"] if c["last_epoch_accuracy_mean"] is not None),
        key=lambda c: -c["last_epoch_accuracy_mean"],
    )
    top = cells[0]
    caption = (
        f"The accuracy of the last epoch is highest after {top['epochs']} epochs at learning rate "
        f"{top['lr']:g} ({percent(top['last_epoch_accuracy_mean'])} on validation images, "
        f"{found['depth']} frozen layers); the paper used {theirs['epochs']} epochs at "
        f"{theirs['lr']:g}. The frame marks the best cell if any epoch may be kept "
        f"({percent(best['val_accuracy_mean'])})."
    )
    plot = Plot(
        cell_map(found, "last_epoch_accuracy_mean"),
        "Validation accuracy at the last epoch",
        f"Heat map, learning rates by epochs. {caption}",
    )
    table = Table(
        "Every cell",
        ("learning rate", "epochs", "last epoch", "best epoch"),
        tuple(
            (
                f"{cell['lr']:g}",
                str(cell["epochs"]),
                percent(cell["last_epoch_accuracy_mean"]),
                percent(cell["val_accuracy_mean"]),
            )
            for cell in found["cells"]
        ),
    )
    return [Panel("search", "Learning rate and epochs", caption, (plot,), (table,))]


def table2(answer: Record) -> Panel:
    """Table 2 and figure 2: the best network by class."""
    best, rows = answer["best"], answer["table2"]
    test = best["test"]
    caption = (
        f"Accuracy {accuracy_words(test)} on {plural(test['num_images'], 'test image')}, with "
        f"{best['depth']} frozen layers in run {best['run'] + 1}; published: 50.0% "
        "on 134 test images, with 6. The measures are for each class against the rest."
    )
    plots = tuple(
        Plot(
            figures.spi(test["per_class"], rows, measure),
            measure.capitalize(),
            f"{measure} of each class with its interval.",
        )
        for measure in figures.MEASURES
    )
    matrix = Plot(
        confusion(test, answer["data"]["classes"]),
        "Confusion (figure 2)",
        "Confusion matrix on the test images.",
    )
    spi_rows = tuple(
        (
            row["class"],
            *(number(row[measure]) for measure in figures.MEASURES),
            integer(row["num_true"]),
        )
        for row in test["per_class"]
    )
    tables = (
        _beside("Table 2 beside the paper's", rows),
        Table("Table 2, ours", ("class", *figures.MEASURES, "images"), spi_rows),
    )
    title = "Table 2 and figure 2: the best network"
    return Panel("table2", title, caption, (*plots, matrix), tables, wide=False)


def table3(answer: Record) -> Panel:
    """Table 3 and figure 3: means over the norm thresholds by angle."""
    grid, theirs = answer["grid"], published()["table3"]
    program = grid["ways"]["published"]["by_angle"][-1]
    text = grid["ways"]["text"]["by_angle"][-1]
    caption = (
        f"At {degrees(program['low_deg'])} the mean accuracy is "
        f"{percent(program['accuracy_mean'])} with the rule of the program and "
        f"{percent(text['accuracy_mean'])} with that of the text. Unpruned: "
        f"{percent(grid['unpruned']['accuracy'])}, published 50.0%. The rule of the text and "
        f"least squares also remove the {integer(grid['num_dead'])} units that are always zero. As "
        "in the paper, activations are scaled to -0.5..0.5 by the minimum and maximum of the layer."
    )
    plots = (
        Plot(
            figures.by_angle(grid["ways"], theirs, "accuracy_mean", fraction=True),
            "Mean test accuracy",
            f"Mean accuracy by angle. {caption}",
        ),
        Plot(
            figures.by_angle(grid["ways"], theirs, "num_removed_mean", fraction=False),
            "Mean number of units removed",
            f"Mean number of units removed by angle. {caption}",
        ),
    )
    tables = (
        _beside("Table 3: mean accuracy", answer["table3"]["accuracy"]),
        _beside(
            "Table 3: units removed",
            answer["table3"]["units"],
            fraction=False,
            interval="lowest to highest",
        ),
    )
    return Panel("table3", "Table 3 and figure 3", caption, plots, tables, wide=False)


def grid(answer: Record) -> Panel:
    """The program's grid as heat maps beside the published one, and every cell by every rule."""
    grid = answer["grid"]
    own = {**grid, "cells": grid["ways"]["published"]["cells"]}
    caption = f"{_free_words(own, 'The program')[:-1]}; published: 292, at 12.5° and 1.5."
    theirs = _published_grid(answer["published_grid"])
    plots = (
        Plot(accuracy_map(own), "Test accuracy", f"Heat map of test accuracy. {caption}"),
        Plot(accuracy_map(theirs), "Test accuracy, published", "Heat map of the paper's accuracy."),
        Plot(removed_map(own), "Units removed", f"Heat map of units removed. {caption}"),
        Plot(removed_map(theirs), "Units removed, published", "Heat map of the paper's counts."),
    )
    return Panel("grid", "The whole grid", caption, plots, _cells(answer), wide=False)


def _free_words(grid: Record, who: str) -> str:
    """How many units can be removed without loss of accuracy, and at which thresholds."""
    whole = grid["unpruned"]["accuracy"]
    free = [c for c in grid["cells"] if c["accuracy"] is not None and c["accuracy"] >= whole]
    most = max(free, key=lambda c: c["num_removed"], default=None)
    if most is None:
        return f"{who}: every cell loses accuracy."
    return (
        f"{who} removes up to {integer(most['num_removed'])} of {integer(grid['num_units'])} "
        f"units without loss, at {degrees(most['low_deg'])} and {most['norm_std']:g} standard "
        "deviations."
    )


def _published_grid(theirs: Record) -> Record:
    """The published grid in the form of ours; 4096 units and 134 images."""
    cells = [
        {
            "low_deg": low,
            "norm_std": std,
            "num_removed": theirs["num_pruned"][row][column],
            "num_kept": NUM_UNITS - theirs["num_pruned"][row][column],
            "accuracy": theirs["accuracy"][row][column],
            "accuracy_low": None,
            "accuracy_high": None,
        }
        for row, std in enumerate(theirs["norm_stds"])
        for column, low in enumerate(theirs["angles_deg"])
    ]
    settings = {"angles_deg": theirs["angles_deg"], "norm_stds": theirs["norm_stds"]}
    unpruned = {"accuracy": published()["table2"]["accuracy"] / 100}
    return {"cells": cells, "settings": settings, "unpruned": unpruned, "num_units": NUM_UNITS}


def _cells(answer: Record) -> tuple[Table, Table]:
    """Each cell beside the published one, and by each of our rules."""
    ways = answer["grid"]["ways"]
    beside = Table(
        "Every cell with the rule of the program",
        ("", "published", "ours", "95% interval", "verdict", "removed, published", "removed, ours"),
        tuple(
            (
                row["what"],
                percent(row["published"]),
                percent(row["ours"]),
                _interval(row, percent),
                row["verdict"],
                integer(row["published_removed"]),
                integer(row["removed"]),
            )
            for row in answer["cells"]
        ),
    )
    names = [RULES[name].split(":")[0] for name in ways]
    rows = tuple(
        (
            f"{degrees(cell['low_deg'])}, {cell['norm_std']:g}",
            *(
                f"{percent(c['accuracy'])}, {integer(c['num_removed'])}"
                for c in (way["cells"][place] for way in ways.values())
            ),
        )
        for place, cell in enumerate(ways["published"]["cells"])
    )
    others = Table("Accuracy and units removed, by every rule", ("", *names), rows)
    return beside, others


def readings(answer: Record) -> Panel:
    """Where the text and the program differ, with results of both."""
    found = answer["readings"]
    caption = (
        "Where the text of the paper and its program differ, or the text leaves a choice, both "
        "variants were run."
    )
    resizes = Table(
        "Test images resized",
        ("", "test accuracy of the best network"),
        tuple((RESIZES[row["resize"]], accuracy_words(row["test"])) for row in found["resize"]),
    )
    dropouts = Table(
        f"Dropout, {found['dropout'][0]['depth']} frozen layers",
        ("", "mean test accuracy"),
        tuple(
            (DROPOUTS[row["dropout"]], percent_interval(row["mean"], row["low"], row["high"]))
            for row in found["dropout"]
        ),
    )
    overall = found["overall_accuracy"]
    theirs = published()["table2"]["accuracy"] / 100
    classes = len(published()["images"]["classes"])
    formulas = Table(
        "Overall accuracy",
        ("", "published network", "our best"),
        (
            (
                "the program: correct predictions of all",
                percent(theirs),
                percent(overall["answers"]),
            ),
            (
                "the text: (tp + tn) of all, mean over classes",
                percent(1 - 2 * (1 - theirs) / classes),
                percent(overall["formula"]),
            ),
        ),
    )
    ways = answer["grid"]["ways"]
    low, std = answer["grid"]["cell"]
    picked = [
        (name, next((c for c in way["cells"] if (c["low_deg"], c["norm_std"]) == (low, std)), None))
        for name, way in ways.items()
    ]
    merging = Table(
        f"fc7 at {degrees(low)} and {std:g} standard deviations",
        ("", "units removed", "test accuracy", "mean of all cells"),
        tuple(
            (
                RULES[name],
                integer(cell["num_removed"]),
                percent(cell["accuracy"]),
                percent(_mean([c["accuracy"] for c in ways[name]["cells"]])),
            )
            for name, cell in picked
            if cell is not None
        ),
    )
    tables = (resizes, dropouts, formulas, *([merging] * bool(merging.rows)))
    return Panel("text", "Text and program", caption, (), tables, open_tables=True)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
