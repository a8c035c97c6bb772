"""Sentences on the images that a network was measured on, and on its reconstruction."""

from __future__ import annotations

from typing import Any

from secateurs.report.common.formatting import integer, plural, seconds

Record = dict[str, Any]


def calibration(record: Record) -> str:
    """On which images the network was measured, in a sentence after a space."""
    found = record.get("calibration")  # an older version used all
    if found is None:
        return ""
    which = "all" if found["num_images"] == found["of"] else integer(found["num_images"])
    ends = " of " + integer(found["of"]) if which != "all" else f" {integer(found['of'])}"
    mirrored = ", and their mirror images," if found["mirrored"] else ""
    return f" {which.capitalize()}{ends} training images{mirrored} were used before any recovery."


def reconstruction(record: Record) -> str:
    """What came of the reconstruction, in sentences after a space."""
    found = record.get("reconstruction")
    if found is None:
        return ""
    rows = found["blocks"]
    if [row["name"] for row in rows] == ["all"]:
        return f" Blocks were not tuned: {rows[0]['skipped']}."
    tuned = sum(row["after"] is not None and row["after"] < row["before"] for row in rows)
    words = (
        f" Reconstruction without labels brought {tuned} of {plural(len(rows), 'block')} nearer to "
        f"the unpruned network in {seconds(found['seconds'])}"
    )
    if found["change"] is None:
        return words + "."
    before, after = record["outcome"]["measured"], found["change"]["squared"]
    words += (
        f"; the mean squared change of the outputs on validation images is {after:.3g}, "
        f"{before:.3g} before"
    )
    return words + ("." if found["used"] else ", so it was not used.")
