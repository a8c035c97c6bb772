"""The second part of a run of the paper: experiments that the paper does not have."""

from __future__ import annotations

from secateurs.report.common.canvas import Plot
from secateurs.report.common.formatting import (
    degrees,
    integer,
    percent,
    percent_interval,
    runs_of,
)
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.sweep_rows import Record
from secateurs.report.paper import figures
from secateurs.report.paper.panels import accuracy_words


def apart(answer: Record) -> list[Panel]:
    """The sweep with a split by film, or why it was not run."""
    found = answer["beyond"]["apart"]
    if not found:
        why = answer["beyond"]["no_films"]
        return [Panel("apart", "Split by film", f"Not run: {why}.")]
    test = found["chosen"]["test"]
    caption = (
        f"{found['recommendation']['sentences'][0]} That network has a test "
        f"accuracy of {accuracy_words(test)} on films without training images. The best network "
        f"of the first part has {percent(answer['best']['test']['accuracy'])}, with films on both "
        "sides and chosen on test."
    )
    plot = Plot(
        figures.apart(answer["sweep"], found["sweep"]),
        "",
        f"Validation accuracy over frozen layers with both splits. {caption}",
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
        "Mean validation accuracy", ("frozen layers", "films on both sides", "split by film"), rows
    )
    return [Panel("apart", "Split by film", caption, (plot,), (table,))]


def _points(share: float) -> str:
    """A difference of accuracies in points.

    >>> _points(0.01), _points(0.015)
    ('1.0 point', '1.5 points')
    """
    text = f"{100 * share:.1f}"
    return f"{text} {'point' if text == '1.0' else 'points'}"


def choices(answer: Record) -> Panel:
    """The effect of choosing on validation images."""
    honest, best = answer["beyond"]["chosen_on_validation"], answer["best"]
    same = answer["beyond"]["indistinguishable"]["depths"]
    alike = (
        f"{runs_of(same)} frozen layers are not significantly different on validation"
        if len(same) > 1
        else f"{runs_of(same)} frozen layers are significantly better than all others"
    )
    caption = f"On the paper's own split, {alike}. "
    if best["on"] != "test":
        caption += "The best network was chosen on validation in the first part too."
        return Panel("choice", "Choice on validation", caption)
    gain = best["test"]["accuracy"] - honest["test"]["accuracy"]
    caption += (
        f"The best network on validation ({honest['depth']} frozen layers, run "
        f"{honest['run'] + 1}) has a test accuracy of {accuracy_words(honest['test'])}; the one "
        f"chosen on test has {percent(best['test']['accuracy'])}. "
    )
    caption += (
        f"Choosing on test makes the accuracy {_points(gain)} too optimistic."
        if gain > 0
        else "Here both choices have the same test accuracy."
    )
    return Panel("choice", "Choice on validation", caption)


def compensation(answer: Record) -> Panel:
    """Least squares and adding, without the norm filter, beside units removed at random."""
    grid = answer["grid"]
    rows = grid["unfiltered"]
    left = [row for row in rows if row["num_kept"]] or rows
    most = max(left, key=lambda row: row["num_removed"])
    caption = (
        f"Without the norm filter, {degrees(most['low_deg'])} removes "
        f"{integer(most['num_removed'])} of {integer(grid['num_units'])} units. The test accuracy "
        f"is then {percent(most['refitted']['accuracy'])} with outgoing weights refitted by least "
        f"squares and {percent(most['added']['accuracy'])} with weights added. The table also has "
        "as many units removed at random."
    )
    table = Table(
        "Test accuracy",
        ("", "kept", "angles, refitted", "angles, added", "random, refitted", "random, dropped"),
        tuple(
            (
                degrees(row["low_deg"]),
                integer(row["num_kept"]),
                accuracy_words(row["refitted"]),
                percent(row["added"]["accuracy"]),
                percent(row["random_refitted"]),
                percent(row["random_dropped"]),
            )
            for row in rows
        ),
    )
    plot = Plot(figures.unfiltered(grid), "", f"Test accuracy against units kept. {caption}")
    title = "Compensation by least squares"
    return Panel("compensation", title, caption, (plot,), (table,))


def smallest(answer: Record) -> Panel:
    """The smallest networks without loss of validation accuracy."""
    found = answer["beyond"]["smallest"]
    rows = found["rows"]
    unpruned, whole = rows[0], rows[-1]
    start = "chosen with the split by film" if found["apart"] else "chosen on validation"
    caption = (
        f"The smallest networks, pruned from the one {start}, with at least as many correct "
        f"validation images and without training again. The whole network keeps "
        f"{percent(whole['fraction'])} of its parameters; its test accuracy is "
        f"{percent(whole['test']['accuracy'])}, before pruning "
        f"{percent(unpruned['test']['accuracy'])}."
    )
    table = Table(
        "Smallest without loss",
        ("", "units kept", "parameters", "validation", "test"),
        tuple(
            (
                row["what"],
                ", ".join(f"{k} {integer(v)}" for k, v in (row["kept"] or {}).items()) or "–",
                integer(row["num_parameters"]),
                *(accuracy_words(row[side]) for side in ("val", "test")),
            )
            for row in rows
        ),
    )
    plots = (
        Plot(figures.smallest(rows), "Size", f"Bars of the parameters kept. {caption}"),
        Plot(figures.smallest_accuracy(rows), "Accuracy", f"Accuracy with intervals. {caption}"),
    )
    return Panel("smallest", "Smallest networks without loss", caption, plots, (table,), wide=False)
