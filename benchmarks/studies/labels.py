"""Labels changed on purpose: how many the probe finds, and cleanlab with the same probabilities.

Features of a pretrained network are taken once for all images. For each rate and seed that share of
the labels is changed to another class at random. Both tools get the same probabilities, those of
the probe's classifiers without each image's group. Recall is the share of the changed labels among
the images flagged; each of cleanlab's rules is compared with as many images flagged by ours.

    pip install --no-deps cleanlab
    python benchmarks/studies/labels.py PHOTOS --group-by '^(\\d+)_' \\
        --json benchmarks/measured/labels.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.predefined_splits import SIDES
from secateurs.files import cache_dir
from secateurs.fit.confidence import fit_temperature
from secateurs.fit.probe.classifier import fit_classifier
from secateurs.fit.probe.labels import scan_labels
from secateurs.fit.probe.pooling import borders, pooled_features
from secateurs.nets.depth import num_depths
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context

RATES = (0.02, 0.05, 0.10)
RULES = ("confident_learning", "prune_by_noise_rate", "prune_by_class", "both")


def features_of(data: str, config: StudyConfig) -> dict[str, Any]:
    """What the network's head receives for every image, plain and mirrored, with labels, groups."""
    context = open_context(data, config, cache=cache_dir())
    dataset, name = context.dataset, config.backbone
    model = context.new_model(seed=0, pretrained=True)
    places = borders(model, name, [num_depths(model, name) - 1])
    parts = [
        pooled_features(
            model, name, places, dataset.sides[side], mirrored=True,
            device=context.device, precision=context.precision,
        )[0]
        for side in SIDES
    ]  # fmt: skip
    rows = np.concatenate([getattr(dataset.split, side) for side in SIDES])
    return {
        "features": torch.cat(parts, 1),
        "labels": np.concatenate([dataset.sides[side].labels for side in SIDES]),
        "groups": None if dataset.groups is None else [dataset.groups[row] for row in rows],
        "num_classes": len(dataset.classes),
    }


def one(found: dict[str, Any], rate: float, seed: int) -> dict[str, Any]:
    """Recall of both tools for one draw of changed labels."""
    generator = np.random.default_rng(seed)
    labels, num_classes = found["labels"].copy(), found["num_classes"]
    changed = generator.choice(len(labels), round(rate * len(labels)), replace=False)
    labels[changed] = (labels[changed] + generator.integers(1, num_classes, len(changed))) % (
        num_classes
    )
    fitted = fit_classifier(found["features"], labels, num_classes, found["groups"])
    temperature = fit_temperature(fitted.left_out[0], labels)
    p = torch.softmax(fitted.left_out.mean(0) / temperature, 1).numpy()
    import cleanlab.filter  # here, so that --help answers without it
    import cleanlab.rank

    ours = scan_labels(p, labels)

    def recall(order: NDArray[np.int64]) -> float:
        return float(np.isin(changed, order).mean())

    result: dict[str, Any] = {
        "num_changed": len(changed),
        "num_flagged": ours.num_flagged,
        "recall": recall(ours.order[: ours.num_flagged]),
        "rules": {},
        "scores": {},
    }
    for rule in RULES:
        theirs = cleanlab.filter.find_label_issues(
            labels, p, filter_by=rule, return_indices_ranked_by="self_confidence"
        )
        result["rules"][rule] = {
            "num_flagged": len(theirs),
            "cleanlab": recall(theirs),
            "ours": recall(ours.order[: len(theirs)]),
        }
    for score in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        ranked = np.argsort(
            cleanlab.rank.get_label_quality_scores(labels, p, method=score), kind="stable"
        )
        result["scores"][score] = recall(ranked[: len(changed)])
    result["scores"]["ours"] = recall(ours.order[: len(changed)])
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the draws."""

    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 3)

    return {
        "num_changed": rows[0]["num_changed"],
        "num_flagged": mean([row["num_flagged"] for row in rows]),
        "recall": mean([row["recall"] for row in rows]),
        "rules": {
            rule: {key: mean([row["rules"][rule][key] for row in rows]) for key in given}
            for rule, given in rows[0]["rules"].items()
        },
        "as_many_as_changed": {
            score: mean([row["scores"][score] for row in rows]) for score in rows[0]["scores"]
        },
    }


def main() -> None:
    """Measure both sets at every rate, and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("photos", help="folder with one folder per class")
    parser.add_argument("--group-by")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    answer: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "cleanlab": version("cleanlab"),
        "backbone": options.backbone,
        "seeds": options.seeds,
        "sets": {},
    }
    for name, data, group_by in (
        ("photographs", options.photos, options.group_by),
        ("faces", "faces", None),
    ):
        config = StudyConfig(
            backbone=options.backbone, weights=options.weights, group_by=group_by, depths=(0,)
        )
        found = features_of(data, config)
        answer["sets"][name] = {"num_images": len(found["labels"]), "rates": {}}
        for rate in RATES:
            rows = [one(found, rate, seed) for seed in range(options.seeds)]
            made = answer["sets"][name]["rates"][str(rate)] = summary(rows)
            print(name, rate, json.dumps(made))
    if options.json:
        options.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
