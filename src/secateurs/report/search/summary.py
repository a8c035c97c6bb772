"""What a search's page says first: its headline, its numbers, its cautions."""

from __future__ import annotations

import math

from secateurs.report.common.evaluation import FEW_IMAGES
from secateurs.report.common.formatting import integer, interval, listed, percent, plural, seconds
from secateurs.report.common.sweep_rows import Record

NAMES = {
    "lr": "learning rate",
    "batch_size": "batch size",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "depth": "frozen layers",
    "epochs": "epochs",
    "interaction": "both together",
}
EDGE = 0.1  # share of a range within which its best value may lie beyond it


def typed(value: float | None) -> str:
    """A parameter's value as one would type it.

    >>> typed(1e-05), typed(0.001), typed(32), typed(None)
    ('1e-5', '0.001', '32', 'full')
    """
    return "full" if value is None else f"{value:g}".replace("e-0", "e-")


def described(parameters: Record) -> str:
    """A configuration in words."""
    return listed([f"{NAMES[name]} {typed(value)}" for name, value in parameters.items()])


def headline(search: Record) -> str:
    """The answer in one sentence."""
    best = search["best"]
    accuracy = percent(best["val_accuracy_mean"])
    return (
        f"{accuracy} on validation with learning rate {typed(best['parameters']['lr'])} "
        f"for {plural(best['epochs'], 'epoch')}."
    )


def standfirst(search: Record) -> str:
    """What was done, in a few sentences."""
    settings, cost = search["settings"], search["cost"]
    runs = "" if settings["runs"] == 1 else f" Each is trained {settings['runs']} times."
    done = f"{plural(cost['num_trainings'], 'training')}, {integer(cost['num_epochs'])} epochs"
    if settings["method"] == "grid":
        lrs, epochs = settings["lr"], settings["epochs"]
        return (
            f"{plural(cost['num_cells'], 'cell')}, {plural(len(lrs), 'learning rate')} by "
            f"{plural(len(epochs), 'number')} of epochs, from "
            f"{plural(cost['num_trainings'], 'training')}: at a constant learning rate the "
            "shorter trainings are the beginning of the longest one. That took "
            f"{integer(cost['num_epochs'])} epochs instead of {integer(cost['epochs_apart'])}."
            + ("" if settings["runs"] == 1 else f" Cells are means over {settings['runs']} runs.")
        )
    if settings["method"] == "halving":
        steps = [
            f"{len(rung['numbers'])} for {plural(rung['epochs'], 'epoch')}"
            for rung in search["rungs"]
        ]
        return (
            f"Successive halving over {plural(settings['trials'], 'configuration')}: "
            f"{listed(steps)}. {done}; training all of them to the end would take "
            f"{integer(cost['epochs_apart'])} epochs.{runs}"
        )
    random = min(search["startup"], settings["trials"])
    rest = settings["trials"] - random
    how = f"The first {random} are random" if rest else "All are random"
    if rest:
        how += f", the other {rest} where Optuna’s sampler expects more"
    return (
        f"{plural(settings['trials'], 'configuration')}, "
        f"{plural(settings['epochs'], 'epoch')} each. {how}. {done}.{runs}"
    )


def tiles(search: Record) -> list[tuple[str, str, str]]:
    """The numbers of the first screen as (title, value, note)."""
    best, alike, cost = search["best"], search["alike"], search["cost"]
    bounds = interval(best["val_accuracy_low"], best["val_accuracy_high"])
    over = (
        f"{search['evaluated']['num_images']} images"
        if best["num_runs"] == 1
        else f"{best['num_runs']} runs"
    )
    note = f"95% interval {bounds} over {over}"
    if search["evaluated"].get("majority_accuracy") is not None:
        base = percent(search["evaluated"]["majority_accuracy"])
        note += f"; always answering the largest class gives {base}"
    rest = {name: value for name, value in best["parameters"].items() if name != "lr"}
    if rest:
        note += f"; {described(rest)}"
    found = [("Best validation accuracy", percent(best["val_accuracy_mean"]), note)]
    if alike["num_compared"] > 1:
        found.append(
            (
                "Not to be told from the best",
                f"{len(alike['numbers'])} of {alike['num_compared']}",
                f"Trainings of {plural(alike['epochs'], 'epoch')}, itself included, "
                + ("by paired runs" if alike["by"] == "paired runs" else "in its interval"),
            )
        )
    note = f"{integer(cost['num_epochs'])} epochs, {seconds(search['timing']['total'])} in all"
    found.append(("Trainings", integer(cost["num_trainings"]), note))
    return found


def cautions(search: Record) -> list[str]:
    """What a reader must know before believing the numbers."""
    settings, best = search["settings"], search["best"]
    number = search["evaluated"]["num_images"]
    rows = search["cells"] or search["trials"]
    found = [
        f"The best of {len(rows)} was chosen by its accuracy on these {integer(number)} images "
        f"and looks better than it is; one image is {100 / number:.1f} points. The test images "
        "had no part: train it and evaluate it once to know what it does."
    ]
    if number < FEW_IMAGES:
        found.append(f"Only {plural(number, 'image')}: an accuracy on so few says little.")
    if settings["runs"] == 1:
        found.append(
            "One run a configuration says nothing of how much another seed would change it: with "
            "--runs 3 the page shows that too."
        )
    alike = search["alike"]
    if 1 < alike["num_compared"] == len(alike["numbers"]):
        found.append(
            f"None of the {alike['num_compared']} trainings of {plural(alike['epochs'], 'epoch')} "
            "differs from the best beyond chance."
        )
    found += _edges(search)
    lost = sum(row["num_diverged"] for row in search["trials"])
    if lost:
        found.append(
            f"{plural(lost, 'training')} of {search['cost']['num_trainings']} diverged: the loss "
            "was not finite any more. They have no part in the means and rank last."
        )
    if settings["method"] == "halving" and len(search["rungs"]) > 1:
        found.append(
            "What was dropped on a short rung may have been better in the end: slow starters, "
            "small learning rates above all, are at a disadvantage."
        )
    if best["num_diverged"]:
        found.append("Even of the best configuration a run diverged.")
    return found


def _edges(search: Record) -> list[str]:
    """Parameters whose best value is at the end of what was tried."""
    settings, best = search["settings"], search["best"]
    lr = best["parameters"]["lr"]
    found: list[str] = []
    if settings["method"] == "grid":
        place = {max(settings["lr"]): "largest", min(settings["lr"]): "smallest"}.get(lr)
        if place and len(settings["lr"]) > 1:
            further = "larger" if place == "largest" else "smaller"
            found.append(
                f"The best learning rate is the {place} that was tried: a {further} one may be "
                "better."
            )
        if best["epochs"] == max(settings["epochs"]):
            found.append("The best accuracy came late: more epochs may be better.")
        return found
    low, high = (math.log(bound) for bound in settings["lr_range"])
    at = (math.log(lr) - low) / (high - low)
    if at < EDGE or at > 1 - EDGE:
        found.append(
            f"The best learning rate is near the {'lower' if at < EDGE else 'upper'} end of the "
            f"range {typed(settings['lr_range'][0])} to {typed(settings['lr_range'][1])}: a wider "
            "one may hold a better one."
        )
    return found
