from __future__ import annotations

import csv

import pyarrow.parquet as pq
import pytest
import torch

from secateurs.prune.ledger import COLUMNS, ledger, write_csv, write_parquet
from secateurs.prune.selection.pairwise import pairwise

# Unit 1 follows unit 0, unit 2 is dead, unit 3 constant, unit 4 on its own.
X = torch.tensor([[1.0, 2.0, 0.0, 3.0, 0.0], [0.0, 0.1, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 3.0, 0.0]])
CHOSEN = pairwise(X, low_deg=15, normalise="none")


@pytest.mark.parametrize(
    ("compensation", "where"),
    [
        ("drop", ["itself", "nowhere", "nowhere", "nowhere", "itself"]),
        ("add", ["itself", "survivor", "nowhere", "bias", "itself"]),
        ("affine", ["itself", "survivor", "nowhere", "bias", "itself"]),
        ("least_squares", ["itself", "survivors", "nowhere", "bias", "itself"]),
        ("merge", ["itself", "survivor", "nowhere", "bias", "itself"]),
    ],
)
def test_where_each_weight_went(compensation: str, where: list[str]):
    rows = ledger("fc7", CHOSEN, compensation)
    assert rows.action.tolist() == ["kept", "removed", "dead", "constant", "kept"]
    assert rows.weight_to.tolist() == where


def test_parquet_says_what_csv_says(tmp_path):
    two = [ledger(name, CHOSEN, "merge") for name in ("fc6", "fc7")]
    write_parquet(tmp_path / "ledger.parquet", *two)
    write_csv(tmp_path / "ledger.csv", *two)
    table = pq.read_table(tmp_path / "ledger.parquet")
    with (tmp_path / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(table.column_names) == COLUMNS and table.num_rows == len(rows) == 10
    for row, plain in zip(table.to_pylist(), rows, strict=True):
        for name in ("layer", "action", "weight_to"):
            assert row[name] == plain[name]
        for name in ("unit", "survivor"):
            assert row[name] == int(plain[name])
        assert row["dead"] is bool(int(plain["dead"]))
        assert row["norm"] == pytest.approx(float(plain["norm"]))
        angle = None if plain["angle_deg"] == "" else float(plain["angle_deg"])
        assert row["angle_deg"] == pytest.approx(angle, abs=1e-6)
