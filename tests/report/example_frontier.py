"""A made-up study over three networks, consistent with itself, for tests of its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from example_results import CLASSES, evaluation, example_results, wilson

from secateurs.study.frontier.recommendation import Limits, Network, recommend_network

DEPTHS = (0, 5, 11, 18, 26)
NAMES = ("all trained", "up to stem", "up to stage 1 block 2", "up to stage 2 block 3", "head only")
# name, kind, share of validation answers that are right, MB, ms, millions of multiply-accumulates
POINTS = (
    ("squeezenet1_1-probe", "probe", 0.66, 2.9, 4.1, 270),
    ("mobilenet_v2-probe", "probe", 0.71, 9.1, 9.5, 300),
    ("resnet50-probe", "probe", 0.74, 94.3, 41.0, 4090),
    ("mobilenet_v2", "fine-tuned", 0.79, 9.1, 9.4, 300),
    ("mobilenet_v2-macs50", "pruned", 0.785, 3.9, 6.8, 150),
    ("mobilenet_v2-macs25", "pruned", 0.70, 1.7, 5.0, 75),
)
SHARES = {"squeezenet1_1": 0.66, "mobilenet_v2": 0.72, "resnet50": 0.75}


def _evaluation(share: float, num: int) -> dict[str, Any]:
    """An evaluation with about this share of `num` images right."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for label in range(len(CLASSES)):
        total = num // len(CLASSES)
        right = round(share * total)
        confusion[label, label] = right
        confusion[label, (label + 1) % len(CLASSES)] = total - right
    return evaluation(confusion)


def _probed(backbone: str, top: float) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for place, (depth, name) in enumerate(zip(DEPTHS, NAMES, strict=True)):
        share = 0.25 + (top - 0.25) * (place / 4) ** 0.7
        low, high = wilson(round(share * 405), 405)
        val_low, val_high = wilson(round(share * 133), 133)
        rows.append(
            {
                "depth": depth,
                "name": name,
                "share": place / 4,
                "random_frozen": [],
                "num_features": 16 * 2**place,
                "ridge": 0.1,
                "accuracy": share,
                "low": low,
                "high": high,
                "train_accuracy": share,
                "train_low": low,
                "train_high": high,
                "val_accuracy": share,
                "val_low": val_low,
                "val_high": val_high,
                "val_loss": 1.0,
                "temperature": 0.15,
            }
        )
    return {
        "backbone": backbone,
        "num_parameters": 2_000_000,
        "seconds": 21.0,
        "depths": rows,
        "weights": {"sentence": "all but the head", "source": "file"},
    }


def _point(number: int, name: str, kind: str, share: float, mb: float, macs: float) -> Any:
    val = _evaluation(share, 133)
    right = round(val["accuracy"] * val["num_images"])
    order = np.random.default_rng(number).permutation(val["num_images"])
    correct = np.zeros(val["num_images"], bool)
    correct[order[:right]] = True
    row: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "backbone": name.split("-")[0],
        "val": val,
        "correct": "".join("01"[int(one)] for one in correct),
        "tensors": "0" * 64,
        "cost": {
            "num_parameters": int(mb * 1e6 / 4),
            "macs": int(macs * 1e6),
            "file_bytes": int(mb * 1e6),
        },
    }
    if kind == "pruned":
        row["made_from"] = "mobilenet_v2"
        row["pruning"] = {
            "groups": [{"num_units": 1280, "num_kept": 640}],
            "outcome": {"relative": 0.31},
            "recovery": {"curve": [{"epoch": epoch} for epoch in range(4)]},
        }
    return row


def _int8(row: dict[str, Any], ms: dict[str, Any]) -> dict[str, Any]:
    """The recommended network as an int8 file."""
    name, val = f"{row['name']}-int8", _evaluation(0.78, 133)
    own = ms[row["name"]]
    return {
        "networks": [
            {
                "name": name,
                "made_from": row["name"],
                "backbone": row["backbone"],
                "val": val,
                "agreement": 0.985,
                "num_bytes": 1_200_000,
                "float32_bytes": row["cost"]["file_bytes"],
                "ms": {"float32": own, "int8": {key: 0.4 * value for key, value in own.items()}},
            },
            {"name": "x-int8", "made_from": "x", "reason": "its values take 4.0 GiB"},
        ],
        "recommended": name,
        "shipped": {
            "file": "model/int8.onnx",
            "agreement": 0.97,
            "num_bytes": 1_300_000,
            "float32_bytes": row["cost"]["file_bytes"],
            "ms": {"float32": own, "int8": {key: 0.5 * value for key, value in own.items()}},
            "test": _evaluation(0.79, 133),
            "trained": True,
        },
        "reason": None,
        "sentences": ["With ONNX Runtime deploy model/int8.onnx."],
    }


def example_frontier(folder: Path) -> dict[str, Any]:
    """Results with three candidates, one fine-tuned network and two sizes of it."""
    old = example_results(folder)
    points = [
        _point(number, name, kind, share, mb, macs)
        for number, (name, kind, share, mb, _, macs) in enumerate(POINTS)
    ]
    ms = {
        name: {"median": one, "p25": 0.97 * one, "p75": 1.05 * one}
        for name, _, _, _, one, _ in POINTS
    }
    answer = recommend_network(
        [
            Network(
                row["name"],
                row["cost"]["file_bytes"] / 1e6,
                ms[row["name"]]["median"],
                np.frombuffer(row["correct"].encode(), np.uint8) == ord("1"),
            )
            for row in points
        ],
        Limits(5.0, None, 1.0),
    )
    final = next(row for row in points if row["name"] == answer.name)
    whole = next(row for row in points if row["name"] == "mobilenet_v2")
    return {
        "schema": 3,
        "kind": "frontier",
        "config": old["config"],
        "options": {"backbones": [], "max_mb": 5.0, "max_ms": None, "batch": 1, "max_loss": 1.0},
        "data": old["data"],
        "split": old["split"],
        "probe": {
            "data": {"num_train": 405, "num_val": 133, "num_groups": 75},
            "majority": {"accuracy": 0.15},
            "networks": [_probed(name, share) for name, share in SHARES.items()],
            "suggestions": [
                {"backbone": "mobilenet_v2", "reason": "the best of all", "freeze": [11, 18]}
            ],
            "skipped": [{"backbone": "resnet18", "reason": "no pretrained weights for it"}],
        },
        "arms": [
            {
                "backbone": "mobilenet_v2",
                "depth": 18,
                "depths": [11, 18],
                "sentences": ["Freeze 18 layers: 79.0% mean validation accuracy."],
                "weights": {"sentence": "all but the head"},
                "trials": old["trials"],
                "sweep": [
                    {**row, "depth": depth, "pretrained": True}
                    for row, depth in zip(old["sweep"], (11, 18), strict=False)
                ],
            }
        ],
        "points": [
            *points,
            {"name": "mobilenet_v2-mb1", "kind": "pruned", "reason": "budget: out of reach"},
        ],
        "latency": {
            "runtime": "pytorch",
            "device": "cpu",
            "batch": 1,
            "num_rounds": 30,
            "ms": ms,
        },
        "answer": {
            "name": answer.name,
            "best": answer.best,
            "meets": answer.meets,
            "as_good": list(answer.as_good),
            "sentences": list(answer.sentences),
            "to_best": {
                name: {
                    "difference": gap.difference,
                    "low": gap.low,
                    "high": gap.high,
                    "p_value": gap.p_value,
                }
                for name, gap in answer.to_best.items()
            },
        },
        "cautions": ["split without --group-by: the accuracy is too optimistic"],
        "recommended": {
            "name": answer.name,
            "unpruned": "mobilenet_v2",
            "test": _evaluation(0.8, 133),
            "cost": old["cost"]
            | {
                "before": old["cost"]["before"] | whole["cost"],
                "after": old["cost"]["after"] | final["cost"],
            },
            "files": {"model": "model/model.json"},
        },
        "int8": _int8(final, ms),
        "versions": old["versions"],
        "timing": {"total": 250.0},
    }
