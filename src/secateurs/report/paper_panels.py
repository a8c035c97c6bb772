"""The panels of a run of the paper: each table and figure beside ours, then what is beyond."""

from __future__ import annotations

from collections.abc import Sequence

from secateurs.report import paper_figures as figures
from secateurs.report import words
from secateurs.report.canvas import Plot
from secateurs.report.figures_reduction import confusion
from secateurs.report.grid_figures import accuracy_map, removed_map
from secateurs.report.outcome import Record
from secateurs.report.panels import Panel
from secateurs.report.search_grid_figures import cell_map
from secateurs.report.tables import Table
from secateurs.report.words import degrees, integer, percent, percent_interval, plural
from secateurs.study.published import published

WAYS = {
    "published": "the program: rows of the incoming weights added",
    "quiet": "the same, without dropout and new views in each cell",
    "text": "the text: outgoing weights added",
    "least_squares": "outgoing weights refitted by least squares",
}
RESIZES = {
    "crop": "the program: short side to 256, then the central 224",
    "straight": "the text: straight to 224 x 224",
}


def _accuracy(evaluation: Record) -> str:
    names = ("accuracy", "accuracy_low", "accuracy_high")
    return percent_interval(*(evaluation[name] for name in names))


def _beside(title: str, rows: Sequence[Record], *, fraction: bool = True) -> Table:
    def number(value: float | None) -> str:
        if value is None:
            return "–"
        return percent(value) if fraction else f"{value:,.1f}"

    return Table(
        title,
        ("", "published", "ours", "95% interval", "verdict", "why"),
        tuple(
            (
                row["what"],
                number(row["published"]),
                number(row["ours"]),
                "–" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}",
                row["verdict"],
                row["why"] or "",
            )
            for row in rows
        ),
    )


def table1(answer: Record) -> Panel:
    """Table 1 and figure 1: test accuracy over frozen layers."""
    rows = answer["table1"]
    top = max((r for r in rows if r["pretrained"]), key=lambda r: r["ours"])
    caption = (
        f"Our highest mean is {percent(top['ours'])} with {top['what']}; the paper's is 46.9% with "
        "4. Circles are single runs."
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
        f"The last epoch is best after {top['epochs']} epochs at {top['lr']:g} "
        f"({percent(top['last_epoch_accuracy_mean'])} on validation, {found['depth']} frozen "
        f"layers); the paper took {theirs['epochs']} at {theirs['lr']:g}. Framed: the best when "
        f"any epoch may be kept ({percent(best['val_accuracy_mean'])})."
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
        f"Accuracy {_accuracy(test)} on {plural(test['num_images'], 'test image')}; the paper's is "
        "50.0% on 134. Each class against the rest."
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
            *(words.number(row[measure]) for measure in figures.MEASURES),
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
    refit = grid["ways"]["least_squares"]["by_angle"][-1]
    program = grid["ways"]["published"]["by_angle"][-1]
    caption = (
        f"At {degrees(program['low_deg'])} the program's rule leaves a mean of "
        f"{percent(program['accuracy_mean'])} and refitting {percent(refit['accuracy_mean'])}, "
        f"{percent(grid['unpruned']['accuracy'])} being the unpruned network's."
    )
    plots = (
        Plot(
            figures.by_angle(grid["ways"], theirs, "accuracy_mean", fraction=True),
            "Mean test accuracy",
            f"Mean accuracy by angle. {caption}",
        ),
        Plot(
            figures.by_angle(grid["ways"], theirs, "num_removed_mean", fraction=False),
            "Mean number of neurons removed",
            f"Mean number of neurons removed by angle. {caption}",
        ),
    )
    tables = (
        _beside("Table 3: mean accuracy", answer["table3"]["accuracy"]),
        _beside("Table 3: neurons removed", answer["table3"]["units"], fraction=False),
    )
    return Panel("table3", "Table 3 and figure 3", caption, plots, tables, wide=False)


def grid(answer: Record) -> Panel:
    """The program's grid as heat maps, and every cell in every way."""
    grid = answer["grid"]
    own = {**grid, "cells": grid["ways"]["published"]["cells"]}
    known = [c for c in own["cells"] if c["accuracy"] is not None]
    free = [c for c in known if c["accuracy"] >= grid["unpruned"]["accuracy"]]
    most = max(free, key=lambda c: c["num_removed"], default=None)
    caption = (
        "No cell of the program's rule leaves the accuracy as it was."
        if most is None
        else f"The program's rule removes up to {integer(most['num_removed'])} of "
        f"{integer(grid['num_units'])} neurons without loss, at {degrees(most['low_deg'])} and "
        f"{most['norm_std']:g} deviations; the paper 292, at 12.5° and 2."
    )
    plots = (
        Plot(accuracy_map(own), "Test accuracy", f"Heat map of test accuracy. {caption}"),
        Plot(removed_map(own), "Neurons removed", f"Heat map of neurons removed. {caption}"),
    )
    return Panel("grid", "The whole grid", caption, plots, (_cells(answer),), wide=False)


def _cells(answer: Record) -> Table:
    """Each cell as the paper has it and in all our ways."""
    theirs, ways = answer["published_grid"], answer["grid"]["ways"]
    rows: list[tuple[str, ...]] = []
    for place, cell in enumerate(ways["published"]["cells"]):
        printed = ("–", "–")
        if cell["low_deg"] in theirs["angles_deg"] and cell["norm_std"] in theirs["norm_stds"]:
            row = theirs["norm_stds"].index(cell["norm_std"])
            column = theirs["angles_deg"].index(cell["low_deg"])
            printed = (
                percent(theirs["accuracy"][row][column]),
                integer(theirs["num_pruned"][row][column]),
            )
        own = [way["cells"][place] for way in ways.values()]
        rows.append(
            (
                f"{degrees(cell['low_deg'])}, {cell['norm_std']:g}",
                *printed,
                *(f"{percent(c['accuracy'])}, {integer(c['num_removed'])}" for c in own),
            )
        )
    names = [WAYS[name].split(":")[0] for name in ways]
    columns = ("angle, norm threshold", "published accuracy", "published removed", *names)
    return Table("Every cell: accuracy and neurons removed", columns, tuple(rows))


def ambiguities(answer: Record) -> Panel:
    """What the text and the program do differently, both run."""
    caption = (
        "Where the paper's text and the published program say different things, both were run."
    )
    resizes = Table(
        "Test images resized",
        ("", "test accuracy"),
        tuple(
            (
                RESIZES[row["resize"]],
                _accuracy(row["test"]),
            )
            for row in answer["resize"]
        ),
    )
    ways = answer["grid"]["ways"]
    low, std = answer["grid"]["cell"]
    picked = [
        (name, next((c for c in way["cells"] if (c["low_deg"], c["norm_std"]) == (low, std)), None))
        for name, way in ways.items()
    ]
    merging = Table(
        f"fc7 at {degrees(low)} and {std:g} deviations",
        ("", "neurons removed", "test accuracy"),
        tuple(
            (WAYS[name], integer(cell["num_removed"]), percent(cell["accuracy"]))
            for name, cell in picked
            if cell is not None
        ),
    )
    return Panel("text", "Text against program", caption, (), (resizes, merging), open_tables=True)


def apart(answer: Record) -> list[Panel]:
    """The sweep with films kept apart, or why it was not run."""
    found = answer["beyond"]["apart"]
    if not found:
        why = answer["beyond"]["no_groups"]
        return [Panel("apart", "Films kept apart", f"Not run: {why}.")]
    test = found["chosen"]["test"]
    caption = (
        f"{found['recommendation']['sentences'][0]} The network chosen so has {_accuracy(test)} "
        "on test images whose films it never saw; "
        f"{percent(answer['best']['test']['accuracy'])} was the best when films were on both sides "
        "and test chose."
    )
    plot = Plot(
        figures.apart(answer["sweep"], found["sweep"]),
        "",
        f"Validation accuracy over frozen layers under both splits. {caption}",
    )
    mixed = {row["depth"]: row for row in answer["sweep"] if row["pretrained"]}
    rows = tuple(
        (
            str(row["depth"]),
            *(
                percent_interval(
                    one["val_accuracy_mean"], one["val_accuracy_low"], one["val_accuracy_high"]
                )
                if one
                else "–"
                for one in (mixed.get(row["depth"]), row)
            ),
        )
        for row in found["sweep"]
    )
    table = Table(
        "Mean validation accuracy", ("frozen layers", "films on both sides", "kept apart"), rows
    )
    return [Panel("apart", "Films kept apart", caption, (plot,), (table,))]


def choices(answer: Record) -> Panel:
    """What choosing on validation changes."""
    honest, best = answer["beyond"]["chosen_on_validation"], answer["best"]
    same = answer["beyond"]["indistinguishable"]["depths"]
    caption = (
        f"On the paper's own split, validation cannot tell {words.runs_of(same)} frozen layers "
        "apart. Chosen on validation, the network scores "
        f"{percent(honest['test']['accuracy'])} on test; chosen on test, "
        f"{percent(max(best['test']['accuracy'], honest['test']['accuracy']))}: the difference is "
        "what looking at the test images buys."
    )
    return Panel("choice", "Choice on validation", caption)


def smallest(answer: Record) -> Panel:
    """The smallest networks that lose nothing on validation."""
    rows = answer["beyond"]["smallest"]
    whole = rows[-1]
    caption = (
        "The smallest networks that answer at least as many validation images right, without "
        f"training again: the whole network to {percent(whole['fraction'])} of its parameters, "
        f"with {percent(whole['test']['accuracy'])} on test."
    )
    table = Table(
        "Smallest without loss",
        ("", "neurons kept", "parameters", "validation", "test"),
        tuple(
            (
                row["what"],
                ", ".join(f"{k} {integer(v)}" for k, v in (row["kept"] or {}).items()) or "–",
                integer(row["num_parameters"]),
                *(_accuracy(row[side]) for side in ("val", "test")),
            )
            for row in rows
        ),
    )
    plot = Plot(figures.smallest(rows), "", f"Bars of the parameters left. {caption}")
    return Panel("smallest", "Smaller without loss", caption, (plot,), (table,))
