"""Descriptions of how the angles of a report were measured."""

from __future__ import annotations

from secateurs.report.common.formatting import integer
from secateurs.report.common.sweep_rows import Record

CENTRED = ("cluster", "subspace")  # rules that compare activations less each unit's mean
NORMALISATIONS = {
    "centre": "the mean activation of each unit is subtracted before angles are measured",
    "minmax": (
        "activations are scaled to -0.5..0.5 by the minimum and maximum of the layer before angles "
        "are measured"
    ),
    "none": "angles are measured on the unchanged activations",
}


def convention(normalise: str | None, rule: str) -> str:
    """How the activations were normalised before the angles were measured, and by which rule.

    >>> convention("centre", "cluster")
    'The mean activation of each unit is subtracted before angles are measured (rule cluster).'
    """
    text = NORMALISATIONS.get(
        normalise or "", "how the activations were normalised is not recorded"
    )
    return f"{text[0].upper()}{text[1:]} (rule {rule})."


def histogram_words(layer: Record, rule: str) -> str:
    """How the angles of a layer's histogram were measured, and over which pairs.

    >>> measured = {"normalise": "minmax", "num_units": 3, "num_live": 3}
    >>> histogram_words({"angles": measured, "num_units": 4}, "pairwise").split(". ")[-1]
    'All 3 pairs of the 3 units (of 4) with varying activations.'
    """
    measured = layer["angles"]
    if not measured:
        # Before it was recorded: always so, and over at most 1,024 units.
        text = f"{NORMALISATIONS['minmax']}, over the pairs of a sample of at most 1,024 units"
        if rule in CENTRED:
            text += f"; rule {rule} compares centred activations, whose angles are larger"
        advice = "Run the study again to measure all angles in the same way."
        return f"{text[0].upper()}{text[1:]}. {advice}"
    pairs = measured["num_units"] * (measured["num_units"] - 1) // 2
    live = (
        f"{integer(measured['num_live'])} units (of {integer(layer['num_units'])}) with varying "
        "activations"
    )
    if measured["num_units"] == measured["num_live"]:
        over = f"All {integer(pairs)} pairs of the {live}."
    else:
        over = (
            f"The {integer(pairs)} pairs of a random sample of {integer(measured['num_units'])} of "
            f"the {live}."
        )
    return f"{convention(measured['normalise'], rule)} {over}"


def merged_words(results: Record) -> str:
    """How the angles of the merged groups were measured."""
    merged, rule = results["merged"], (results["pruned"] or {}).get("rule", "unknown")
    own = "centre" if rule in CENTRED else "minmax"
    return f"{convention(merged['normalise'] or own, rule)}"
