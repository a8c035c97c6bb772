"""What a grid's page says: its headline, its cautions, a sentence under each figure."""

from __future__ import annotations

from secateurs.report.common.evaluation import FEW_IMAGES
from secateurs.report.common.formatting import degrees, integer, interval, percent, plural
from secateurs.report.common.sweep_rows import Record


def lossless(grid: Record) -> Record | None:
    """The cell that removes most units with at least as many right answers as before."""
    right = grid["unpruned"]["num_correct"]
    cells = [c for c in grid["cells"] if c["num_correct"] is not None and c["num_correct"] >= right]
    return max(cells, key=lambda cell: cell["num_removed"], default=None)


def headline(grid: Record) -> str:
    """The answer in one sentence."""
    layer, best = grid["layer"], lossless(grid)
    side = grid["evaluated"]["side"]
    if best is None or best["num_removed"] == 0:
        return f"Every cell that removes units of {layer['layer']} loses {side} accuracy."
    return (
        f"{integer(best['num_removed'])} of {integer(layer['num_units'])} units of "
        f"{layer['layer']} can go without losing {side} accuracy."
    )


def standfirst(grid: Record) -> str:
    """What was done, in two sentences."""
    settings, side = grid["settings"], grid["evaluated"]
    numbers = (len(settings["angles_deg"]), len(settings["norm_stds"]))
    what = (
        "The published program's rule, which adds incoming weights and zeroes rows"
        if settings["rule"] == "published"
        else "Similar and opposite units removed one by one; next layer: "
        + settings["compensation"].replace("_", " ")
    )
    return (
        f"{plural(numbers[0], 'angle')} by {plural(numbers[1], 'norm threshold')}, "
        f"{plural(numbers[0] * numbers[1], 'cell')}, each evaluated on the same "
        f"{plural(side['num_images'], side['side'] + ' image')}. {what}. Angles as in the paper: "
        "the layer's activations are mapped to -0.5..0.5 by their minimum and maximum first."
    )


def tiles(grid: Record) -> list[tuple[str, str, str]]:
    """The numbers of the first screen as (title, value, note)."""
    before, best, layer = grid["unpruned"], lossless(grid), grid["layer"]
    found = [
        (
            "Before pruning",
            percent(before["accuracy"]),
            f"{before['num_correct']} of {grid['evaluated']['num_images']} right; 95% interval "
            f"{interval(before['accuracy_low'], before['accuracy_high'])}{_baseline(grid)}",
        )
    ]
    if best is not None:
        note = f"At {_place(best)}, with {percent(best['accuracy'])}"
        if grid["settings"]["rule"] == "pairwise" and layer["num_dead"]:
            note += f"; {integer(layer['num_dead'])} of them never fire and go in every cell"
        found.append(("Most units at no loss", integer(best["num_removed"]), note))
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
    return (
        f"; balanced {percent(balanced)}; always answering the largest class gives "
        f"{percent(majority)}"
    )


def _place(cell: Record) -> str:
    return f"{degrees(cell['low_deg'])}, threshold {cell['norm_std']:g}"


def cautions(grid: Record) -> list[str]:
    """What a reader must know before believing the numbers."""
    number = grid["evaluated"]["num_images"]
    half = (grid["unpruned"]["accuracy_high"] - grid["unpruned"]["accuracy_low"]) / 2
    found: list[str] = []
    if grid["settings"]["on"] == "test":
        found.append(
            "These are test images. A cell chosen by what it scores here has no honest test "
            "accuracy any more: choose on validation."
        )
    text = (
        f"One image is {100 / number:.1f} points and the interval of an accuracy about "
        f"{100 * half:.0f} points either way"
    )
    if len(grid["cells"]) > 1:
        text += (
            ", so small differences between cells are noise, and the best of "
            f"{len(grid['cells'])} cells looks better than it is"
        )
    found.append(f"{text}.")
    if number < FEW_IMAGES:
        found.append(f"Only {plural(number, 'image')}: an accuracy on so few says little.")
    empty = sum(1 for cell in grid["cells"] if cell["accuracy"] is None)
    if empty:
        found.append(f"{plural(empty, 'cell')} would remove every unit and could not be evaluated.")
    if grid["settings"]["rule"] == "published":
        found.append(
            "The published rule keeps the layer's size: rows of its weights become zero, their "
            "biases stay, and the number of parameters does not change."
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
        f"Accuracy lies between {percent(low['accuracy'])} (at {_place(low)}) and "
        f"{percent(high['accuracy'])} (at {_place(high)}); {percent(grid['unpruned']['accuracy'])} "
        f"before pruning. Most units go at {_place(most)}: {integer(most['num_removed'])}."
    )


def trade_caption(grid: Record) -> str:
    """What the accuracy costs."""
    best = lossless(grid)
    if best is None:
        return "One mark a cell: no cell answers as many images right as before pruning."
    return (
        f"One mark a cell: the farther to the right at the same height, the better. "
        f"{integer(best['num_removed'])} units is the most that goes with as many right answers "
        "as before."
    )


def command(grid: Record) -> str | None:
    """The words that make the lossless cell; None under the published rule or without one."""
    best, settings = lossless(grid), grid["settings"]
    if best is None or settings["rule"] != "pairwise":
        return None
    angle = best["low_deg"]
    return (
        f"secateurs prune MODEL DATA --layers {settings['layer']} --low-deg {angle:g} "
        f"--high-deg {180 - angle:g} --norm-std {best['norm_std']:g} "
        f"--compensation {settings['compensation']} --max-loss -1 --out DIR"
    )


def means_caption(grid: Record) -> str:
    """How the means move with the angle, as the paper reports them."""
    order = sorted(grid["by_angle"], key=lambda row: row["low_deg"])
    first, last = order[0], order[-1]
    text = "Means over the norm thresholds, as the paper's figure 3 and table 3 give them"
    if first is last or None in (first["accuracy_mean"], last["accuracy_mean"]):
        return f"{text}; a ring is one cell."
    return (
        f"{text}: from {degrees(first['low_deg'])} to {degrees(last['low_deg'])} the mean accuracy "
        f"goes from {percent(first['accuracy_mean'])} to {percent(last['accuracy_mean'])}, the "
        f"mean number of removed units from {integer(first['num_removed_mean'])} to "
        f"{integer(last['num_removed_mean'])}. A ring is one cell."
    )
