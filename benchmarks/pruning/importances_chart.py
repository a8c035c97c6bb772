"""What `importances.py` measured as a picture: points lost against MACs and against measured time.

python benchmarks/pruning/importances_chart.py FIGURES.json docs/pictures/importances.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.stats import t as student

from secateurs.files import atomic_path

# Told apart by colour, dash and mark.
LOOKS = {
    "ours": ("ours", {"color": "#0072B2", "marker": "o", "linewidth": 2.2}),
    "ours_judged": ("ours, judged", {"color": "#56B4E9", "marker": "D", "linewidth": 1.4}),
    "l2": ("L2", {"color": "#CC79A7", "marker": "v", "linewidth": 1.4, "linestyle": ":"}),
    "geometric_median": (
        "geometric median",
        {"color": "#009E73", "marker": "^", "linewidth": 1.4, "linestyle": "-."},
    ),
    "taylor": ("Taylor", {"color": "#8C6D1F", "marker": "P", "linewidth": 1.4, "linestyle": "--"}),
    "random": ("random", {"color": "#D55E00", "marker": "s", "linewidth": 1.4, "linestyle": "--"}),
}
STAGES = (
    ("cut", False, "pruned, weights unchanged"),
    ("cut", True, "pruned, refitted by least squares"),
    ("recovered", True, "refitted and recovered"),
)
SHARES = (("macs", "MACs left, %"), ("latency", "time left at batch 64, %"))

Row = dict[str, Any]


def points(rows: list[Row], what: str, share: str) -> list[tuple[float, float, float]]:
    """(share left in percent, mean loss in points, half of its 95% interval), by level."""
    found: list[tuple[float, float, float]] = []
    for level in sorted({row["level"] for row in rows}):
        own = [row for row in rows if row["level"] == level]
        lost = [row[what] - row["unpruned"] for row in own]
        half = float("nan")
        if len(own) > 1:
            half = float(student.ppf(0.975, len(own) - 1) * np.std(lost, ddof=1) / len(own) ** 0.5)
        found.append((100 * float(np.mean([r[share] for r in own])), float(np.mean(lost)), half))
    return found


def panel(axes: Axes, rows: list[Row], what: str, share: str) -> None:
    """One curve a rule, each point with its 95% interval."""
    for place, (rule, (label, look)) in enumerate(LOOKS.items()):
        own = [row for row in rows if row["rule"] == rule]
        if not own:
            continue
        left, lost, half = np.array(points(own, what, share)).T
        # Bars of several rules at one share stand beside each other.
        shift = 0.6 * (place - 2.5)
        axes.errorbar(
            left + shift, lost, yerr=half, markersize=5, label=label, capsize=2, elinewidth=0.7,
            **look,
        )  # fmt: skip
    axes.axhline(0, color="#5B6670", linewidth=0.8)
    axes.grid(color="#E4E7EA", linewidth=0.7)


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("json", type=Path)
    words.add_argument("out", type=Path)
    given = words.parse_args()
    rows: list[Row] = json.loads(given.json.read_text())["rows"]
    mpl.rcParams.update({"svg.hashsalt": "importances", "font.size": 9})
    figure, panels = plt.subplots(
        2, len(STAGES), figsize=(10.5, 6.4), sharex="row", sharey="col", layout="constrained"
    )
    for column, (what, refitted, title) in enumerate(STAGES):
        own = [row for row in rows if row["refitted"] == refitted and row[what] is not None]
        for row, (share, label) in enumerate(SHARES):
            axes = panels[row, column]
            panel(axes, own, what, share)
            axes.set_xlabel(label)
            if row == 0:
                axes.set_title(title)
            if column == 0:
                axes.set_ylabel("validation accuracy, points")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    with atomic_path(given.out) as temporary:
        figure.savefig(temporary, format=given.out.suffix[1:], metadata={"Date": None})


if __name__ == "__main__":
    main()
