"""A realistic made-up study of 675 faces, consistent with itself, for tests of the report."""

from __future__ import annotations

import hashlib
import io
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ["Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
PER_CLASS = [100, 75, 100, 100, 100, 100, 100]
SIDES = {
    "train": [60, 45, 60, 60, 60, 60, 60],
    "val": [20, 15, 20, 20, 20, 20, 20],
    "test": [20, 15, 20, 20, 20, 20, 20],
}
RECALL = [0.6, 0.5, 0.45, 0.9, 0.65, 0.55, 0.85]


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a proportion."""
    z, p = 1.959963985, right / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return middle - half, middle + half


def evaluation(confusion: np.ndarray) -> dict[str, Any]:
    """An evaluation as in docs/results.md, all numbers derived from the confusion matrix."""
    total, right = int(confusion.sum()), int(confusion.trace())
    low, high = wilson(right, total)
    scores: list[dict[str, Any]] = []
    for index, name in enumerate(CLASSES):
        true, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
        hit = int(confusion[index, index])
        negatives = total - true
        scores.append(
            {
                "class": name,
                "precision": hit / predicted if predicted else None,
                "recall": hit / true if true else None,
                "specificity": (negatives - (predicted - hit)) / negatives if negatives else None,
                "num_true": true,
                "num_predicted": predicted,
            }
        )
    silent = [score["class"] for score in scores if score["num_predicted"] == 0]
    return {
        "num_images": total,
        "accuracy": right / total,
        "accuracy_low": low,
        "accuracy_high": high,
        "majority_accuracy": max(score["num_true"] for score in scores) / total,
        "balanced_accuracy": float(np.mean([s["recall"] for s in scores if s["num_true"]])),
        "loss": 1.0217,
        "confusion": confusion.tolist(),
        "per_class": scores,
        "notes": [f"class {name} was never predicted" for name in silent],
    }


def _confusion(rng: np.random.Generator, counts: list[int]) -> np.ndarray:
    rows = []
    for index, total in enumerate(counts):
        odds = rng.dirichlet(np.full(len(CLASSES), 0.8)) * (1 - RECALL[index])
        odds[index] += RECALL[index]
        rows.append(rng.multinomial(total, odds / odds.sum()))
    return np.array(rows)


def _pruned_confusion(rng: np.random.Generator, before: np.ndarray) -> np.ndarray:
    """A few images change their answer: some to wrong, some to right."""
    after = before.copy()
    for _ in range(9):
        row = int(rng.integers(len(CLASSES)))
        source, target = rng.choice(len(CLASSES), 2, replace=False)
        if after[row, source]:
            after[row, source] -= 1
            after[row, target] += 1
    return after


def _with_right(confusion: np.ndarray, right: int) -> np.ndarray:
    """The same matrix with `right` images on its diagonal: answers moved within their rows."""
    moved = confusion.copy()
    row = 0
    while int(moved.trace()) != right:
        row = (row + 1) % len(CLASSES)
        other = int(np.argmax(np.where(np.arange(len(CLASSES)) == row, -1, moved[row])))
        step = 1 if moved.trace() < right else -1
        if (moved[row, other] if step > 0 else moved[row, row]) > 0:
            moved[row, row] += step
            moved[row, other] -= step
    return moved


def _curve(rng: np.random.Generator, top: float, epochs: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch in range(epochs):
        done = 1 - math.exp(-(epoch + 1) / 3.2)
        noise = rng.normal(0, 0.012, 4)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 1.95 - 1.75 * done * (0.45 + 0.55 * top) + abs(noise[0]),
                "train_accuracy": min(1.0, 0.14 + 0.86 * done * min(1, 1.35 * top) + noise[1] / 2),
                "val_loss": 1.95 - 1.35 * done * top + 0.012 * max(0, epoch - 7) + noise[2],
                "val_accuracy": round((0.14 + (top - 0.14) * done + 1.5 * noise[3]) * 135) / 135,
            }
        )
    return rows


def _trial(
    rng: np.random.Generator, *, depth: int, run: int, pretrained: bool, top: float, epochs: int
) -> dict[str, Any]:
    curve = _curve(rng, top, epochs)
    best = max(curve, key=lambda row: row["val_accuracy"])
    key = hashlib.sha256(f"{depth} {run} {pretrained}".encode()).hexdigest()
    return {
        "key": key, "depth": depth, "run": run, "seed": run, "pretrained": pretrained,
        "lr": 1e-4, "epochs_run": epochs, "best_epoch": best["epoch"], "stopped": "completed",
        "val_accuracy": best["val_accuracy"], "val_loss": best["val_loss"], "curve": curve,
        "num_trained_parameters": 54_575_111, "timing": {"seconds": 21.3},
    }  # fmt: skip


def _sweep_row(trials: list[dict[str, Any]]) -> dict[str, Any]:
    values = np.array([trial["val_accuracy"] for trial in trials])
    mean, std = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    # Student's t with one degree of freedom, as for two runs.
    half = 12.706 * std / math.sqrt(len(values)) if std is not None else None
    return {
        "depth": trials[0]["depth"],
        "pretrained": trials[0]["pretrained"],
        "num_runs": len(values),
        "val_accuracy_mean": mean,
        "val_accuracy_std": std,
        "val_accuracy_low": max(0.0, mean - half) if half is not None else None,
        "val_accuracy_high": min(1.0, mean + half) if half is not None else None,
        "timing": {"seconds_per_trial": 21.0},
    }


def _face(path: Path, mood: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_drawn_face(mood, seed))


@cache
def _drawn_face(mood: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    ground = tuple(int(v) for v in rng.integers(90, 230, 3))
    image = Image.new("RGB", (128, 128), ground)
    draw = ImageDraw.Draw(image)
    skin = [(241, 194, 150), (198, 134, 66), (141, 85, 36), (255, 219, 172)][seed % 4]
    draw.ellipse((24, 18, 104, 116), fill=skin)
    for x in (50, 78):
        draw.ellipse((x - 6, 50, x + 6, 60), fill="white")
        draw.ellipse((x - 3, 52, x + 3, 58), fill="black")
    if mood in (3, 6):
        draw.chord((46, 70, 82, 100), 0, 180, fill=(120, 20, 30))
    else:
        draw.arc((46, 82, 82, 104), 180, 360, fill=(90, 20, 20), width=4)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _samples(study_dir: Path, rng: np.random.Generator, number: int) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    for index in range(number):
        true = index % len(CLASSES)
        other = (true + 1 + index % 3) % len(CLASSES)
        before = true if index % 4 else other
        after = true if index % 5 else other
        _face(study_dir / "thumbnails" / f"{index}.jpg", true, index)
        samples.append(
            {
                "name": f"{CLASSES[true]}/{index:03d}_{index % 9}.png",
                "thumbnail": f"thumbnails/{index}.jpg",
                "true": CLASSES[true],
                "before": {
                    "label": CLASSES[before],
                    "probability": float(rng.uniform(0.45, 0.98)),
                },
                "after": {"label": CLASSES[after], "probability": float(rng.uniform(0.4, 0.95))},
            }
        )
    return samples


def _merged(study_dir: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Four groups of one layer, on 20 training images."""
    pictures: list[dict[str, Any]] = []
    for index in range(20):
        file = f"thumbnails/merged-{index}.jpg"
        _face(study_dir / file, index % 7, 100 + index)
        name = f"{CLASSES[index % 7]}/{index:03d}_0.png"
        pictures.append({"name": name, "thumbnail": file, "true": CLASSES[index % 7]})
    groups: list[dict[str, Any]] = []
    for number, size in enumerate((1840, 320, 12, 1)):
        angles = [0.0, *sorted(rng.uniform(4, 60, min(size, 5)).tolist())]
        angles[-1] = 171.5 if size == 12 else angles[-1]
        units = [
            {
                "unit": 100 * number + 7 * at,
                "angle_deg": angle,
                "pictures": [(number + at // 2 + 3 * k) % 20 for k in range(6 if at < 5 else 2)],
                "activations": [9.5 / (1 + 0.2 * k + 0.1 * at) for k in range(6 if at < 5 else 2)],
            }
            for at, angle in enumerate(angles)
        ]
        far = max(min(angle, 180 - angle) for angle in angles)
        groups.append(
            {
                "num_merged": size,
                "angle_deg_median": 0.6 * far,
                "angle_deg_max": far,
                "units": units,
            }
        )
    layer = {"layer": "fc7", "num_groups": 120, "num_merged": 3478, "groups": groups}
    return {
        "side": "train",
        "normalise": "minmax",
        "num_images": 405,
        "layers": [layer],
        "pictures": pictures,
    }


def example_results(study_dir: Path, *, seed: int = 0) -> dict[str, Any]:
    """Results as docs/results.md describes them; thumbnails are written below `study_dir`."""
    rng = np.random.default_rng(seed)
    trials = [
        _trial(rng, depth=depth, run=run, pretrained=True, top=top + 0.01 * run, epochs=12)
        for depth, top in ((3, 0.63), (4, 0.68), (5, 0.72))
        for run in (0, 1)
    ]
    trials += [
        _trial(rng, depth=0, run=run, pretrained=False, top=0.24, epochs=12) for run in (0, 1)
    ]
    mixed = [dict(trial, val_accuracy=min(1.0, trial["val_accuracy"] + 0.06)) for trial in trials]
    chosen = max(trials, key=lambda trial: trial["val_accuracy"])
    confusion = {side: _confusion(rng, SIDES[side]) for side in ("val", "test")}
    confusion["val"] = _with_right(confusion["val"], round(135 * chosen["val_accuracy"]))
    edges = list(range(0, 181, 5))
    density = np.exp(-0.5 * ((np.array(edges[:-1]) + 2.5 - 15) / 7) ** 2)
    density[18:] += 2e-4
    histogram = np.round(density / density.sum() * 4096 * 4095 / 2).astype(int).tolist()
    before = {"num_parameters": 57_032_519, "macs": 710_147_072, "file_bytes": 228_150_000}
    after = {"num_parameters": 40_738_000, "macs": 693_900_000, "file_bytes": 162_973_000}
    before["activation_bytes"] = after["activation_bytes"] = 1_404_928
    latency = [
        (runtime, batch, *times)
        for runtime, batch, *times in (
            ("pytorch", 1, 14.2, 10.9),
            ("onnxruntime", 1, 9.04, 6.21),
            ("pytorch", 32, 171.0, 169.0),
            ("onnxruntime", 32, 140.0, 131.0),
        )
    ]
    return {
        "schema": 2,
        "config": {
            "data": "faces", "preset": "quick", "backbone": "alexnet", "depths": [3, 4, 5],
            "runs": 2, "epochs": 12, "lr": 0.0001, "batch_size": 64, "views": 4,
            "weights": "auto", "split": "random", "group_by": "^(\\d+)_", "seed": 0,
        },
        "data": {
            "name": "faces", "num_images": 675,
            "classes": list(CLASSES), "per_class": list(PER_CLASS),
            "height_px": {"min": 256, "median": 256, "max": 256},
            "width_px": {"min": 256, "median": 256, "max": 256},
            "bad": [{"name": "Angry/x.jpg", "reason": "truncated", "detail": "ends in row 12"}],
            "exact": [["Angry/004_1.png", "Angry/004_7.png"]],
            "near": [["Sad/010_2.png", "Neutral/010_3.png"]],
            "conflicts": [["Sad/010_2.png", "Neutral/010_3.png"]],
            "findings": [
                "1 file cannot be used: Angry/x.jpg is truncated",
                "1 group of images has identical pixels",
                "1 pair of near duplicates carries two labels",
            ],
            "fingerprint": "0" * 64,
        },
        "split": {
            "rule": "random by group", "seed": 0,
            "counts": {side: sum(counts) for side, counts in SIDES.items()},
            "per_class": {side: list(counts) for side, counts in SIDES.items()},
            "names": {"train": ["Angry/000_0.png"], "val": [], "test": []},
            "num_groups": 75,
            "leakage": {"num_test": 135, "same_group": 0, "duplicate": 0, "near_duplicate": 0},
        },
        "weights": {
            "source": "package index",
            "sentence": "5 of 8 layers pretrained, fc6 and fc7 new (fc8 is the new head)",
            "loaded": ["conv1", "conv2", "conv3", "conv4", "conv5"],
            "fresh": ["fc6", "fc7", "fc8"], "sha256": "1" * 64, "detail": "",
        },
        "trials": trials,
        "sweep": [_sweep_row(trials[start : start + 2]) for start in (0, 2, 4, 6)],
        "ungrouped": {
            "split": {
                "rule": "random, groups ignored", "seed": 0,
                "counts": {side: sum(counts) for side, counts in SIDES.items()},
                "per_class": {side: list(counts) for side, counts in SIDES.items()},
                "num_groups": 75,
                "leakage": {
                    "num_test": 135, "same_group": 108, "duplicate": 0, "near_duplicate": 4
                },
            },
            "trials": mixed,
            "sweep": [_sweep_row(mixed[start : start + 2]) for start in (0, 2, 4, 6)],
            "recommendation": None,
        },
        "chosen": {
            "key": chosen["key"], "depth": chosen["depth"], "run": chosen["run"],
            "reason": "Depth 5 has the highest mean validation accuracy",
            "val": evaluation(confusion["val"]), "test": evaluation(confusion["test"]),
        },
        "pruned": {
            "rule": "pairwise", "compensation": "least_squares",
            "low_deg": 15.0, "high_deg": 165.0,
            "layers": [
                {
                    "layer": "fc7", "path": "classifier.4", "num_units": 4096, "num_kept": 120,
                    "num_dead": 498,
                    "angles": {"normalise": "minmax", "num_units": 3598, "num_live": 3598},
                    "angle_deg_quantiles": {"p01": 3.0, "p50": 14.0, "p99": 28.0},
                    "angle_deg_histogram": {"edges": edges, "counts": histogram},
                }
            ],
            "parity": 1e-6,
            "val": evaluation(_pruned_confusion(rng, confusion["val"])),
            "test": evaluation(_pruned_confusion(rng, confusion["test"])),
            "timing": {"seconds": 3.0},
        },
        "cost": {
            "before": {**before, "onnx_bytes": 228_170_000},
            "after": {**after, "onnx_bytes": 162_990_000},
            "onnx_max_abs_difference": 3e-6,
            "latency": [
                {
                    "runtime": runtime, "device": "cpu", "batch": batch,
                    "before_ms": {"median": one, "p25": 0.97 * one, "p75": 1.05 * one},
                    "after_ms": {"median": two, "p25": 0.98 * two, "p75": 1.04 * two},
                    "ratio": two / one,
                }
                for runtime, batch, one, two in latency
            ],
            "sentence": "The pruned network answers a single image in 69% of the time.",
        },
        "samples": _samples(study_dir, rng, 18),
        "merged": _merged(study_dir, rng),
        "files": {
            "model": "model/model.json", "onnx": "model/model.onnx", "report": "report.html",
        },
        "versions": {
            "secateurs": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "torchvision": "0.29.2",
            "numpy": "2.4.6", "machine": "2 cores, x86_64",
        },
        "timing": {"audit": 3.0, "sweep": 100.0, "total": 120.0},
    }  # fmt: skip


def example_sweep(results: dict[str, Any]) -> dict[str, Any]:
    """The same results as a sweep leaves them: it ends with the choice."""
    return results | {
        "recommendation": {
            "depth": 5,
            "best": 4,
            "sentences": [
                "Freeze 5 layers: 71.5% mean validation accuracy.",
                "Depth 4 has the best mean; the 0.4 points between them may be chance.",
            ],
            "timing": {"sentence": "A training at depth 5 takes 14 s; 22 s at 3."},
        },
        "pruned": None,
        "cost": None,
        "samples": None,
        "merged": None,
    }
