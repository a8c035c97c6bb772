"""The drawings of the documentation, each for a light and a dark page.

`python docs/scripts/pictures.py` writes them again to docs/pictures, with a folder's name there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.patches import Arc, FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).parents[1] / "pictures"


@dataclass(frozen=True)
class Ink:
    """Colours of one page: text, faint lines, and three with a meaning."""

    text: str
    faint: str
    keep: str  # what stays
    gone: str  # what goes
    other: str  # what is only compared


INKS = {
    "light": Ink("#1d2a2a", "#b5c2c2", "#00796b", "#c2410c", "#4f46a5"),
    "dark": Ink("#e6eeee", "#55645f", "#4fd1be", "#ff9d66", "#b3adff"),
}
# Packages in the order of their imports, with their rooms. Tests compare them with the source.
ROOMS = {
    "data": ("images", "faces", "splits"),
    "nets": ("sources", "archives"),
    "fit": ("probe",),
    "prune": (
        *("coupling", "similarity", "statistics", "selection"),
        *("surgery", "compensation", "reconstruction", "allocation"),
    ),
    "ship": ("int8", "targets"),
    "api": (),
    "study": (
        *("records", "setup", "trials", "sweep", "probe", "tracking"),
        *("saved", "insight", "pruning", "frontier", "search", "paper"),
    ),
    "report": (
        *("common", "probe", "insight", "study", "frontier"),
        *("grid", "search", "network", "paper"),
    ),
    "serve": (),
    "explorer": (),
    "demo": (),
    "cli": ("options", "parsing", "insight"),
}
PURPOSE = {
    "data": "image files",
    "nets": "backbones",
    "fit": "training",
    "prune": "modules, batches",
    "ship": "export, cost",
    "api": "any model",
    "study": "experiments",
    "report": "pages",
    "serve": "HTTP service",
    "explorer": "slider page",
    "demo": "browser page",
    "cli": "commands",
}
# Mean validation accuracy by depth with its 95% interval, percent: docs/benchmarks.md.
DEPTHS = {
    0: (70.5, 68.9, 72.2),
    1: (71.4, 68.9, 73.9),
    2: (71.6, 69.9, 73.2),
    3: (72.6, 71.5, 73.7),
    4: (71.9, 70.4, 73.3),
    5: (71.9, 70.4, 73.3),
    6: (68.1, 67.2, 69.1),
    7: (46.7, 42.9, 50.4),
}
# Hours of the paper's sweep: docs/benchmarks.md.
HOURS = {
    "plain PyTorch": 4.10,
    "Lightning": 4.22,
    "fastai": 4.16,
    "Secateurs, no bank, float32": 1.50,
    "Secateurs, no bank, bfloat16": 0.55,
    "Secateurs, bank of 2 views, bfloat16": 0.44,
}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def figure(width: float, height: float, panels: int, ink: Ink) -> tuple[Any, list[Any]]:
    """A figure of bare panels side by side, sizes in inches."""
    drawn, axes = plt.subplots(1, panels, figsize=(width, height), squeeze=False)
    drawn.subplots_adjust(left=0.02, right=0.98, bottom=0.04, top=0.86, wspace=0.08)
    for panel in axes[0]:
        panel.set_axis_off()
        panel.title.set_color(ink.text)
    return drawn, list(axes[0])


def title(panel: Any, text: str, ink: Ink) -> None:
    """A panel's title, in the page's text colour."""
    panel.set_title(text, color=ink.text, fontsize=11, pad=8)


def arrow(panel: Any, tip: tuple[float, float], colour: str, *, dashed: bool = False) -> None:
    """An arrow from the origin."""
    panel.add_patch(
        FancyArrowPatch(
            (0, 0),
            tip,
            arrowstyle="-|>",
            mutation_scale=16,
            linewidth=2.2,
            color=colour,
            linestyle="--" if dashed else "-",
            shrinkA=0,
            shrinkB=0,
        )
    )


def at(degrees: float, length: float = 1.0) -> tuple[float, float]:
    """The point in a direction."""
    angle = np.radians(degrees)
    return float(length * np.cos(angle)), float(length * np.sin(angle))


def angles(ink: Ink) -> Any:
    """Two units whose activation vectors are similar, unrelated and opposite."""
    drawn, panels = figure(9.6, 3.2, 3, ink)
    cases = (
        (22, 32, "10°: similar\nboth carry the same; one is removed", ink.gone),
        (10, 88, "78°: unrelated\nboth are kept", ink.other),
        (8, 178, "170°: opposite\none follows from the other", ink.gone),
    )
    for panel, (first, second, text, colour) in zip(panels, cases, strict=True):
        panel.set_xlim(-1.4, 1.4)
        panel.set_ylim(-0.1, 1.5)
        panel.set_aspect("equal")
        arrow(panel, at(first), ink.keep)
        arrow(panel, at(second, 0.92), colour)
        panel.add_patch(
            Arc((0, 0), 0.9, 0.9, theta1=first, theta2=second, color=ink.text, linewidth=1.2)
        )
        # Names of two near vectors are moved apart, along the circle.
        apart = max(0.0, 34 - (second - first)) / 2
        names = ((first - apart, "i", ink.keep), (second + apart, "j", colour))
        for degrees, name, paint in names:
            x, y = at(degrees, 1.2)
            panel.text(x, y, f"unit {name}", color=paint, fontsize=9.5, ha="center", va="center")
        title(panel, text, ink)
    return drawn


def span(ink: Ink) -> Any:
    """A unit far from every survivor and yet in the plane that two of them span."""
    drawn, panels = figure(9.6, 3.3, 2, ink)
    plane = np.array([[-0.2, -0.15], [1.15, -0.15], [1.5, 0.75], [0.15, 0.75]])
    for panel, lifted in zip(panels, (False, True), strict=True):
        panel.set_xlim(-0.35, 1.75)
        panel.set_ylim(-0.3, 1.2)
        panel.set_aspect("equal")
        panel.add_patch(plt.Polygon(plane, closed=True, color=ink.faint, alpha=0.35, linewidth=0))
        arrow(panel, (1.0, -0.02), ink.keep)
        arrow(panel, (0.42, 0.62), ink.keep)
        panel.text(1.05, -0.03, "survivor", color=ink.keep, fontsize=9.5, va="center")
        panel.text(0.3, 0.67, "survivor", color=ink.keep, fontsize=9.5, ha="center")
        foot = (0.98, 0.4)
        if lifted:
            tip = (0.98, 0.95)
            arrow(panel, foot, ink.gone, dashed=True)
            panel.plot([foot[0], tip[0]], [foot[1], tip[1]], color=ink.text, linewidth=1, ls=":")
            panel.text(1.02, 0.66, "what is lost", color=ink.text, fontsize=9)
        else:
            tip = foot
        arrow(panel, tip, ink.gone if not lifted else ink.other)
        panel.text(tip[0] + 0.05, tip[1] + 0.03, "unit", fontsize=9.5, color=ink.text)
    title(panels[0], "In the span: 40° from each survivor,\n0° from the span. It is removed.", ink)
    title(
        panels[1], "Outside the span: the angle to its projection\nis what removing it costs.", ink
    )
    return drawn


def merge(ink: Ink) -> Any:
    """Two units before the cut, and the one that stands for both after it."""
    drawn, panels = figure(9.6, 3.4, 2, ink)
    inputs, outputs = [(0.0, y) for y in (0.2, 0.5, 0.8)], [(2.0, y) for y in (0.32, 0.68)]
    rows = (
        (
            [(1.0, 0.86), (1.0, 0.6), (1.0, 0.4), (1.0, 0.14)],
            "Before: units 2 and 3\nat an angle of 9°",
        ),
        (
            [(1.0, 0.8), (1.0, 0.5), (1.0, 0.2)],
            "After: one unit with their mean weights,\nthe next layer refitted",
        ),
    )
    for panel, (units, text) in zip(panels, rows, strict=True):
        panel.set_xlim(-0.3, 2.3)
        panel.set_ylim(0, 1)
        pair = (1, 2) if len(units) == 4 else (1,)
        for k, unit in enumerate(units):
            paint = ink.gone if k in pair and len(units) == 4 else ink.keep
            strong = k in pair
            for end in (*inputs, *outputs):
                refitted = len(units) == 3 and end in outputs
                panel.plot(
                    [unit[0], end[0]],
                    [unit[1], end[1]],
                    color=ink.other if refitted else paint if strong else ink.faint,
                    linewidth=1.8 if strong else 1.1,
                    zorder=1,
                )
            panel.scatter(*unit, s=330, color=paint, zorder=2)
        for node in (*inputs, *outputs):
            panel.scatter(*node, s=170, color=ink.faint, zorder=2)
        labels = [(0.0, "layer before"), (1.0, "fc7"), (2.0, "layer after")]
        for x, name in labels:
            panel.text(x, 0.0, name, color=ink.text, fontsize=9.5, ha="center", va="bottom")
        title(panel, text, ink)
    return drawn


def depth(ink: Ink) -> Any:
    """AlexNet at three depths: what is frozen and computed once, and what is trained."""
    drawn, panels = figure(9.6, 2.9, 1, ink)
    panel = panels[0]
    panel.set_xlim(-1.6, len(LAYERS) * 1.12 + 0.1)
    panel.set_ylim(-0.6, 3.1)
    for row, frozen in enumerate((0, 3, 5)):
        y = 2.1 - row
        panel.text(-0.15, y + 0.3, f"depth {frozen}", color=ink.text, fontsize=10, ha="right")
        for place, name in enumerate(LAYERS):
            held = place < frozen
            panel.add_patch(
                FancyBboxPatch(
                    (place * 1.12 + 0.06, y),
                    0.96,
                    0.66,
                    boxstyle="round,pad=0,rounding_size=0.08",
                    facecolor="none" if held else ink.keep,
                    edgecolor=ink.other if held else ink.keep,
                    linewidth=1.6,
                    hatch="///" if held else None,
                    alpha=0.9,
                )
            )
            if held:
                continue
            page = "#ffffff" if ink is INKS["light"] else "#10201d"
            panel.text(
                place * 1.12 + 0.54,
                y + 0.31,
                name,
                color=page,
                fontsize=9,
                ha="center",
                va="center",
            )
    panel.text(0.06, -0.42, "hatched: frozen, computed once", color=ink.other, fontsize=10)
    panel.text(
        len(LAYERS) * 1.12, -0.42, "filled: fine-tuned", color=ink.keep, fontsize=10, ha="right"
    )
    panel.set_title("")
    return drawn


def rooms(ink: Ink) -> Any:
    """The packages in two rows, in the order of their imports, each with its rooms."""
    drawn, panels = figure(11.0, 5.6, 1, ink)
    drawn.subplots_adjust(top=0.99)
    panel = panels[0]
    panel.set_xlim(0, 6)
    panel.set_ylim(0, 5.55)
    page = "#ffffff" if ink is INKS["light"] else "#10201d"
    names = list(ROOMS)
    for row, (members, top, height) in enumerate(((names[:6], 5.5, 2.2), (names[6:], 2.95, 2.9))):
        for place, name in enumerate(members):
            left = place + 0.04
            box = {"boxstyle": "round,pad=0,rounding_size=0.05", "linewidth": 1.4}
            panel.add_patch(
                FancyBboxPatch(
                    (left, top - height), 0.8, height, facecolor="none", edgecolor=ink.keep, **box
                )
            )
            panel.add_patch(
                FancyBboxPatch(
                    (left, top - 0.42), 0.8, 0.42, facecolor=ink.keep, edgecolor=ink.keep, **box
                )
            )
            middle = left + 0.4
            aligned = {"ha": "center", "va": "center"}
            panel.text(middle, top - 0.21, name, color=page, fontsize=12, **aligned)
            panel.text(middle, top - 0.6, PURPOSE[name], color=ink.other, fontsize=9, **aligned)
            for line, room in enumerate(ROOMS[name]):
                y = top - 0.84 - 0.19 * line
                panel.text(middle, y, room, color=ink.text, fontsize=9.5, **aligned)
            if place < len(members) - 1 or row == 0:
                last = place == len(members) - 1
                ends = ((left + 0.81, top - 0.21), (left + (0.96 if last else 1.0), top - 0.21))
                panel.add_patch(
                    FancyArrowPatch(
                        *ends, arrowstyle="-|>", mutation_scale=11, color=ink.text, linewidth=1.2
                    )
                )
    panel.set_title("")
    return drawn


def chart(heading: str, ink: Ink) -> tuple[Any, Any]:
    """A figure with one panel whose axes are in the page's colours."""
    drawn, panel = plt.subplots(figsize=(7.2, 2.9))
    panel.set_facecolor("none")
    panel.tick_params(colors=ink.text, labelsize=9)
    for side, line in panel.spines.items():
        line.set_color(ink.faint)
        line.set_visible(side in ("left", "bottom"))
    panel.set_title(heading, color=ink.text, fontsize=11)
    return drawn, panel


def depths(ink: Ink) -> Any:
    """Accuracy over depths with intervals."""
    drawn, panel = chart("Validation accuracy, %, with 95% intervals", ink)
    for number, (mean, low, high) in DEPTHS.items():
        worse = number >= 6  # significantly
        colour = ink.gone if worse else ink.keep
        panel.plot([number, number], [low, high], color=colour, linewidth=2)
        panel.plot(number, mean, "s" if worse else "o", color=colour, markersize=6)
    panel.set_xlabel("depth (squares: significantly worse than the best)", color=ink.text)
    return drawn


def hours(ink: Ink) -> Any:
    """Hours of the paper's sweep by each loop."""
    drawn, panel = chart("The paper's sweep, hours", ink)
    colours = [ink.keep if "Secateurs" in name else ink.other for name in HOURS]
    panel.barh(list(HOURS), list(HOURS.values()), color=colours, height=0.6)
    panel.invert_yaxis()
    for row, value in enumerate(HOURS.values()):
        panel.text(value + 0.06, row, f"{value:.2f}", color=ink.text, fontsize=9, va="center")
    return drawn


PICTURES: dict[str, Callable[[Ink], Any]] = {
    "angles": angles,
    "span": span,
    "merge": merge,
    "depth": depth,
    "rooms": rooms,
    "depths": depths,
    "hours": hours,
}


def draw(folder: Path) -> list[Path]:
    """Write every picture in both colours to `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with mpl.rc_context({"svg.hashsalt": "secateurs", "font.family": "DejaVu Sans"}):
        for name, make in PICTURES.items():
            for page, ink in INKS.items():
                drawn = make(ink)
                path = folder / f"{name}-{page}.svg"
                drawn.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
                plt.close(drawn)
                written.append(path)
    return written


if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(path)
