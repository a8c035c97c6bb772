"""Captions of a study's figures, computed from the numbers that they show."""

from __future__ import annotations

from collections.abc import Sequence

from secateurs.report.common.formatting import (
    count,
    degrees,
    integer,
    interval,
    listed,
    percent,
    plural,
    runs_of,
    share,
    size,
    some,
)
from secateurs.report.common.sweep_rows import (
    Record,
    depth_rows,
    is_scratch,
    random_frozen,
    scratch_row,
    trial_name,
)
from secateurs.report.study.angle_captions import histogram_words
from secateurs.report.study.evaluations import Evaluations, chosen_row, chosen_trial


def data_caption(results: Record) -> str:
    """Images per side and in the smallest and largest class."""
    counts = results["split"]["counts"]
    totals = results["data"]["per_class"]
    named = list(zip(totals, results["data"]["classes"], strict=True))
    text = (
        f"{integer(counts['train'])} training images, {integer(counts['val'])} validation images "
        f"and {integer(counts['test'])} test images"
    )
    if not named:
        return text + "."
    few, many = min(named)[0], max(named)[0]
    if few == many:
        return f"{text}. Every class has {plural(few, 'image')}."
    smallest = listed([name for total, name in named if total == few])
    return (
        f"{text}. The smallest class, {smallest}, has {plural(few, 'image')}, the largest "
        f"{integer(many)}."
    )


def sweep_caption(results: Record) -> str:
    """The best depth, the chosen one, and the baseline from random weights."""
    rows = [row for row in depth_rows(results) if row["val_accuracy_mean"] is not None]
    scratch, chosen = scratch_row(results), chosen_row(results)
    if not rows:
        return "No depth has a result."
    best = max(rows, key=lambda row: row["val_accuracy_mean"])
    mean = f"{percent(best['val_accuracy_mean'])} over {plural(best['num_runs'], 'run')}"
    if len(rows) > 1:
        text = f"{_frozen(best)} has the highest mean validation accuracy, {mean}"
    else:
        text = f"{_frozen(best)} has a mean validation accuracy of {mean}"
    if chosen and chosen is not best and chosen["val_accuracy_mean"] is not None:
        name = "scratch" if is_scratch(chosen) else f"depth {chosen['depth']}"
        text += f". {name.capitalize()} was chosen, with {percent(chosen['val_accuracy_mean'])}"
    if scratch and scratch["val_accuracy_mean"] is not None:
        text += f". Training from scratch reaches {percent(scratch['val_accuracy_mean'])}"
    if not interval(best["val_accuracy_low"], best["val_accuracy_high"]):
        text += ". A single run has no interval"
    return f"{text}.{_random_words(results)}"


def _random_words(results: Record) -> str:
    """Which depths freeze layers with random weights, and how the figure marks them."""
    found = {row["depth"]: random_frozen(results, row) for row in depth_rows(results)}
    found = {depth: names for depth, names in found.items() if names}
    if not found:
        return ""
    depths = f"Depth {runs_of(list(found))} {'freezes' if len(found) == 1 else 'freeze'}"
    names = list(dict.fromkeys(name for group in found.values() for name in group))
    return (
        f" {depths} {some(names)} with random weights, because no pretrained weights were loaded "
        "for them (marked by a cross). With pretrained weights the result can differ."
    )


def _frozen(row: Record) -> str:
    return f"Freezing {plural(row['depth'], 'layer')}" if row["depth"] else "Freezing nothing"


def curves_caption(results: Record) -> str:
    """The best epoch of the chosen trial, and its last."""
    trial = chosen_trial(results)
    assert trial is not None
    assert trial["curve"]
    last = trial["curve"][-1]
    text = f"{trial_name(trial).capitalize()}"
    if trial["best_epoch"] is not None:
        best = f"epoch {trial['best_epoch'] + 1} of {trial['epochs_run']}"
        text += (
            f" was best in {best}, with a validation accuracy of {percent(trial['val_accuracy'])}"
        )
    gap = (
        f"{percent(last['train_accuracy'])} on training images and {percent(last['val_accuracy'])}"
    )
    return f"{text}. The accuracies of the last epoch: {gap} on validation images."


def confusion_caption(found: Evaluations, classes: list[str]) -> str:
    """The most frequent confusion before and after pruning."""
    first = _worst(found.before, classes)
    then = first if found.after is None else _worst(found.after, classes)
    start = f"On the {integer(found.before['num_images'])} {found.side} images"
    same = "" if found.after is None else " before and after pruning"
    if first == then:
        if not first:
            return f"{start} no class is confused with another{same}."
        alike = f"the same{same}: " if same else ""
        return f"{start} the most frequent confusion is {alike}{first}."
    if not first or not then:
        known, when, other = (then, "after", "before") if then else (first, "before", "after")
        return (
            f"{start} the most frequent confusion is {known} {when} pruning; {other} it no class "
            "is confused with another."
        )
    return f"{start} the most frequent confusion is {first} before pruning and {then} after."


def _worst(evaluation: Record, classes: list[str]) -> str:
    cells = [
        (value, true, answer)
        for true, row in zip(classes, evaluation["confusion"], strict=True)
        for answer, value in zip(classes, row, strict=True)
        if true != answer
    ]
    value, true, answer = max(cells, key=lambda cell: cell[0], default=(0, "", ""))
    return f"{true} predicted as {answer} ({plural(value, 'image')})" if value else ""


def _holders(score: Record, known: Sequence[Record]) -> str:
    """A class with those of the same recall, and their verb."""
    others = sum(one["recall"] == score["recall"] for one in known) - 1
    if not others:
        return f"{score['class']} has"
    return f"{score['class']} and {plural(others, 'other class', 'other classes')} have"


def scores_caption(found: Evaluations) -> str:
    """The best and the worst recall, and where pruning moved recall most."""
    known = [score for score in found.before["per_class"] if score["recall"] is not None]
    if not known:
        return "No class has images here, so there is no recall."
    best = max(known, key=lambda score: score["recall"])
    worst = min(known, key=lambda score: score["recall"])
    text = (
        f"{_holders(best, known)} the highest recall ({percent(best['recall'], digits=0)}), "
        f"{_holders(worst, known)} the lowest ({percent(worst['recall'], digits=0)})"
    )
    if best["recall"] == worst["recall"]:
        text = f"Every class has a recall of {percent(best['recall'], digits=0)}"
    if found.after is None:
        return text + "."
    pairs = zip(found.before["per_class"], found.after["per_class"], strict=True)
    moves = [
        (abs(then["recall"] - first["recall"]), first, then)
        for first, then in pairs
        if first["recall"] is not None and then["recall"] is not None
    ]
    largest, first, then = max(moves, key=lambda move: move[0])
    if not largest:
        return f"{text}. Pruning changed the recall of no class."
    moved = f"{percent(first['recall'], digits=0)} to {percent(then['recall'], digits=0)}"
    return f"{text}. Pruning changed the recall of {first['class']} most, from {moved}."


def angles_caption(results: Record, layer: Record) -> str:
    """The median angle, the kept units and the threshold."""
    median = (layer["angle_deg_quantiles"] or {}).get("p50")
    kept = (
        f"{integer(layer['num_kept'])} of {integer(layer['num_units'])} units of "
        f"{layer['layer']} were kept"
    )
    low = results["pruned"]["low_deg"]
    text = kept
    if median is not None:
        text = f"The median angle between two units is {degrees(round(median, 1))}. {kept}"
    if low is not None:
        text += f". Two units with an angle below {degrees(low)} count as similar"
    if layer["num_dead"]:
        text += f". {plural(layer['num_dead'], 'unit')} had zero activation on every image"
    return f"{text}. {histogram_words(layer, results['pruned']['rule'])}"


def cost_caption(results: Record) -> str:
    """Parameters, operations and file size relative to before."""
    before, after = results["cost"]["before"], results["cost"]["after"]
    names = (
        ("num_parameters", "parameters", count),
        ("macs", "multiply-accumulates", count),
        ("file_bytes", "file", size),
    )
    parts = [
        f"{share(after[key] / before[key])} of the {name} ({text(after[key])})"
        for key, name, text in names
        if before[key] and after[key] is not None
    ]
    return f"Pruning keeps {listed(parts)}." if parts else "The costs are not known."
