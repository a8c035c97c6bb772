"""What the founding paper printed: every number of its tables and of its pruning grid, as data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from secateurs.data.audit import Audit

Record = dict[str, Any]


@cache
def published() -> Record:
    """The numbers as printed: accuracies of Tables 1 and 3 in percent, others in 0..1.

    Table 2's classes and all counts are in the order of the classes' names; the grid has a row for
    each norm threshold and a column for each angle.

    >>> published()["table1"][5]["mean"]
    46.564
    """
    text = (files("secateurs.study.paper") / "published.json").read_text(encoding="utf-8")
    found: Record = json.loads(text)
    return found


def is_sfew(audit: Audit) -> bool:
    """Whether these are the paper's frames, as far as classes, their counts and sizes tell."""
    images = published()["images"]
    names = [name.lower() for name in audit.listing.classes]
    counts = [audit.listing.labels.count(label) for label in range(len(names))]
    sizes = {(width, height) for height, width in audit.sizes.tolist()}
    return (
        names == [name.lower() for name in images["classes"]]
        and counts == images["per_class"]
        and sizes == {tuple(images["size"])}
    )
