"""What a results file must hold before a page is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.shape import Maybe, check_shape, kind_words
from secateurs.study.records.kinds import EVALUATION, NUMBER, TRIAL

SCHEMA = 2
FRONTIER_SCHEMA = 3  # of a study over several networks, which has a check of its own
OLDEST = 1  # without what merged; the page says so

ADVICE = "the study may not have finished: run it again, it does only what is missing"

_SPREAD: dict[str, Any] = {"min": NUMBER, "median": NUMBER, "max": NUMBER}
_COST: dict[str, Any] = {
    "num_parameters": NUMBER,
    "macs": NUMBER,
    "activation_bytes": Maybe(float, absent=True),
    "file_bytes": NUMBER,
    "onnx_bytes": Maybe(float, absent=True),
}
_QUARTILES: dict[str, Any] = {"median": NUMBER, "p25": NUMBER, "p75": NUMBER}
_ANSWER: dict[str, Any] = {"label": str, "probability": NUMBER}
SPLIT: dict[str, Any] = {
    "split": {
        "rule": str,
        "seed": Maybe(int),
        "counts": {"train": int, "val": int, "test": int},
        "per_class": {"train": [int], "val": [int], "test": [int]},
        "num_groups": Maybe(int, absent=True),
        "leakage": {
            "num_test": int,
            "same_group": Maybe(int),
            "duplicate": int,
            "near_duplicate": int,
        },
    },
}
SWEEP: dict[str, Any] = {
    "trials": [TRIAL],
    "sweep": [
        {
            "depth": int,
            "pretrained": bool,
            "num_runs": int,
            "random_frozen": Maybe([str], absent=True),
            "val_accuracy_mean": NUMBER,
            "val_accuracy_std": NUMBER,
            "val_accuracy_low": NUMBER,
            "val_accuracy_high": NUMBER,
            "timing": Maybe({"seconds_per_trial": NUMBER}, absent=True),
            "to_best": Maybe(
                {"difference": float, "low": NUMBER, "high": NUMBER, "p_value": NUMBER}
                | {"indistinguishable": bool, "is_best": bool},
                absent=True,
            ),
        }
    ],
    "recommendation": Maybe({"depth": int, "best": int, "sentences": [str]}, absent=True),
}
DATA: dict[str, Any] = {
    "name": str,
    "num_images": int,
    "classes": [str],
    "per_class": [int],
    "height_px": Maybe(_SPREAD, absent=True),
    "width_px": Maybe(_SPREAD, absent=True),
    "bad": [{"name": str, "reason": str, "detail": Maybe(str)}],
    "exact": [[str]],
    "near": [[str]],
    "conflicts": [[str]],
    "findings": [str],
}
_RESULTS: dict[str, Any] = {
    "config": dict,
    "data": DATA,
    **SPLIT,
    "weights": {"source": str, "sentence": str, "loaded": [str], "fresh": [str]},
    **SWEEP,
    "ungrouped": Maybe(SPLIT | SWEEP, absent=True),
    "chosen": Maybe(
        {"key": str, "depth": int, "run": int, "reason": str}
        | {"val": Maybe(EVALUATION), "test": Maybe(EVALUATION)}
    ),
    "pruned": Maybe(
        {
            "rule": str,
            "compensation": Maybe(str),
            "low_deg": Maybe(float, absent=True),
            "high_deg": Maybe(float, absent=True),
            "layers": [
                {
                    "layer": str,
                    "num_units": int,
                    "num_kept": int,
                    "num_dead": Maybe(int, absent=True),
                    "angles": Maybe(
                        {"normalise": str, "num_units": int, "num_live": int}, absent=True
                    ),
                    "angle_deg_quantiles": Maybe(dict, absent=True),
                    "angle_deg_histogram": Maybe({"edges": [float], "counts": [int]}, absent=True),
                }
            ],
            "val": Maybe(EVALUATION),
            "test": Maybe(EVALUATION),
        },
        absent=True,
    ),
    "not_pruned": Maybe(str, absent=True),
    "cost": Maybe(
        {
            "before": _COST,
            "after": Maybe(_COST, absent=True),
            "onnx_max_abs_difference": Maybe(float, absent=True),
            "onnx_note": Maybe(str, absent=True),
            "latency": Maybe(
                [
                    {
                        "runtime": str,
                        "device": str,
                        "batch": int,
                        "before_ms": _QUARTILES,
                        "after_ms": Maybe(_QUARTILES, absent=True),
                        "ratio": Maybe(float, absent=True),
                    }
                ],
                absent=True,
            ),
            "sentence": Maybe(str, absent=True),
        },
        absent=True,
    ),
    "samples": Maybe(
        [
            {"name": str, "thumbnail": Maybe(str), "true": str}
            | {"before": Maybe(_ANSWER), "after": Maybe(_ANSWER, absent=True)}
        ],
        absent=True,
    ),
    "merged": Maybe(
        {
            "side": str,
            "normalise": Maybe(str, absent=True),
            "num_images": int,
            "layers": [
                {
                    "layer": str,
                    "num_groups": int,
                    "num_merged": int,
                    "groups": [
                        {"num_merged": int, "angle_deg_median": float, "angle_deg_max": float}
                        | {
                            "units": [
                                {"unit": int, "angle_deg": float}
                                | {"pictures": [int], "activations": [float]}
                            ]
                        }
                    ],
                }
            ],
            "pictures": [{"name": str, "thumbnail": Maybe(str), "true": str}],
        },
        absent=True,
    ),
    "files": Maybe(dict, absent=True),
    "versions": dict,
    "timing": Maybe(dict, absent=True),
}


def check_results(results: Any, *, where: str = "results") -> dict[str, Any]:
    """Return `results` if it follows schema 1 or 2, keys that may be absent filled with None.

    Raises `InputError` that names the first missing or wrong key, or the schema found.
    """
    if not isinstance(results, dict):
        raise InputError(f"{where}: expected an object of results, got {kind_words(results)}")
    found = cast("dict[str, Any]", results).get("schema")
    if found is None:
        raise InputError(f"{where}: no key 'schema'; this is not a results file of a study")
    if not isinstance(found, int) or isinstance(found, bool) or found < OLDEST:
        raise InputError(f"{where}: schema is {found!r}, expected {OLDEST} to {SCHEMA}")
    if found > SCHEMA:
        raise InputError(
            f"{where}: schema {found} is none that this version of secateurs reads (up to "
            f"{SCHEMA}, and {FRONTIER_SCHEMA} of a study over several networks); upgrade secateurs"
        )
    checked = check_shape(results, _RESULTS, where=where, advice=ADVICE)
    num_classes = len(checked["data"]["classes"])
    for at, evaluation in _evaluations(checked):
        rows = evaluation["confusion"]
        if len(rows) != num_classes or any(len(row) != num_classes for row in rows):
            raise InputError(
                f"{where}: {at}.confusion should be {num_classes} x {num_classes}, one row and "
                "one column a class"
            )
        _same_length(evaluation["per_class"], num_classes, f"{at}.per_class", where)
    _same_length(checked["data"]["per_class"], num_classes, "data.per_class", where)
    for side, values in checked["split"]["per_class"].items():
        _same_length(values, num_classes, f"split.per_class.{side}", where)
    for index, layer in enumerate(checked["pruned"]["layers"] if checked["pruned"] else []):
        histogram = layer["angle_deg_histogram"]
        if histogram and len(histogram["edges"]) != len(histogram["counts"]) + 1:
            raise InputError(
                f"{where}: pruned.layers[{index}].angle_deg_histogram has "
                f"{len(histogram['edges'])} edges, expected {len(histogram['counts']) + 1}"
            )
    _check_merged(checked["merged"], where)
    return checked


def _check_merged(merged: dict[str, Any] | None, where: str) -> None:
    """Raise InputError unless every group has a unit, and units name pictures that are there."""
    for at, layer in enumerate(merged["layers"] if merged else []):
        for number, group in enumerate(layer["groups"]):
            place = f"{where}: merged.layers[{at}].groups[{number}]"
            if not group["units"]:
                raise InputError(f"{place}.units is empty; the survivor should be its first")
            for unit in group["units"]:
                shown, total = unit["pictures"], len(merged["pictures"] if merged else [])
                if len(unit["activations"]) != len(shown):
                    raise InputError(
                        f"{place}: unit {unit['unit']} has {len(unit['activations'])} "
                        f"activations, expected {len(shown)}, one a picture"
                    )
                if any(not 0 <= picture < total for picture in shown):
                    raise InputError(
                        f"{place}: unit {unit['unit']} names a picture that is not among the "
                        f"{total} of merged.pictures"
                    )


def load_results(study_dir: Path) -> dict[str, Any]:
    """Read and check `results.json` of a study's directory.

    Raises `InputError` when it is missing, broken, of another schema, or lacks a key.
    """
    path = study_dir / "results.json"
    if not path.exists():
        raise InputError(
            f"{study_dir}: no results.json here; give the --out directory of a finished study"
        )
    return check_results(read_json(path), where=str(path))


def _evaluations(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every evaluation that is there, with where it lies."""
    places = [(top, side) for top in ("chosen", "pruned") for side in ("val", "test")]
    return [
        (f"{top}.{side}", results[top][side])
        for top, side in places
        if results[top] and results[top][side]
    ]


def _same_length(values: list[Any], expected: int, at: str, where: str) -> None:
    if len(values) != expected:
        raise InputError(f"{where}: {at} has {len(values)} entries, expected {expected}")
