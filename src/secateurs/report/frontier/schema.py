"""What the results of a study over several networks must hold before a page is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.files import read_json
from secateurs.report.study.schema import DATA, FRONTIER_SCHEMA, SPLIT, SWEEP
from secateurs.shape import Maybe, check_shape
from secateurs.study.records.kinds import EVALUATION, NUMBER, TRIAL

SCHEMA = FRONTIER_SCHEMA
Record = dict[str, Any]

_PROBED: dict[str, Any] = {
    "depth": int,
    "name": str,
    "share": float,
    "num_features": int,
    "ridge": float,
    "random_frozen": [str],
    "accuracy": float,
    "low": float,
    "high": float,
    "train_accuracy": float,
    "train_low": float,
    "train_high": float,
    "val_accuracy": float,
    "val_low": float,
    "val_high": float,
}
_GAP: dict[str, Any] = {"difference": float, "low": float, "high": float, "p_value": float}
_LABEL: dict[str, Any] = {
    "name": str,
    "label": str,
    "probability": float,
    "suggested": str,
    "suggested_probability": float,
    "thumbnail": Maybe(str),
}
_LABELS: dict[str, Any] = {
    "backbone": str,
    "place": str,
    "num_images": int,
    "num_flagged": int,
    "images": [_LABEL],
    "classes": [
        {"class": str, "num_images": int, "num_flagged": int, "suggested": Maybe(str)}
        | {"num_suggested": int}
    ],
    "duplicates": [{"names": [str], "labels": [str], "identical": bool}],
}
_NETWORK_TRUST: dict[str, Any] = {
    "confidence": {"temperature": float, "threshold": NUMBER, "target": float},
    "uncalibrated": {"error": float, "bins": [dict]},
    "calibrated": {"error": float, "bins": [dict]},
    "coverage": [dict],
    "answered": Maybe(dict),
}
_PICTURE: dict[str, Any] = {"name": str, "label": str, "thumbnail": str, "answers": dict}
_TRUST: dict[str, Any] = {
    "side": str,
    "num_images": int,
    "num_groups": Maybe(int),
    "target": float,
    "networks": {"before": _NETWORK_TRUST, "after": Maybe(_NETWORK_TRUST, absent=True)},
    "corruptions": [{"name": str, "difference": Maybe(dict)}],
    "clean": {"before": dict, "difference": Maybe(dict)},
    "rare": [{"name": str, "num_images": int, "before": dict, "difference": Maybe(dict)}],
    "groups": Maybe(dict),
    "mistakes": {
        "network": str,
        "losses": [_PICTURE],
        "confusions": [{"true": str, "answer": str, "mistakes": [_PICTURE], "likest": [_PICTURE]}],
    },
}
_INT8_MS: dict[str, Any] = {"float32": {"median": float}, "int8": {"median": float}}
_INT8: dict[str, Any] = {
    "networks": [
        {
            "name": str,
            "made_from": str,
            "reason": Maybe(str, absent=True),
            "val": Maybe(EVALUATION, absent=True),
            "agreement": Maybe(float, absent=True),
            "num_bytes": Maybe(int, absent=True),
            "float32_bytes": Maybe(int, absent=True),
            "ms": Maybe(_INT8_MS, absent=True),
        }
    ],
    "recommended": Maybe(str),
    "shipped": Maybe(
        {
            "file": str,
            "agreement": float,
            "num_bytes": int,
            "float32_bytes": int,
            "ms": _INT8_MS,
            "test": EVALUATION,
        }
    ),
    "sentences": [str],
}
_RESULTS: dict[str, Any] = {
    "config": dict,
    "options": {"max_mb": NUMBER, "max_ms": NUMBER, "batch": int, "max_loss": float},
    "data": DATA,
    **SPLIT,
    "probe": {
        "data": {"num_train": int, "num_val": int, "num_groups": Maybe(int)},
        "majority": {"accuracy": float},
        "networks": [
            {
                "backbone": str,
                "num_parameters": int,
                "seconds": float,
                "depths": [_PROBED],
                "weights": {"sentence": str},
            }
        ],
        "suggestions": [{"backbone": str, "reason": str, "freeze": [int]}],
        "skipped": [{"backbone": str, "reason": str}],
        "labels": Maybe(_LABELS, absent=True),
    },
    "reach": Maybe({"networks": [dict], "sentences": [str]}, absent=True),
    "arms": [
        {
            "backbone": str,
            "depth": int,
            "sentences": [str],
            "trials": [TRIAL],
            "sweep": SWEEP["sweep"],
        }
    ],
    "points": [
        {
            "name": str,
            "kind": str,
            "reason": Maybe(str, absent=True),
            "backbone": Maybe(str, absent=True),
            "val": Maybe(EVALUATION, absent=True),
            "cost": Maybe({"num_parameters": int, "macs": int, "file_bytes": int}, absent=True),
            "pruning": Maybe(
                {
                    "groups": [{"num_units": int, "num_kept": int}],
                    "outcome": {"relative": float},
                    "recovery": Maybe({"curve": [dict]}),
                },
                absent=True,
            ),
        }
    ],
    "latency": {"runtime": str, "device": str, "batch": int, "num_rounds": int, "ms": dict},
    "answer": {
        "name": str,
        "best": str,
        "meets": bool,
        "as_good": [str],
        "to_best": dict,
        "sentences": [str],
    },
    "cautions": [str],
    "recommended": {
        "name": str,
        "unpruned": str,
        "test": EVALUATION,
        "cost": {
            "before": dict,
            "after": dict,
            "latency": [dict],
            "sentence": str,
        },
        "files": dict,
        "refit": Maybe({"num_train": int, "num_val": int, "reason": Maybe(str)}, absent=True),
    },
    "int8": Maybe(_INT8, absent=True),
    "trust": Maybe(_TRUST, absent=True),
    "versions": dict,
    "timing": dict,
}


def load_frontier(directory: Path) -> Record | None:
    """The results of a study over several networks in a directory; None for anything else.

    Raises InputError when its results lack something.
    """
    path = directory / "results.json"
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != "frontier":
        return None
    return check_frontier(found, where=str(path))


def check_frontier(found: Any, *, where: str = "results.json") -> Record:
    """The results, checked; InputError names the field that is wrong."""
    results: Record = check_shape(found, _RESULTS, where=where)
    check_shape(
        list(results["answer"]["to_best"].values()), [_GAP], where=f"{where}: answer.to_best"
    )
    return results
