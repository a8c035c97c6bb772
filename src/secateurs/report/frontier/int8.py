"""The int8 files of a study over several networks, beside the float32 files they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common.formatting import integer, percent, percent_interval
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.common.panel import Panel, Table, where

Record = dict[str, Any]
Cells = tuple[str, ...]
VALIDATION = "on validation images, before the last training"
TEST = "on test images, as shipped"


def int8_rows(results: Record) -> list[Record]:
    """The int8 files of points that were made; none in a study without them."""
    part = results.get("int8") or {"networks": []}
    return [row for row in part["networks"] if not row.get("reason")]


def int8_sentences(results: Record) -> list[str]:
    """What the study says of its int8 files."""
    return list((results.get("int8") or {"sentences": []})["sentences"])


def shipped_int8(results: Record) -> Record | None:
    """The int8 file that ships, if one does."""
    return (results.get("int8") or {"shipped": None})["shipped"]


def int8_cells(results: Record) -> dict[str, list[Cells]]:
    """Two rows, float32 and int8 in ONNX Runtime, by what their accuracy was measured on."""
    points = {row["name"]: row for row in results["points"]}
    tables = {
        VALIDATION: [
            cells
            for row in int8_rows(results)
            for cells in _pair(row, row["made_from"], points[row["made_from"]]["val"], row["val"])
        ]
    }
    row = shipped_int8(results)
    if row is not None:
        tables[TEST] = _pair(row, "model", results["recommended"]["test"], row["test"])
    return {name: cells for name, cells in tables.items() if cells}


def _pair(row: Record, name: str, before: Record, after: Record) -> list[Cells]:
    return [
        (
            f"{name}, {kind}",
            percent_interval(found["accuracy"], found["accuracy_low"], found["accuracy_high"]),
            percent(share),
            f"{row[size] / 1e6:.1f}",
            f"{row['ms'][kind]['median']:.3g}",
        )
        for kind, found, share, size in (
            ("float32", before, 1.0, "float32_bytes"),
            ("int8", after, row["agreement"], "num_bytes"),
        )
    ]


def int8_panel(results: Record) -> list[Panel]:
    """The tables of the int8 files, where there are any."""
    tables = tuple(
        Table(f"int8 and float32 {name}", _head("ms"), tuple(rows))
        for name, rows in int8_cells(results).items()
    )
    if not tables:
        return []
    batch = integer(results["latency"]["batch"])
    caption = (
        f"Files for ONNX Runtime; ms at batch {batch} on the processor, alternating runs. "
        "Agreement: share of the validation images with the answer of float32. Calibrated on "
        "training images. Whether int8 is recommended is decided before the last training, and "
        "only where it is not over 25% and 1 ms slower. The file that ships is made after that in "
        "the same way."
    )
    return [
        Panel(
            "int8",
            "int8 files",
            caption,
            tables=tables,
            open_tables=True,
            source=where("int8"),
        )
    ]


def _head(ms: str) -> Cells:
    return ("file", "accuracy (95% interval)", "agreement", "MB", ms)


def int8_card(results: Record) -> list[str]:
    """The part of a model card on int8 files; nothing without them."""
    tables = int8_cells(results)
    if not tables:
        return []
    lines = ["## int8", ""]
    for name, rows in tables.items():
        lines += [f"{name.capitalize()}:", ""]
        lines += card_table(list(_head("ms, ONNX Runtime")), [list(row) for row in rows])
    shipped = shipped_int8(results)
    if shipped is None:
        measured = tuple(f"{row['made_from']} in int8:" for row in int8_rows(results))
        said = [text for text in int8_sentences(results) if not text.startswith(measured)]
        return [*lines, *(f"- {literal(text)}" for text in said), ""]
    made = ": made in the same way after the last training" if shipped.get("trained") else ""
    return [*lines, f"With ONNX Runtime, deploy `{Path(shipped['file']).name}`{made}.", ""]
