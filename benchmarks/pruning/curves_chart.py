"""The curves of `curves.py` as a picture: points lost against parameters, a panel a compensation.

python benchmarks/pruning/curves_chart.py CURVES.json docs/pictures/curves.svg
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

# Told apart by colour, dash and mark; the other rules are grey.
LOOKS = {
    "cluster": {"color": "#0072B2", "marker": "o", "linewidth": 2.2},
    "subspace": {"color": "#009E73", "marker": "^", "linewidth": 1.4},
    "random": {"color": "#D55E00", "marker": "s", "linewidth": 1.8, "linestyle": "--"},
    "torch-pruning L2": {"color": "#CC79A7", "marker": "v", "linewidth": 1.4, "linestyle": ":"},
}
GREY = {"color": "#B9C1C9", "linewidth": 1.0}
TICKS = (0.3, 0.6, 1.2, 2.5, 5.0)
STEPS = ("drop", "add", "affine", "least_squares", "merge")


def curve(rows: list[dict[str, Any]], rule: str, step: str, side: str) -> tuple[list[float], ...]:
    """(parameters, mean loss in points, half of its 95% interval) by size, over the networks."""
    whole = {row["seed"]: row[side] for row in rows if row["rule"] == "none"}
    found: dict[int, list[float]] = {}
    for row in rows:
        if (row["rule"], row["step"]) == (rule, step):
            found.setdefault(row["parameters"], []).append(row[side] - whole[row["seed"]])
    sizes = sorted(size for size in found if len(found[size]) > 1)
    means = [float(np.mean(found[size])) for size in sizes]
    halves = [
        float(student.ppf(0.975, len(v) - 1) * np.std(v, ddof=1) / len(v) ** 0.5)
        for v in (found[size] for size in sizes)
    ]
    return [size / 1e6 for size in sizes], means, halves


def panel(axes: Axes, rows: list[dict[str, Any]], step: str, side: str) -> None:
    rules = sorted({row["rule"] for row in rows if row["step"] == step}, key=lambda r: r in LOOKS)
    for rule in rules:
        sizes, means, halves = curve(rows, rule, step, side)
        axes.plot(sizes, means, markersize=5, label=rule, **LOOKS.get(rule, GREY))
        if rule in ("cluster", "random"):
            low, high = (np.array(means) + sign * np.array(halves) for sign in (-1, 1))
            axes.fill_between(sizes, low, high, color=LOOKS[rule]["color"], alpha=0.12, linewidth=0)
    axes.axhline(0, color="#5B6670", linewidth=0.8)
    axes.set(xscale="log", title=step.replace("_", " "), ylim=(-65, 5))
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("parameters of the linear layers, millions")
    axes.grid(color="#E4E7EA", linewidth=0.7)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("json", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("--side", choices=("val", "test"), default="val")
    given = words.parse_args()
    rows = json.loads(given.json.read_text())
    mpl.rcParams.update({"svg.hashsalt": "curves", "font.size": 9})
    steps = [step for step in STEPS if any(row["step"] == step for row in rows)]
    figure, panels = plt.subplots(
        1, len(steps), figsize=(3.1 * len(steps), 3.9), sharey=True, layout="constrained"
    )
    for axes, step in zip(np.atleast_1d(panels), steps, strict=True):
        panel(axes, rows, step, given.side)
    np.atleast_1d(panels)[0].set_ylabel(f"{given.side} accuracy against unpruned, points")
    handles, names = np.atleast_1d(panels)[-1].get_legend_handles_labels()
    shown = dict(zip(names, handles, strict=True))
    known = [name for name in LOOKS if name in shown]
    others = [name for name in names if name not in LOOKS]
    entries = [shown[name] for name in known] + ([shown[others[0]]] if others else [])
    labels = known + ([f"{len(others)} other rules"] if others else [])
    figure.legend(entries, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with atomic_path(given.out) as temporary:
        figure.savefig(temporary, format=given.out.suffix[1:], metadata={"Date": None})


if __name__ == "__main__":
    main()
