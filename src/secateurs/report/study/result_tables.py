"""What a directory of Secateurs found, as named tables of plain rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import open_regular, read_json
from secateurs.report.common.baselines import balanced, majority
from secateurs.report.study.schema import check_results
from secateurs.shape import Maybe, check_shape, made_of
from secateurs.study.records.checksummed import CHECKSUM, unseal
from secateurs.study.records.kinds import GRID, TRIAL

Row = dict[str, Any]

_SEARCH: Row = {
    "trials": [
        {
            "number": int,
            "parameters": dict,
            "epochs": int,
            "val_accuracy_mean": Maybe(float, absent=True),
            "runs": [{"run": int, "curve": [dict]}],
            "timing": dict,
        }
    ],
    "cells": Maybe([dict], absent=True),
}
_PAPER: Row = {
    "table1": [{"depth": int, "pretrained": bool, "runs": [float], "val_runs": [Maybe(float)]}],
    "table2": [dict],
    "table3": {"accuracy": [dict], "units": [dict]},
    "grid": {"ways": dict},
}

COUNTED = ("run", "epoch", "best_epoch", "number", "rung")  # from 1 in tables, from 0 in files
FILES = ("results.json", "search.json", "grid.json", "paper.json", "training.json")


def result_tables(directory: Path) -> dict[str, list[Row]]:
    """Every table of a directory that `study`, `sweep`, `search`, `grid`, `paper` or `train` wrote.

    The first is the one to show. Runs, epochs and the trials of a search count from 1. Values are
    text, numbers, true or false, or None. Of a study that has not ended the tables are of its
    trials so far. Raises InputError when there is none of these files, or one is broken.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give the --out of a study or a search")
    found = [name for name in FILES if (directory / name).exists()]
    if found:
        with made_of(directory / found[0]):
            return plain_tables(_MAKERS[found[0]](directory), directory / found[0])
    records = [
        _read_trial(path)
        for path in sorted((directory / "trials").glob("*.json"))
        if not path.name.endswith(".test.json")
    ]
    if not records:
        raise InputError(
            f"{directory}: none of {', '.join(FILES)} here and no trial; give the --out of a "
            "study, sweep, search, grid, paper or train"
        )
    records.sort(key=lambda record: (not record["pretrained"], record["depth"], record["run"]))
    return plain_tables(of_trials([(record, "") for record in records]), directory / "trials")


def _read_trial(path: Path) -> Row:
    record = unseal(read_json(path))
    if record is None:
        raise InputError(f"{path}: damaged; run the study again to repeat this trial")
    return check_shape(record, TRIAL, where=str(path))


def plain_tables(tables: dict[str, list[Row]], path: Path) -> dict[str, list[Row]]:
    """The tables; InputError that names a value of `path` that no table can show."""
    for name, rows in tables.items():
        for at, row in enumerate(rows):
            for column, value in row.items():
                if isinstance(value, dict | list) or (type(value) is int and abs(value) >= 2**63):
                    raise InputError(
                        f"{path}: {name}[{at}].{column} should be text or a number; damaged"
                    )
    return tables


def is_unfinished(directory: Path) -> bool:
    """Whether only trials are there, and not what they end in."""
    return not any((directory / name).exists() for name in FILES)


def choose_table(tables: dict[str, list[Row]], name: str | None, where: Path) -> list[Row]:
    """The table asked for, or the first; InputError that lists what there is."""
    if name is None:
        return next(iter(tables.values()))
    if name not in tables:
        raise InputError(f"{where}: no table {name!r}; there are {', '.join(tables)}")
    return tables[name]


def of_trials(records: list[tuple[Row, str]]) -> dict[str, list[Row]]:
    """Tables `trials` and `epochs` of records, each with the split it was trained on."""
    trials: list[Row] = []
    epochs: list[Row] = []
    for record, split in records:
        named = {"split": split} if split else {}
        of = _counted({name: record[name] for name in ("depth", "run", "pretrained")})
        plain = _counted(_plain(record))
        key = plain.pop("key")
        seconds = (record.get("timing") or {}).get("seconds")
        trials.append({**named, **plain, "seconds": seconds, "key": key})
        epochs += [{**named, **of, **_counted(row)} for row in record["curve"]]
    return {"trials": trials, "epochs": epochs}


def _of_study(directory: Path) -> dict[str, list[Row]]:
    path = directory / "results.json"
    results = check_results(read_json(path), where=str(path))
    sweeps = [(results, str(results["split"]["rule"]))]
    if results["ungrouped"] is not None:
        other = results["ungrouped"]
        sweeps.append((other, str(other["split"]["rule"])))
    split_named = len(sweeps) > 1
    records = [
        (record, rule if split_named else "") for part, rule in sweeps for record in part["trials"]
    ]
    tables = of_trials(records)
    tables["depths"] = [
        ({"split": rule} if split_named else {}) | depth_row(row)
        for part, rule in sweeps
        for row in part["sweep"]
    ]
    networks = [("unpruned", results["chosen"]), ("pruned", results["pruned"])]
    measured = [
        (name, side, part[side])
        for name, part in networks
        if part
        for side in ("val", "test")
        if part[side]
    ]
    tables["networks"] = [
        {"network": name, "side": side}
        | {key: value[key] for key in ("num_images", "accuracy", "accuracy_low", "accuracy_high")}
        | {"balanced_accuracy": balanced(value), "majority_accuracy": majority(value)}
        for name, side, value in measured
    ]
    tables["classes"] = [
        {"network": name, "side": side, **score}
        for name, side, value in measured
        for score in value["per_class"]
    ]
    cost = results["cost"]
    if cost is not None:
        tables["costs"] = [
            {"network": name, **cost[at]}
            for name, at in (("unpruned", "before"), ("pruned", "after"))
            if cost[at]
        ]
        tables["latency"] = [_flat(row) for row in cost["latency"] or []]
    if (directory / "ledger.csv").exists():
        tables["units"] = _ledger_rows(directory / "ledger.csv")
    return tables


def depth_row(row: Row) -> Row:
    """A row of a sweep with its comparison to the best depth in columns of their own."""
    odd = ("to_best", "timing", "random_frozen")
    flat = {name: value for name, value in row.items() if name not in odd}
    flat["random_frozen"] = ", ".join(row["random_frozen"] or ())
    against = row["to_best"] or {}
    for name in ("difference", "low", "high", "p_value"):
        flat[f"to_best_{name}"] = against.get(name)
    for name in ("indistinguishable", "is_best"):
        flat[name] = against.get(name)
    flat["seconds_per_trial"] = (row["timing"] or {}).get("seconds_per_trial")
    return flat


def _of_search(directory: Path) -> dict[str, list[Row]]:
    answer = _read(directory / "search.json", _SEARCH)
    trials = [_search_row(row) for row in answer["trials"]]
    epochs = [
        _counted({"number": row["number"], **row["parameters"], "run": run["run"], **epoch})
        for row in answer["trials"]
        for run in row["runs"]
        for epoch in run["curve"]
    ]
    tables = {"trials": trials, "epochs": epochs}
    if answer.get("cells"):
        tables = {"cells": [_counted(_plain(row)) for row in answer["cells"]], **tables}
    return tables


def _search_row(row: Row) -> Row:
    kept = {
        name: value
        for name, value in row.items()
        if name not in ("parameters", "runs", "timing", "number")
    }
    return _counted({"number": row["number"], **row["parameters"], **kept, **row["timing"]})


def _of_grid(directory: Path) -> dict[str, list[Row]]:
    answer = _read(directory / "grid.json", GRID)
    return {"cells": answer["cells"], "angles": answer["by_angle"]}


def _of_paper(directory: Path) -> dict[str, list[Row]]:
    answer = _read(directory / "paper.json", _PAPER)
    parts = {
        "table 1": answer["table1"],
        "table 2": answer["table2"],
        "table 3, accuracy": answer["table3"]["accuracy"],
        "table 3, units": answer["table3"]["units"],
    }
    compared = [{"table": part, **_plain(row)} for part, rows in parts.items() for row in rows]
    trials = [
        {"depth": row["depth"], "pretrained": row["pretrained"], "run": run}
        | {"test_accuracy": test, "val_accuracy": val}
        for row in answer["table1"]
        for run, (test, val) in enumerate(zip(row["runs"], row["val_runs"], strict=True), start=1)
    ]
    return {"published": compared, "trials": trials, "cells": _cells(answer)}


def _cells(answer: Row) -> list[Row]:
    """The cells of the paper's grid in every way that it was run."""
    ways = answer["grid"]["ways"]
    return [{"way": way, **_plain(row)} for way, found in ways.items() for row in found["cells"]]


def _of_training(directory: Path) -> dict[str, list[Row]]:
    return of_trials([(_read(directory / "training.json", TRIAL), "")])


_MAKERS: dict[str, Callable[[Path], dict[str, list[Row]]]] = dict(
    zip(FILES, (_of_study, _of_search, _of_grid, _of_paper, _of_training), strict=True)
)


def _counted(row: Row) -> Row:
    """A row as people count: the files number runs, epochs, trials and rungs from 0.

    >>> _counted({"run": 0, "best_epoch": None, "depth": 0})
    {'run': 1, 'best_epoch': None, 'depth': 0}
    """
    return {
        name: value + 1 if name in COUNTED and value is not None else value
        for name, value in row.items()
    }


def _read(path: Path, kind: Row) -> Row:
    found = read_json(path)
    if isinstance(found, dict) and CHECKSUM in found:
        found = unseal(found)
        if found is None:
            raise InputError(f"{path}: damaged: the checksum differs; run the command again")
    advice = "written by another version, or damaged"
    return check_shape(found, kind, where=str(path), advice=advice)


def _plain(row: Row) -> Row:
    """A row without what is not one value."""
    return {name: value for name, value in row.items() if not isinstance(value, dict | list)}


def _flat(row: Row) -> Row:
    """Objects within a row as columns of their own: `before_ms.median` is `before_ms_median`."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": number for inner, number in value.items()}
        else:
            flat[name] = value
    return flat


def _ledger_rows(path: Path) -> list[Row]:
    kinds: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("unit", "survivor"), int),
        **dict.fromkeys(("norm", "angle_deg", "span_deg"), float),
        **dict.fromkeys(("dead", "constant"), lambda text: text == "1"),
    }
    with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
        return [
            {
                name: kinds.get(name, str)(text) if text or name not in kinds else None
                for name, text in row.items()
            }
            for row in csv.DictReader(file)
        ]
