"""How the angles of a report were measured, in words: one convention for all of a layer's."""

from __future__ import annotations

from secateurs.report.common.formatting import integer
from secateurs.report.common.sweep_rows import Record

CENTRED = ("cluster", "subspace")  # rules that compare activations less each unit's mean
WAYS = {
    "centre": "each unit's mean activation is subtracted first",
    "minmax": "the layer's activations are mapped to -0.5..0.5 by their minimum and maximum first",
    "none": "activations are taken as they are",
}


def convention(normalise: str | None, rule: str) -> str:
    """What was done with the activations before the angles were measured, and why so.

    >>> convention("centre", "cluster")
    "Each unit's mean activation is subtracted first, as rule cluster compares units."
    """
    text = WAYS.get(normalise or "", "how activations were mapped first is not recorded")
    return f"{text[0].upper()}{text[1:]}, as rule {rule} compares units."


def histogram_words(layer: Record, rule: str) -> str:
    """How the angles of a layer's histogram were measured, and over which pairs.

    >>> looked = {"normalise": "minmax", "num_units": 3, "num_live": 3}
    >>> histogram_words({"angles": looked, "num_units": 4}, "pairwise").split(". ")[-1]
    'All 3 pairs of the 3 of 4 units whose activation varies.'
    """
    looked = layer["angles"]
    if not looked:
        # Before it was recorded: always so, and over at most 1,024 units.
        text = f"{WAYS['minmax']}, over the pairs of a sample of at most 1,024 units"
        if rule in CENTRED:
            text += f"; rule {rule} compares centred activations, whose angles are larger"
        return f"{text[0].upper()}{text[1:]}. Run the study again for angles of one convention."
    pairs = looked["num_units"] * (looked["num_units"] - 1) // 2
    live = f"{integer(looked['num_live'])} of {integer(layer['num_units'])} units whose activation"
    if looked["num_units"] == looked["num_live"]:
        over = f"All {integer(pairs)} pairs of the {live} varies."
    else:
        over = (
            f"The {integer(pairs)} pairs of a random sample of {integer(looked['num_units'])} of "
            f"the {live} varies."
        )
    return f"{convention(looked['normalise'], rule)} {over}"


def merged_words(results: Record) -> str:
    """How the angles of the groups that merged were measured."""
    merged, rule = results["merged"], (results["pruned"] or {}).get("rule", "unknown")
    own = "centre" if rule in CENTRED else "minmax"
    return f"Angles: {convention(merged['normalise'] or own, rule)}"
