"""The data tables behind a search's figures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from secateurs.report.common.formatting import integer, number, percent, percent_interval, seconds
from secateurs.report.common.panel import Table
from secateurs.report.common.sweep_rows import Record
from secateurs.report.search.parallel import rank
from secateurs.report.search.summary import NAMES, typed


def accuracy_text(row: Record) -> str:
    """Mean validation accuracy with its interval, or that there is none."""
    if row["val_accuracy_mean"] is None:
        return "diverged"
    text = percent_interval(
        row["val_accuracy_mean"], row["val_accuracy_low"], row["val_accuracy_high"]
    )
    return f"{text}, {row['num_diverged']} diverged" if row["num_diverged"] else text


def _spread_columns(search: Record) -> tuple[str, ...]:
    several = search["settings"]["runs"] > 1
    return ("accuracy (95% interval)", *(("std over runs",) if several else ()))


def _spread(row: Record, search: Record) -> tuple[str, ...]:
    if search["settings"]["runs"] == 1:
        return (accuracy_text(row),)
    std = row["val_accuracy_std"]
    return (accuracy_text(row), "–" if std is None else percent(std))


def _loss(row: Record) -> str:
    return "–" if row["val_loss_mean"] is None else number(row["val_loss_mean"], digits=3)


def cells_table(search: Record) -> Table:
    """Every cell with its interval, and its last epoch beside its best one."""
    rows = [
        (
            typed(cell["lr"]),
            integer(cell["epochs"]),
            *_spread(cell, search),
            _loss(cell),
            ", ".join(str(epoch + 1) for epoch in cell["best_epochs"]) or "–",
            "–"
            if cell["last_epoch_accuracy_mean"] is None
            else percent(cell["last_epoch_accuracy_mean"]),
        )
        for cell in search["cells"]
    ]
    last = ("loss", "best epoch", "accuracy at the last epoch")
    columns = ("learning rate", "epochs", *_spread_columns(search), *last)
    return Table("Every cell", columns, tuple(rows))


def trials_table(search: Record) -> Table:
    """Every trial, in order."""
    names = [one["name"] for one in search["space"]]
    nodes = [nodes_of(row) for row in search["trials"]]
    rows = [
        (
            str(row["number"] + 1),
            *(typed(row["parameters"][name]) for name in names),
            *_spread(row, search),
            _loss(row),
            seconds(row["timing"]["seconds"]),
            *([where] if any(nodes) else []),
        )
        for row, where in zip(search["trials"], nodes, strict=True)
    ]
    columns = ("trial", *(NAMES[name] for name in names), *_spread_columns(search), "loss", "time")
    return Table("Every trial", (*columns, "machine") if any(nodes) else columns, tuple(rows))


def nodes_of(row: Record) -> str:
    """The machines that trained the runs of a row, where an executor ran them.

    >>> nodes_of({"runs": [{"timing": {"node": "b"}}, {"timing": {"node": "a"}}, {}]})
    'a, b'
    """
    found = {run.get("timing", {}).get("node") for run in row["runs"]}
    return ", ".join(sorted(name for name in found if name))


def rungs_table(search: Record) -> Table:
    """What each rung trained, its accuracies, and how many were promoted."""
    rows: list[tuple[str, ...]] = []
    for at, rung in enumerate(search["rungs"]):
        mine = [row for row in search["trials"] if row["rung"] == at]
        known = [r["val_accuracy_mean"] for r in mine if r["val_accuracy_mean"] is not None]
        rows.append(
            (
                str(at + 1),
                integer(rung["epochs"]),
                integer(len(rung["numbers"])),
                integer(len(rung["promoted"])),
                percent(max(known)) if known else "–",
                percent(median(known)) if known else "–",
                seconds(sum(row["timing"]["seconds"] for row in mine)),
            )
        )
    columns = ("rung", "epochs", "trained", "promoted", "best", "median", "time")
    return Table("Every rung", columns, tuple(rows))


def ranked_table(search: Record, lines: Sequence[tuple[Record, Record]], caption: str) -> Table:
    """The lines of the parallel coordinates, the best first."""
    order = sorted(lines, key=lambda line: rank(line[0]))
    names = list(lines[0][1])
    rows = [
        (
            str(place),
            *(typed(parameters[name]) for name in names),
            *_spread(row, search),
            _loss(row),
        )
        for place, (row, parameters) in enumerate(order, start=1)
    ]
    columns = ("rank", *(NAMES[name] for name in names), *_spread_columns(search), "loss")
    return Table(caption, columns, tuple(rows))
