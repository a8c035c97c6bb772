"""What a head gains that also reads earlier depths, on several splits, by frozen networks.

Each network's features at some six depths are taken once. For each split the study's classifiers
are fitted on the training side: on the last features, and on these with the latest earlier depth,
the latest two, and so on. As in a study, the one with the least squared error out of groups is
taken. It and the classifier of the last features are tested, and tested again fitted on training
and validation images together, as the recommended network is.

    python benchmarks/studies/earlier_depths.py DATA --group-by REGEX --store DIR --json FILE
    python benchmarks/studies/earlier_depths.py FILE.json
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recipes import interval
from secateurs.fit.probe.classifier import RidgeClassifier, fit_classifier
from secateurs.fit.probe.pooling import borders, pooled_features
from secateurs.fit.probe.probing import earlier_paths
from secateurs.nets.depth import auto_depths, num_depths
from secateurs.nets.several_depths import readable_depths
from small_sides import Row, opened, run

LAST = "last"


def features(given: argparse.Namespace, name: str) -> dict[str, torch.Tensor]:
    """(2, images, features) of all images of the folder, by the module that they are of.

    The last features come first, then the earlier depths from the latest to the earliest.
    """
    path = given.store / f"{name.replace(':', '_')}-depths.safetensors"
    if not path.exists():
        context = opened(given, name, 0)
        model = context.new_model(seed=0, pretrained=True)
        last = num_depths(model, name) - 1
        places = borders(model, name, tuple(sorted({*auto_depths(model, name), last})))
        paths = earlier_paths(model, name, places)
        wanted = [place for place in places if place.depth in paths or place.depth == last]
        sides, split = context.dataset.sides, context.dataset.split
        parts = [
            pooled_features(model, name, wanted, sides[side], mirrored=True, device=context.device)
            for side in ("train", "val", "test")
        ]
        order = np.argsort(np.concatenate([split.train, split.val, split.test]))
        found = {
            paths.get(place.depth, LAST): torch.cat([side[number] for side in parts], 1)[:, order]
            for number, place in enumerate(wanted)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in found.items()}, path)
    found, context = load_file(path), opened(given, name, 0)
    model = context.new_model(seed=0, pretrained=False)
    order = readable_depths(model, name)
    return {key: found[key] for key in (LAST, *reversed(order)) if key in found}


def measure(given: argparse.Namespace, name: str, split: int, x: dict[str, torch.Tensor]) -> Row:
    """One network on one split."""
    dataset = opened(given, name, split).dataset
    part, num_classes = dataset.split, len(dataset.classes)
    labels = {side: dataset.sides[side].labels for side in ("train", "val", "test")}
    both_rows = np.concatenate([part.train, part.val])
    both_labels = np.concatenate([labels["train"], labels["val"]])

    paths = [key for key in x if key != LAST]

    def of(num: int) -> torch.Tensor:
        return torch.cat([x[LAST], *(x[path] for path in paths[:num])], 2)

    def fitted(num: int, rows: np.ndarray, own: np.ndarray) -> RidgeClassifier:
        groups = None if dataset.groups is None else [dataset.groups[row] for row in rows]
        return fit_classifier(of(num)[:, rows], own, num_classes, groups)

    def tested(num: int, found: RidgeClassifier) -> float:
        answers = found.scores(of(num)[0, part.test]).argmax(1).numpy()
        return float((answers == labels["test"]).mean())

    tried = [fitted(num, part.train, labels["train"]) for num in range(len(paths) + 1)]
    num = min(range(len(tried)), key=lambda one: min(tried[one].errors))
    return {
        "backbone": name,
        "split": split,
        "paths": paths[:num],
        "last": tested(0, tried[0]),
        "several": tested(num, tried[num]),
        "last_both": tested(0, fitted(0, both_rows, both_labels)),
        "several_both": tested(num, fitted(num, both_rows, both_labels)),
    }


def table(measured: Row) -> str:
    """Mean test accuracies and their paired differences over the splits, in points."""
    rows = measured["rows"]
    lines = [
        f"{measured['date']}, {measured['machine']}, {measured['data']}, "
        f"{len({row['split'] for row in rows})} splits",
        "",
        "| network | last features, test | several depths, test | difference "
        "| last, of both sides | several, of both sides | difference | earlier depths |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == name]
        last, several, last_both, several_both = (
            100 * np.array([row[key] for row in own])
            for key in ("last", "several", "last_both", "several_both")
        )
        read = ", ".join(str(len(row["paths"])) for row in own)
        lines.append(
            f"| {name} | {last.mean():.1f}% | {several.mean():.1f}% | {interval(several - last)} "
            f"| {last_both.mean():.1f}% | {several_both.mean():.1f}% "
            f"| {interval(several_both - last_both)} | {read} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(__doc__, "earlier_depths", features, measure, table)
