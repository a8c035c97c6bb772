"""The files about labels: a table of all images, and small pictures of those that are flagged."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from secateurs.files import atomic_path
from secateurs.study.probe.label_scan import Labels, find_labels, picture_of
from secateurs.study.probe.run import Probed
from secateurs.study.saved.samples import THUMBNAIL_PX, thumbnail

TABLE = "labels.csv"
COLUMNS = (
    *("name", "side", "group", "label", "probability"),
    *("suggested", "suggested_probability", "flagged"),
)
Record = dict[str, Any]


def label_findings(probed: Probed, out: Path) -> tuple[Record, list[Record]]:
    """What the probe says about labels, and a table with a row for each image.

    Writes `out`/thumbnails/label-N.jpg for the images of the record.
    """
    found: Labels = find_labels(probed)
    for number, row in enumerate(found.record["images"]):
        file = f"thumbnails/label-{number}.jpg"
        images, place = picture_of(probed.dataset, row)
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / file) as temporary:
            thumbnail(images, place, THUMBNAIL_PX).save(temporary, format="JPEG", quality=85)
        row["thumbnail"] = file
    return found.record, [{name: row[name] for name in COLUMNS} for row in found.rows]


def csv_text(rows: list[Record]) -> str:
    """The table as text; flags are words, images without a group have none.

    >>> print(csv_text([dict.fromkeys(COLUMNS, 1) | {"flagged": True, "group": None}]), end="")
    name,side,group,label,probability,suggested,suggested_probability,flagged
    1,1,,1,1,1,1,true
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"flagged": str(row["flagged"]).lower()} for row in rows)
    return text.getvalue()
