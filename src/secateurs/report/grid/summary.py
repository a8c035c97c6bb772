"""The texts of a grid's page: headline, tiles, limitations, captions."""

from __future__ import annotations

from secateurs.report.common.baselines import FEW_IMAGES
from secateurs.report.common.formatting import degrees, integer, interval, percent, plural
from secateurs.report.common.sweep_rows import Record


def lossless(grid: Record) -> Record | None:
    """The cell that removes most units with at least as many correct images as before."""
    right = grid["unpruned"]["num_correct"]
    cells = [c for c in grid["cells"] if c["num_correct"] is not None and c["num_correct"] >= right]
    return max(cells, key=lambda cell: cell["num_removed"], default=None)


def headline(grid: Record) -> str:
    """The result in one sentence."""
    layer, best = grid["layer"], lossless(grid)
    side = grid["evaluated"]["side"]
    if best is None or best["num_removed"] == 0:
        return f"Every cell that removes units of {layer['layer']} loses {side} accuracy"
    return (
        f"{integer(best['num_removed'])} of {integer(layer['num_units'])} units of "
        f"{layer['layer']} can be removed without loss of {side} accuracy"
    )


def standfirst(grid: Record) -> str:
    """What was tried on which images."""
    settings, side = grid["settings"], grid["evaluated"]
    numbers = (len(settings["angles_deg"]), len(settings["norm_stds"]))
    what = (
        "Rule: the published program, which adds incoming weights and zeroes rows"
        if settings["rule"] == "published"
        else "Rule: pairwise; compensation of the next layer: "
        + settings["compensation"].replace("_", " ")
    )
    return (
        f"{plural(numbers[0], 'angle')} by {plural(numbers[1], 'norm threshold')}, "
        f"{plural(numbers[0] * numbers[1], 'cell')}, each evaluated on the same "
        f"{plural(side['num_images'], side['side'] + ' image')}. {what}. As in the "
        "paper, activations are scaled to -0.5..0.5 by the minimum and maximum of the layer."
    )


def tiles(grid: Record) -> list[tuple[str, str, str]]:
    """The numbers of the first screen as (title, value, note)."""
    before, best, layer = grid["unpruned"], lossless(grid), grid["layer"]
    found = [
        (
            "Before pruning",
            percent(before["accuracy"]),
            f"{before['num_correct']} of {grid['evaluated']['num_images']} correct; 95% interval "
            f"{interval(before['accuracy_low'], before['accuracy_high'])}{_baseline(grid)}",
        )
    ]
    if best is not None:
        note = f"At {_place(best)}, with {percent(best['accuracy'])}"
        if grid["settings"]["rule"] == "pairwise" and layer["num_dead"]:
            note += (
                f"; {integer(layer['num_dead'])} of them are always zero and removed in every cell"
            )
        found.append(("Most units removed without loss", integer(best["num_removed"]), note))
    known = [cell for cell in grid["cells"] if cell["accuracy"] is not None]
    if known:
        worst = min(known, key=lambda cell: cell["accuracy"])
        note = f"{integer(worst['num_removed'])} units removed at {_place(worst)}"
        found.append(("Lowest accuracy", percent(worst["accuracy"]), note))
    return found


def _baseline(grid: Record) -> str:
    """Balanced accuracy and that of the largest class, where a grid has them."""
    balanced = grid["unpruned"].get("balanced_accuracy")
    majority = grid["evaluated"].get("majority_accuracy")
    if balanced is None or majority is None:
        return ""
    return f"; balanced {percent(balanced)}; majority-class baseline {percent(majority)}"


def _place(cell: Record) -> str:
    return f"{degrees(cell['low_deg'])} and norm threshold {cell['norm_std']:g}"


def cautions(grid: Record) -> list[str]:
    """The limitations of the results."""
    number = grid["evaluated"]["num_images"]
    half = (grid["unpruned"]["accuracy_high"] - grid["unpruned"]["accuracy_low"]) / 2
    found: list[str] = []
    if grid["settings"]["on"] == "test":
        found.append(
            "The cells were evaluated on test images. The test accuracy of a cell chosen by this "
            "page is too optimistic: choose on validation images."
        )
    text = (
        f"One image is {100 / number:.1f} points, and the 95% interval of an accuracy is about "
        f"±{100 * half:.0f} points"
    )
    if len(grid["cells"]) > 1:
        text += (
            ", so small differences between cells are not significant. The accuracy of the best of "
            f"{len(grid['cells'])} cells is too optimistic"
        )
    found.append(f"{text}.")
    if number < FEW_IMAGES:
        found.append(f"Only {plural(number, 'image')}: the accuracies have wide intervals.")
    empty = sum(1 for cell in grid["cells"] if cell["accuracy"] is None)
    if empty:
        found.append(f"{plural(empty, 'cell')} would remove every unit and could not be evaluated.")
    if grid["settings"]["rule"] == "published":
        found.append(
            "The published rule sets rows of weights to zero and keeps their biases, so the number "
            "of parameters does not change."
        )
    return found


def map_caption(grid: Record) -> str:
    """What the two heat maps show."""
    known = [cell for cell in grid["cells"] if cell["accuracy"] is not None]
    if not known:
        return "No cell could be evaluated."
    low, high = (pick(known, key=lambda c: c["accuracy"]) for pick in (min, max))
    most = max(grid["cells"], key=lambda cell: cell["num_removed"])
    return (
        f"The lowest accuracy is {percent(low['accuracy'])} (at {_place(low)}), the highest "
        f"{percent(high['accuracy'])} (at {_place(high)}), before pruning "
        f"{percent(grid['unpruned']['accuracy'])}. The most units, "
        f"{integer(most['num_removed'])}, are removed at {_place(most)}."
    )


def trade_caption(grid: Record) -> str:
    """How to read the figure, and the best cell without loss."""
    best = lossless(grid)
    if best is None:
        return "One marker per cell. No cell has as many correct images as before pruning."
    return (
        "One marker per cell; the best ones are at the top right. At most "
        f"{integer(best['num_removed'])} units can be removed with as many correct images as "
        "before pruning."
    )


def prune_words(grid: Record) -> list[str] | None:
    """The options of `secateurs prune` for the lossless cell; None if there is no such command."""
    best, settings = lossless(grid), grid["settings"]
    if best is None or settings["rule"] != "pairwise":
        return None
    angle = best["low_deg"]
    return [
        *("--layers", str(settings["layer"]), "--low-deg", f"{angle:g}"),
        *("--high-deg", f"{180 - angle:g}", "--norm-std", f"{best['norm_std']:g}"),
        *("--compensation", str(settings["compensation"])),
        *("--max-loss", "-1"),
    ]


def means_caption(grid: Record) -> str:
    """How the means change with the angle, as the paper reports them."""
    order = sorted(grid["by_angle"], key=lambda row: row["low_deg"])
    first, last = order[0], order[-1]
    text = "Means over the norm thresholds, as the paper's figure 3 and table 3 give them"
    if first is last or None in (first["accuracy_mean"], last["accuracy_mean"]):
        return f"{text}. A circle is one cell."
    return (
        f"{text}: from {degrees(first['low_deg'])} to {degrees(last['low_deg'])} the mean accuracy "
        f"changes from {percent(first['accuracy_mean'])} to {percent(last['accuracy_mean'])}, the "
        f"mean number of removed units from {integer(first['num_removed_mean'])} to "
        f"{integer(last['num_removed_mean'])}. A circle is one cell."
    )
