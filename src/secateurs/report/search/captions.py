"""Captions of the figures of a search."""

from __future__ import annotations

from secateurs.report.common.formatting import percent, plural
from secateurs.report.common.sweep_rows import Record
from secateurs.report.search.summary import NAMES, typed


def cells_caption(search: Record) -> str:
    """What the two heat maps show."""
    known = [cell for cell in search["cells"] if cell["val_accuracy_mean"] is not None]
    lost = len(search["cells"]) - len(known)
    best = search["best"]
    text = (
        "Left: the best validation accuracy up to that epoch, which training keeps. Right: the "
        "accuracy at that epoch. The frame marks the best cell, learning rate "
        f"{typed(best['parameters']['lr'])} and {plural(best['epochs'], 'epoch')}. The values on "
        f"the left range from {percent(min(c['val_accuracy_mean'] for c in known))} to "
        f"{percent(max(c['val_accuracy_mean'] for c in known))}."
    )
    if lost:
        text += f" {plural(lost, 'cell')} without a value: the training diverged before."
    return text


def curves_caption(search: Record) -> str:
    """What the curves are."""
    over = "" if search["settings"]["runs"] == 1 else ", mean over runs"
    return (
        f"Validation accuracy and loss by epoch{over}, one line per learning rate. Markers are "
        "the epochs of the cells. A line that ends early diverged."
    )


def rungs_caption(search: Record) -> str:
    """How to read the lines from rung to rung."""
    first, last = search["rungs"][0], search["rungs"][-1]
    return (
        f"Each line is a configuration, from {plural(first['epochs'], 'epoch')} to "
        f"{plural(last['epochs'], 'epoch')}. A line ends where its configuration was "
        "dropped. Each rung is a new training, so a line may fall."
    )


def history_caption(search: Record) -> str:
    """When the best was found."""
    best = search["best"]
    return (
        "One marker per trial, in order; the line is the best accuracy so far. The best trial is "
        f"{best['number'] + 1} of {len(search['trials'])}."
    )


def parallel_caption(search: Record) -> str:
    """How to read the parallel coordinates."""
    what = "cell" if search["settings"]["method"] == "grid" else "configuration"
    text = (
        f"Each line is a {what} and crosses every axis at its value; the last axis is its "
        "validation accuracy. The best is orange with diamonds, the upper quartile blue."
    )
    if search["settings"]["method"] == "halving":
        text += " A configuration is shown with its longest training."
    return text


def importance_caption(search: Record) -> str:
    """The most important parameter, and how importance was computed."""
    found = search["importance"]
    if found["reason"]:
        return f"Not computed: {found['reason']}."
    lead = found["parts"][0] if search["cells"] is None else max(
        found["parts"], key=lambda part: part["share"]
    )  # fmt: skip
    largest = percent(lead["share"], digits=0)
    text = f"{NAMES[lead['name']].capitalize()} explains the largest share, {largest}. "
    if search["cells"] is not None:
        text += (
            f"Shares of the variance between {plural(found['num_values'], 'cell')}, by two-way "
            "analysis of variance; the interaction includes the residual."
        )
        if found["num_left_out"]:
            text += (
                f" {plural(found['num_left_out'], 'learning rate')} with an empty cell left out."
            )
        return text
    trials = f"{plural(found['num_values'], 'training')} of {plural(found['epochs'], 'epoch')}"
    if found["method"] == "fANOVA":
        text += (
            f"Shares of the variance of accuracy over {trials}, by functional analysis of variance "
            "on a random forest (Optuna). With few trainings this is only an indication."
        )
    else:
        text += (
            f"Squared rank correlation of each parameter alone with the accuracy of {trials}; "
            "install Optuna for a functional analysis of variance."
        )
    if found["num_left_out"]:
        text += f" {plural(found['num_left_out'], 'training')} that diverged left out."
    return text
