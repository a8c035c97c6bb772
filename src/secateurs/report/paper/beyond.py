"""The second part of a run of the paper: what it would have found."""

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
    """The sweep with films kept apart, or why it was not run."""
    found = answer["beyond"]["apart"]
    if not found:
        why = answer["beyond"]["no_films"]
        return [Panel("apart", "Films kept apart", f"Not run: {why}.")]
    test = found["chosen"]["test"]
    caption = (
        f"{found['recommendation']['sentences'][0]} The network chosen so has "
        f"{accuracy_words(test)} on test images whose films it never saw; "
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


def _points(share: float) -> str:
    """A difference of accuracies in points.

    >>> _points(0.01), _points(0.015)
    ('1.0 point', '1.5 points')
    """
    text = f"{100 * share:.1f}"
    return f"{text} {'point' if text == '1.0' else 'points'}"


def choices(answer: Record) -> Panel:
    """What choosing on validation changes."""
    honest, best = answer["beyond"]["chosen_on_validation"], answer["best"]
    same = answer["beyond"]["indistinguishable"]["depths"]
    told = (
        f"validation cannot tell {runs_of(same)} frozen layers apart"
        if len(same) > 1
        else f"{runs_of(same)} frozen layers stand alone on validation"
    )
    caption = f"On the paper's own split, {told}. "
    if best["on"] != "test":
        caption += "The best network was chosen on validation in the first part too."
        return Panel("choice", "Choice on validation", caption)
    gain = best["test"]["accuracy"] - honest["test"]["accuracy"]
    caption += (
        f"The network that is best there ({honest['depth']} frozen layers, run "
        f"{honest['run'] + 1}) has {accuracy_words(honest['test'])} on test; the one that is best "
        f"on test has {percent(best['test']['accuracy'])} by construction. "
    )
    caption += (
        f"Looking at the test images bought {_points(gain)}."
        if gain > 0
        else "Here both choices are equally good on test."
    )
    return Panel("choice", "Choice on validation", caption)


def compensation(answer: Record) -> Panel:
    """Refitting instead of adding, without the norm filter, against neurons at random."""
    grid = answer["grid"]
    rows = grid["unfiltered"]
    left = [row for row in rows if row["num_kept"]] or rows
    most = max(left, key=lambda row: row["num_removed"])
    caption = (
        f"Without the norm filter {degrees(most['low_deg'])} removes "
        f"{integer(most['num_removed'])} of {integer(grid['num_units'])} neurons: adding outgoing "
        f"weights leaves {percent(most['added']['accuracy'])}, refitting them "
        f"{percent(most['refitted']['accuracy'])}; as many neurons at random, refitted, "
        f"{percent(most['random_refitted'])}, dropped {percent(most['random_dropped'])}."
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
    plot = Plot(figures.unfiltered(grid), "", f"Test accuracy against neurons kept. {caption}")
    title = "Compensation instead of adding"
    return Panel("compensation", title, caption, (plot,), (table,))


def smallest(answer: Record) -> Panel:
    """The smallest networks that lose nothing on validation."""
    found = answer["beyond"]["smallest"]
    rows = found["rows"]
    unpruned, whole = rows[0], rows[-1]
    start = "chosen with films apart" if found["apart"] else "that validation chose"
    caption = (
        f"From the network {start}, the smallest that answer at least as many validation images "
        f"right, without training again: the whole network to {percent(whole['fraction'])} of its "
        f"parameters, with {percent(whole['test']['accuracy'])} on test, "
        f"{percent(unpruned['test']['accuracy'])} before."
    )
    table = Table(
        "Smallest without loss",
        ("", "neurons kept", "parameters", "validation", "test"),
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
        Plot(figures.smallest(rows), "Size", f"Bars of the parameters left. {caption}"),
        Plot(figures.smallest_accuracy(rows), "Accuracy", f"Accuracy with intervals. {caption}"),
    )
    return Panel("smallest", "Smaller without loss", caption, plots, (table,), wide=False)
