"""Every table of a study over several networks, as rows of plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.frontier.figures import made_points
from secateurs.report.frontier.int8 import int8_rows, shipped_int8
from secateurs.report.study.result_tables import depth_row, of_trials, plain_tables

Row = dict[str, Any]
ACCURACY = ("num_images", "accuracy", "accuracy_low", "accuracy_high")


SHORT = ("network", "kind", "accuracy", "low", "high", "to_best", "mb", "ms", "recommended")


def short_rows(results: Row) -> list[Row]:
    """The networks with the columns that fit on a screen, numbers as a page shows them."""
    gaps, answer = results["answer"]["to_best"], results["answer"]["name"]
    rows: list[Row] = []
    for row in made_points(results):
        val = row["val"]
        numbers = (val["accuracy"], val["accuracy_low"], val["accuracy_high"])
        shares = [round(number, 3) for number in numbers]
        gap = round(gaps[row["name"]]["difference"], 3)
        cells = (row["name"], row["kind"], *shares, gap, round(row["mb"], 2), round(row["ms"], 2))
        rows.append(dict(zip(SHORT, (*cells, row["name"] == answer), strict=True)))
    return rows


def frontier_tables(results: Row, path: Path) -> dict[str, list[Row]]:
    """Tables `networks` (one row a point of the frontier), `probe`, `trials`, `depths` and more.

    The first is the one to show. Sizes are in MB (10^6 bytes), times in ms, fractions in 0..1.
    `path` is the file that errors name.
    """
    gaps, answer = results["answer"]["to_best"], results["answer"]["name"]
    networks = [
        {
            "network": row["name"],
            "kind": row["kind"],
            "side": "val",
            **{name: row["val"][name] for name in ACCURACY},
            **{f"to_best_{name}": value for name, value in gaps[row["name"]].items()},
            "mb": row["mb"],
            "ms": row["ms"],
            "num_parameters": row["cost"]["num_parameters"],
            "macs": row["cost"]["macs"],
            "recommended": row["name"] == answer,
        }
        for row in made_points(results)
    ]
    probe = [
        {
            "backbone": one["backbone"],
            **{key: value for key, value in row.items() if not isinstance(value, dict | list)},
        }
        for one in results["probe"]["networks"]
        for row in one["depths"]
    ]
    records = [(trial, arm["backbone"]) for arm in results["arms"] for trial in arm["trials"]]
    of = of_trials([(trial, "") for trial, _ in records])
    for row, (_, backbone) in zip(of["trials"], records, strict=True):
        row["backbone"] = backbone
    of.pop("epochs")
    depths = [
        {"backbone": arm["backbone"], **depth_row(row)}
        for arm in results["arms"]
        for row in arm["sweep"]
    ]
    test = results["recommended"]["test"]
    classes = [{"network": answer, "side": "test", **score} for score in test["per_class"]]
    tables = {"networks": networks, "probe": probe, **of, "depths": depths, "classes": classes}
    int8 = [
        {
            "network": row["made_from"],
            "side": "val",
            **{name: row["val"][name] for name in ACCURACY},
            "agreement": row["agreement"],
            "mb": row["num_bytes"] / 1e6,
            "ms_onnxruntime": row["ms"]["int8"]["median"],
            "ms_onnxruntime_float32": row["ms"]["float32"]["median"],
            "recommended": row["name"] == results["int8"]["recommended"],
        }
        for row in int8_rows(results)
    ]
    shipped = shipped_int8(results)
    if shipped is not None:
        int8.append(
            {
                "network": "model",
                "side": "test",
                **{name: shipped["test"][name] for name in ACCURACY},
                "agreement": shipped["agreement"],
                "mb": shipped["num_bytes"] / 1e6,
                "ms_onnxruntime": shipped["ms"]["int8"]["median"],
                "ms_onnxruntime_float32": shipped["ms"]["float32"]["median"],
                "recommended": True,
            }
        )
    if int8:
        tables["int8"] = int8
    return plain_tables(tables, path)
