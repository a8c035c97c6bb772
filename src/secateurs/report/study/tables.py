"""The data tables behind the figures of a study."""

from __future__ import annotations

from collections.abc import Sequence

from secateurs.report.common.formatting import (
    change,
    count,
    degrees,
    integer,
    interval,
    milliseconds,
    number,
    percent,
    seconds,
    share,
    size,
    some,
)
from secateurs.report.common.latency import latency_name, measured, ratio_of, verdict
from secateurs.report.common.panel import Table
from secateurs.report.common.sweep_rows import (
    Record,
    depth_rows,
    is_scratch,
    random_frozen,
    scratch_row,
    trial_name,
)
from secateurs.report.study.evaluations import Evaluations, chosen_trial


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows))


def counts_table(results: Record) -> Table:
    """Images per class and side of the split."""
    sides = results["split"]["per_class"]
    columns = zip(
        results["data"]["classes"], sides["train"], sides["val"], sides["test"], strict=True
    )
    rows = [[name, *(integer(n) for n in (*ns, sum(ns)))] for name, *ns in columns]
    totals = [results["split"]["counts"][side] for side in ("train", "val", "test")]
    rows.append(["all", *(integer(n) for n in (*totals, sum(totals)))])
    return _table("Images per class", ["class", "training", "validation", "test", "all"], rows)


def sweep_table(results: Record) -> Table:
    """Mean, spread and interval of every depth."""
    scratch = scratch_row(results)
    rows = [
        [
            "scratch" if is_scratch(row) else str(row["depth"]),
            integer(row["num_runs"]),
            percent(row["val_accuracy_mean"]),
            percent(row["val_accuracy_std"]),
            interval(row["val_accuracy_low"], row["val_accuracy_high"]) or "not known",
            _to_best(row.get("to_best"), random_frozen(results, row)),
            _seconds(row),
        ]
        for row in [*depth_rows(results), *([scratch] if scratch else [])]
    ]
    return _table(
        "Validation accuracy by depth",
        [
            *("frozen layers", "runs", "mean", "std over runs", "95% interval, %"),
            *("difference to the best", "time per run"),
        ],
        rows,
    )


def runs_table(results: Record) -> Table:
    """Validation accuracy of each run and depth, as in the paper's table 1."""
    scratch = scratch_row(results)
    shown = [*depth_rows(results), *([scratch] if scratch else [])]
    runs = sorted({trial["run"] for trial in results["trials"]})
    rows: list[list[str]] = []
    for row in shown:
        found = {
            trial["run"]: trial["val_accuracy"]
            for trial in results["trials"]
            if (trial["depth"], trial["pretrained"]) == (row["depth"], row["pretrained"])
        }
        cells = [percent(found[run]) if run in found else "" for run in runs]
        name = "scratch" if is_scratch(row) else str(row["depth"])
        rows.append([name, *cells, percent(row["val_accuracy_mean"])])
    columns = ["frozen layers", *(f"run {run + 1}" for run in runs), "mean"]
    return _table("Validation accuracy of every run", columns, rows)


def _seconds(row: Record) -> str:
    taken = (row.get("timing") or {}).get("seconds_per_trial")
    return seconds(taken)


def _to_best(row: Record | None, frozen: list[str]) -> str:
    """A depth's difference to the best one in points, and whether it is significant.

    `frozen` are layers with random weights that the depth freezes.
    """
    remark = f"; freezes {some(frozen)} with random weights" if frozen else ""
    if row is None:
        return f"not compared{remark}"
    if row["is_best"]:
        return f"the best{remark}"
    text = f"{100 * row['difference']:+.1f} points"
    if row["low"] is not None:
        text += f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return text + (", not significant" if row["indistinguishable"] else ", significant") + remark


def trials_table(results: Record) -> Table:
    """Every trial with its best epoch and why it stopped."""
    chosen = chosen_trial(results)
    nodes = [(trial.get("timing") or {}).get("node") for trial in results["trials"]]
    rows = [
        [
            trial_name(trial) + (" (chosen)" if trial is chosen else ""),
            percent(trial["val_accuracy"]),
            number(trial["val_loss"]),
            integer(None if trial["best_epoch"] is None else trial["best_epoch"] + 1),
            integer(trial["epochs_run"]),
            trial["stopped"] or "not known",
            *([node or "the driver"] if any(nodes) else []),
        ]
        for trial, node in zip(results["trials"], nodes, strict=True)
    ]
    columns = ["trial", "validation accuracy", "validation loss", "best epoch", "epochs", "stopped"]
    return _table("All trials", [*columns, *(["machine"] if any(nodes) else [])], rows)


def curve_table(trial: Record) -> Table:
    """Loss and accuracy of one trial, epoch by epoch."""
    rows = [
        [
            integer(row["epoch"] + 1) + (" (best)" if row["epoch"] == trial["best_epoch"] else ""),
            number(row["train_loss"], digits=3),
            number(row["val_loss"], digits=3),
            percent(row["train_accuracy"]),
            percent(row["val_accuracy"]),
        ]
        for row in trial["curve"]
    ]
    columns = ["epoch", "training loss", "validation loss", "training accuracy"]
    return _table(f"Curve of {trial_name(trial)}", [*columns, "validation accuracy"], rows)


def confusion_table(evaluation: Record, classes: list[str], caption: str) -> Table:
    """Counts per true class (row) and predicted class (column)."""
    rows = [
        [name, *map(integer, row)]
        for name, row in zip(classes, evaluation["confusion"], strict=True)
    ]
    return _table(caption, ["true \\ predicted", *classes], rows)


def scores_table(found: Evaluations) -> Table:
    """Precision, recall and specificity per class, before and after pruning."""

    def pair(measure: str, at: int) -> str:
        values = [found.before["per_class"][at][measure]]
        if found.after:
            values.append(found.after["per_class"][at][measure])
        return " → ".join("–" if value is None else percent(value) for value in values)

    rows = [
        [
            score["class"],
            integer(score["num_true"]),
            pair("precision", at),
            pair("recall", at),
            pair("specificity", at),
        ]
        for at, score in enumerate(found.before["per_class"])
    ]
    order = ", before → after pruning" if found.after else ""
    return _table(
        f"Scores per class on the {found.side} images{order}",
        ["class", "images", "precision", "recall", "specificity"],
        rows,
    )


def units_table(results: Record) -> Table:
    """Units of each pruned layer: in all, kept, and always zero."""
    rows = [
        [
            layer["layer"],
            integer(layer["num_units"]),
            integer(layer["num_kept"]),
            share(layer["num_kept"] / layer["num_units"] if layer["num_units"] else None),
            integer(layer["num_dead"]),
        ]
        for layer in results["pruned"]["layers"]
    ]
    return _table("Units per layer", ["layer", "units", "kept", "share kept", "always zero"], rows)


def angles_table(layer: Record) -> Table:
    """Number of pairs of units per interval of angles."""
    histogram = layer["angle_deg_histogram"]
    edges = zip(histogram["edges"], histogram["edges"][1:], histogram["counts"], strict=False)
    rows = [[f"{degrees(low)} to {degrees(high)}", integer(pairs)] for low, high, pairs in edges]
    return _table(f"Angles between units of {layer['layer']}", ["angle", "pairs"], rows)


def cost_table(results: Record) -> Table:
    """Parameters, operations and file sizes before and after."""
    before, after = results["cost"]["before"], results["cost"]["after"] or {}
    formats = (
        ("parameters", "num_parameters", count),
        ("multiply-accumulates per image", "macs", count),
        ("peak activation memory per image", "activation_bytes", size),
        ("model file", "file_bytes", size),
        ("ONNX file", "onnx_bytes", size),
    )
    rows = [
        [name, text(before[key]), text(after.get(key)), change(before[key], after.get(key))]
        for name, key, text in formats
    ]
    return _table("Cost of the network", ["measure", "before", "after", "change"], rows)


def latency_table(rows: list[Record]) -> Table:
    """Median and middle half of every latency measurement."""

    def times(values: Record | None) -> str:
        if not values or values["median"] is None:
            return "not known"
        quarters = (values["p25"], values["p75"])
        bounds = "" if None in quarters else " to ".join(map(milliseconds, quarters))
        return milliseconds(values["median"]) + (f" ({bounds})" if bounds else "")

    body = [
        [
            latency_name(row),
            integer(row["batch"]),
            times(row["before_ms"]),
            times(row["after_ms"]),
            measured(row) if ratio_of(row) is not None else "not known",
            verdict(row) or "not known",
        ]
        for row in rows
    ]
    columns = ["measured with", "batch", "before", "after", "ratio (middle half)", "result"]
    return _table("Latency per batch: median (middle half)", columns, body)
