"""The ledger: one row a unit that says why it stayed or went, and where its weight went."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateurs.extras import require
from secateurs.files import atomic_path
from secateurs.prune.selection.pairwise import Selection

COLUMNS = (
    "layer",
    "unit",
    "action",
    "dead",
    "constant",
    "norm",
    "survivor",
    "angle_deg",
    "span_deg",
    "weight_to",
)


@dataclass(frozen=True)
class Ledger:
    """Columns of equal length, one entry a unit, in the order of the units."""

    layer: str
    unit: np.ndarray  # int64
    action: np.ndarray  # str: kept, removed, dead or constant (both of these removed as well)
    dead: np.ndarray  # bool
    constant: np.ndarray  # bool
    norm: np.ndarray  # float64, of the normalised activation vector
    survivor: np.ndarray  # int64: the unit that stands for it, itself when kept, -1 for none
    angle_deg: np.ndarray  # float64: angle to that unit in degrees, NaN for none
    span_deg: np.ndarray  # float64: angle to the span of the survivors, NaN where not measured
    # str, where its outgoing weight went: itself, nowhere, survivor, bias, or all survivors.
    weight_to: np.ndarray

    def __len__(self) -> int:
        return len(self.unit)


def ledger(layer: str, selection: Selection, compensation: str) -> Ledger:
    """The ledger of one layer's selection, and of the step that changed the weights."""
    units = torch.arange(selection.num_units)
    survivor = units.clone()
    angle = torch.zeros(len(units), dtype=torch.float64)
    removed = selection.removed.cpu()
    survivor[removed] = selection.parent.cpu()
    angle[removed] = selection.angle_deg.cpu()
    span = torch.zeros(len(units), dtype=torch.float64)
    span[removed] = float("nan") if selection.span_deg is None else selection.span_deg.cpu()
    dead, constant = selection.dead.cpu().numpy(), selection.constant.cpu().numpy()
    action = np.full(len(units), "kept", dtype="<U8")
    action[removed.numpy()] = "removed"
    gone = action == "removed"
    action[gone & dead] = "dead"
    action[gone & constant] = "constant"
    return Ledger(
        layer=layer,
        unit=units.numpy(),
        action=action,
        dead=dead,
        constant=constant,
        norm=selection.norm.cpu().numpy(),
        survivor=survivor.numpy(),
        angle_deg=angle.numpy(),
        span_deg=span.numpy(),
        weight_to=_weight_to(action, survivor.numpy(), compensation),
    )


def _weight_to(action: np.ndarray, survivor: np.ndarray, compensation: str) -> np.ndarray:
    """Where each unit's outgoing weight went."""
    alone = {"drop": "nowhere", "add": "nowhere", "affine": "bias"}.get(compensation, "survivors")
    parent = {"drop": "nowhere", "least_squares": "survivors"}.get(compensation, "survivor")
    result = np.full(len(action), alone, dtype="<U9")
    result[survivor >= 0] = parent
    result[action == "constant"] = "nowhere" if compensation == "drop" else "bias"
    result[action == "dead"] = "nowhere"
    result[action == "kept"] = "itself"
    return result


def write_parquet(path: Path, *ledgers: Ledger) -> None:
    """Write the ledgers of one or more layers to one Parquet file, whole or not at all.

    Columns as in the CSV file, with types; angles are in degrees, null where there is none.
    """
    require("parquet", "a Parquet file")
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: pa.concat_arrays([_column(getattr(rows, name), len(rows)) for rows in ledgers])
        for name in COLUMNS
    }
    packed = io.BytesIO()  # by way of memory: a full disk is then an error that names the file
    pq.write_table(pa.table(columns), packed)
    with atomic_path(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def write_csv(path: Path, *ledgers: Ledger) -> None:
    """Write the ledgers of one or more layers to one CSV file, whole or not at all.

    Angles are in degrees with six decimals, empty where there is none.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rows in ledgers:
            for k in range(len(rows)):
                writer.writerow(
                    (
                        rows.layer,
                        rows.unit[k],
                        rows.action[k],
                        int(rows.dead[k]),
                        int(rows.constant[k]),
                        f"{rows.norm[k]:.9g}",
                        rows.survivor[k],
                        _degrees(rows.angle_deg[k]),
                        _degrees(rows.span_deg[k]),
                        rows.weight_to[k],
                    )
                )


def _degrees(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _column(values: np.ndarray | str, length: int) -> Any:
    """An Arrow array; NaN becomes null, one word is repeated."""
    import pyarrow as pa

    if isinstance(values, str):
        return pa.array([values] * length, pa.string())
    mask = np.isnan(values) if values.dtype.kind == "f" else None
    return pa.array(values, mask=mask)
