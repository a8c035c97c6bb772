"""A probe's record as `run_probe` makes it, with numbers that are easy to recognise."""

from __future__ import annotations

from typing import Any


def _row(depth: int, name: str, share: float, accuracy: float) -> dict[str, Any]:
    row: dict[str, Any] = {"depth": depth, "name": name, "share": share, "random_frozen": []}
    row |= {"num_features": 100 + depth, "ridge": 0.316, "temperature": 0.1, "val_loss": 0.9}
    for start, away in (("", 0.0), ("train_", 0.01), ("val_", -0.03)):
        middle = round(accuracy + away, 4)
        row |= {
            f"{start}accuracy" if start else "accuracy": middle,
            f"{start}low": middle - 0.04,
            f"{start}high": middle + 0.04,
        }
    return row


def _network(name: str, parameters: int, best: float) -> dict[str, Any]:
    places = (
        (0, "all trained", 0.0, 0.17),
        (9, "up to stage 1 block 2", 0.4, 0.43),
        (20, "head only", 1.0, best),
    )
    return {
        "backbone": name,
        "weights": {"sentence": "20 of 21 layers pretrained"},
        "num_parameters": parameters,
        "input": {"size": 224, "resize": "straight", "mean": [0.5] * 3, "std": [0.5] * 3},
        "seconds": 21.4,
        "depths": [_row(*place) for place in places],
    }


def example_probe() -> dict[str, Any]:
    """Two networks at three depths, one that was left out."""
    suggestion = {"best_depth": 20, "freeze": [9, 0, 20], "low": 0.0, "high": 0.0}
    return {
        "schema": 1,
        "data": {
            "name": "photos",
            "classes": ["cat", "dog"],
            "num_train": 405,
            "num_val": 135,
            "num_groups": 175,
        },
        "majority": {"class": "dog", "accuracy": 0.148, "low": 0.1, "high": 0.22},
        "networks": [
            _network("squeezenet1_1", 735_000, 0.751),
            _network("tf_efficientnet_lite0", 3_400_000, 0.823),
        ],
        "skipped": [{"backbone": "resnet50", "reason": "no pretrained weights for resnet50"}],
        "suggestions": [
            {
                **suggestion,
                "backbone": "tf_efficientnet_lite0",
                "accuracy": 0.823,
                "difference": 0.0,
                "reason": "the best of the networks probed",
            },
            {
                **suggestion,
                "backbone": "squeezenet1_1",
                "accuracy": 0.751,
                "difference": -0.072,
                "low": -0.1,
                "high": 0.01,
                "reason": "the smallest that is not significantly worse than the best",
            },
        ],
        "seconds": 48.2,
        "labels": {
            "backbone": "tf_efficientnet_lite0",
            "depth": 20,
            "place": "head only",
            "num_images": 540,
            "num_flagged": 3,
            "images": [
                {
                    "name": f"dog/{number}.jpg",
                    "side": "train",
                    "place": number,
                    "label": "dog",
                    "group": None,
                    "probability": 0.001 + 0.2 * number,
                    "suggested": "cat",
                    "suggested_probability": 0.97,
                    "flagged": True,
                    "thumbnail": f"thumbnails/label-{number}.jpg",
                }
                for number in range(2)
            ],
            "classes": [
                {"class": "cat", "num_images": 300, "num_flagged": 0}
                | {"suggested": None, "num_suggested": 0},
                {"class": "dog", "num_images": 240, "num_flagged": 3}
                | {"suggested": "cat", "num_suggested": 2},
            ],
            "duplicates": [
                {"names": ["cat/1.jpg", "dog/9.jpg"], "labels": ["cat", "dog"], "identical": True}
            ],
        },
        "config": {"backbones": ["squeezenet1_1", "tf_efficientnet_lite0"], "seed": 0},
        "versions": {"secateurs": "0.1.0"},
    }
