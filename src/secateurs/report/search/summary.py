"""The summary of a search: headline, tiles and limitations."""

from __future__ import annotations

import math

from secateurs.report.common.baselines import FEW_IMAGES
from secateurs.report.common.formatting import integer, interval, listed, percent, plural, seconds
from secateurs.report.common.sweep_rows import Record

NAMES = {
    "lr": "learning rate",
    "batch_size": "batch size",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "depth": "frozen layers",
    "epochs": "epochs",
    "interaction": "interaction",
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
    """The result in one sentence."""
    best = search["best"]
    accuracy = percent(best["val_accuracy_mean"])
    return (
        f"{accuracy} on validation with learning rate {typed(best['parameters']['lr'])} "
        f"for {plural(best['epochs'], 'epoch')}"
    )


def standfirst(search: Record) -> str:
    """What was trained, and how much that took."""
    settings, cost = search["settings"], search["cost"]
    runs = "" if settings["runs"] == 1 else f" Each is trained {settings['runs']} times."
    done = f"{plural(cost['num_trainings'], 'training')}, {integer(cost['num_epochs'])} epochs"
    if settings["method"] == "grid":
        lrs, epochs = settings["lr"], settings["epochs"]
        return (
            f"{plural(cost['num_cells'], 'cell')}, {plural(len(lrs), 'learning rate')} by "
            f"{plural(len(epochs), 'number')} of epochs, from "
            f"{plural(cost['num_trainings'], 'training')}. At a constant learning rate a shorter "
            "training is the start of a longer one, so the search took "
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
            f"{listed(steps)}. {done}; training all of them for the maximum would take "
            f"{integer(cost['epochs_apart'])} epochs.{runs}"
        )
    random = min(search["startup"], settings["trials"])
    rest = settings["trials"] - random
    how = f"The first {random} are random" if rest else "All are random"
    if rest:
        how += f", the other {rest} are proposed by Optuna’s TPE sampler"
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
        note += f"; majority-class baseline {base}"
    rest = {name: value for name, value in best["parameters"].items() if name != "lr"}
    if rest:
        note += f"; {described(rest)}"
    found = [("Best validation accuracy", percent(best["val_accuracy_mean"]), note)]
    if alike["num_compared"] > 1:
        found.append(
            (
                "Not significantly different from the best",
                f"{len(alike['numbers'])} of {alike['num_compared']}",
                f"Trainings of {plural(alike['epochs'], 'epoch')}, the best included, "
                + ("by paired runs" if alike["by"] == "paired runs" else "by its interval"),
            )
        )
    note = f"{integer(cost['num_epochs'])} epochs, {seconds(search['timing']['total'])} in all"
    found.append(("Trainings", integer(cost["num_trainings"]), note))
    return found


def cautions(search: Record) -> list[str]:
    """The limitations of the results."""
    settings, best = search["settings"], search["best"]
    number = search["evaluated"]["num_images"]
    rows = search["cells"] or search["trials"]
    found = [
        f"The best of {len(rows)} was chosen by its accuracy on these {integer(number)} images, so "
        f"that accuracy is too optimistic; one image is {100 / number:.1f} points. The test images "
        "were not used: train the best configuration and evaluate it once."
    ]
    if number < FEW_IMAGES:
        found.append(f"Only {plural(number, 'image')}: the accuracies have wide intervals.")
    if settings["runs"] == 1:
        found.append(
            "With one run per configuration the variation over seeds is unknown; --runs 3 measures "
            "it."
        )
    alike = search["alike"]
    if 1 < alike["num_compared"] == len(alike["numbers"]):
        found.append(
            f"None of the {alike['num_compared']} trainings of {plural(alike['epochs'], 'epoch')} "
            "differs significantly from the best."
        )
    found += _edges(search)
    lost = sum(row["num_diverged"] for row in search["trials"])
    if lost:
        found.append(
            f"{plural(lost, 'training')} of {search['cost']['num_trainings']} diverged: the loss "
            "was not finite. Diverged trainings are not in the means and rank last."
        )
    if settings["method"] == "halving" and len(search["rungs"]) > 1:
        found.append(
            "Configurations that learn slowly, such as those with small learning rates, are at a "
            "disadvantage: one that was dropped after few epochs may be better after many."
        )
    if best["num_diverged"]:
        found.append("A run of the best configuration diverged.")
    return found


def _edges(search: Record) -> list[str]:
    """Parameters whose best value is at an end of the range."""
    settings, best = search["settings"], search["best"]
    lr = best["parameters"]["lr"]
    found: list[str] = []
    if settings["method"] == "grid":
        place = {max(settings["lr"]): "largest", min(settings["lr"]): "smallest"}.get(lr)
        if place and len(settings["lr"]) > 1:
            further = "larger" if place == "largest" else "smaller"
            found.append(
                f"The best learning rate is the {place} one tried; a {further} one may be better."
            )
        if best["epochs"] == max(settings["epochs"]):
            found.append(
                "The best accuracy is at the largest number of epochs; more may be better."
            )
        return found
    low, high = (math.log(bound) for bound in settings["lr_range"])
    at = (math.log(lr) - low) / (high - low)
    if at < EDGE or at > 1 - EDGE:
        found.append(
            f"The best learning rate is near the {'lower' if at < EDGE else 'upper'} end of the "
            f"range {typed(settings['lr_range'][0])} to {typed(settings['lr_range'][1])}; a wider "
            "range may have a better value."
        )
    return found
