"""What `trust_saved` measured, with numbers that are easy to recognise."""

from __future__ import annotations

from typing import Any


def _share(value: float) -> dict[str, float]:
    return {"accuracy": value, "low": value - 0.05, "high": value + 0.05}


def _both(before: float, after: float) -> dict[str, Any]:
    away = after - before
    difference = {"mean": away, "low": away - 0.03, "high": away + 0.03}
    return {"before": _share(before), "after": _share(after), "difference": difference}


def _network(error: float) -> dict[str, Any]:
    bins: list[dict[str, Any]] = [
        {
            "low": k / 10,
            "high": (k + 1) / 10,
            "num_images": 0 if k < 4 else 10 * k,
            "confidence": None if k < 4 else k / 10 + 0.05,
            "accuracy": None if k < 4 else k / 10 + 0.02,
        }
        for k in range(10)
    ]
    curve = [
        {
            "threshold": 1 - coverage / 2,
            "coverage": coverage,
            "num_images": round(135 * coverage),
            "accuracy": 1 - 0.2 * coverage,
            "low": 0.7,
            "high": 0.99,
        }
        for coverage in (1.0, 0.8, 0.6, 0.4, 0.2)
    ]
    return {
        "confidence": {"temperature": 1.3, "threshold": 0.7, "target": 0.9, "coverage": 0.65},
        "uncalibrated": {"error": 3 * error, "bins": bins},
        "calibrated": {"error": error, "bins": bins},
        "coverage": curve,
        "answered": curve[2],
    }


def _image(name: str, label: str, answer: str, probability: float) -> dict[str, Any]:
    said = {"label": answer, "probability": probability, "own": 0.01}
    return {
        "name": name,
        "place": 0,
        "label": label,
        "thumbnail": "thumbnails/mistake-0.jpg",
        "maps": {"after": "thumbnails/mistake-map-0-after.jpg"},
        "answers": {"before": {**said, "label": label}, "after": said},
    }


def example_trust() -> dict[str, Any]:
    """A pruned network against the unpruned one."""
    return {
        "schema": 1,
        "data": {"name": "photos", "classes": ["cat", "dog"]},
        "config": {"model": "study", "against": "study/unpruned", "side": "test", "target": 0.9},
        "side": "test",
        "num_images": 135,
        "num_groups": 50,
        "target": 0.9,
        "networks": {"before": _network(0.041), "after": _network(0.056)},
        "clean": _both(0.81, 0.80),
        "corruptions": [
            {"name": name, **_both(0.6, after)}
            for name, after in (("blur", 0.59), ("noise", 0.47), ("dark", 0.6))
        ],
        "rare": [
            {"name": "rarer classes", "num_images": 50, **_both(0.7, 0.66)},
            {"name": "other classes", "num_images": 85, **_both(0.85, 0.85)},
        ],
        "groups": {
            "num_groups": 50,
            "num_worse": 4,
            "num_better": 2,
            "all_wrong": {"before": 3, "after": 5},
            "rows": [{"group": "012", "num_images": 4, "before": 3, "after": 1}],
        },
        "mistakes": {
            "network": "after",
            "losses": [_image("cat/1.jpg", "cat", "dog", 0.98)],
            "confusions": [
                {
                    "true": "cat",
                    "answer": "dog",
                    "num_images": 6,
                    "num_true": 40,
                    "counts": {"before": 4, "after": 6},
                    "mistakes": [_image("cat/1.jpg", "cat", "dog", 0.98)],
                    "likest": [_image("dog/7.jpg", "dog", "dog", 0.6)],
                }
            ],
        },
        "seconds": 12.3,
    }
