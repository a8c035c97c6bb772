"""The ledger of a whole network: one row per unit that says whether it is kept, and its cost.

The first columns are those of the ledger of a layer (`secateurs.prune.ledger`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from secateurs.files import atomic_path, write_text


class LedgerRow(NamedTuple):
    """A unit of a group, named by its first layer.

    `action` is kept or removed, `order` its place in the order of removal within its group, and
    `loss` the predicted loss once it and those before it are removed, None where not predicted.
    """

    layer: str
    unit: int
    action: str
    order: int
    loss: float | None


def write_ledger(folder: Path, rows: Sequence[LedgerRow], *, parquet: bool) -> None:
    """Write ledger.csv and, with `parquet`, ledger.parquet, each whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LedgerRow._fields)
    for row in rows:
        writer.writerow([*row[:-1], "" if row.loss is None else f"{row.loss:.6g}"])
    write_text(folder / "ledger.csv", text.getvalue())
    path = folder / "ledger.parquet"
    path.unlink(missing_ok=True)
    if parquet:
        import pyarrow as pa
        import pyarrow.parquet as pq

        packed = io.BytesIO()  # by way of memory: a full disk is then an error that names the file
        pq.write_table(pa.Table.from_pylist([row._asdict() for row in rows]), packed)
        with atomic_path(path) as temporary:
            temporary.write_bytes(packed.getbuffer())
