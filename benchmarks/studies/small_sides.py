"""What small validation sides cost: the choice, the last training and the threshold, by probes.

Each network's features at its head are taken once. For each split the study's ridge classifier is
fitted on the training side, and on training and validation images together. From these:

- last training: test accuracy of the second less that of the first, paired by split;
- choice: the error of three estimates of a network's test accuracy, and the test accuracy of the
  network that each of them chooses. `validation` is the share of validation images, `all images`
  the share of training images out of their group and validation images, `adjusted` is the study's
  estimate, with another network's probe as the control, as for a network made from it;
- threshold: what is answered, and how much of it is right, on test images at the threshold that
  validation images give, by their accuracy alone and by the study's bound.

    python benchmarks/studies/small_sides.py DATA --group-by REGEX --store DIR --json FILE
    python benchmarks/studies/small_sides.py FILE.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recipes import interval
from secateurs.files import cache_dir, write_json
from secateurs.fit.confidence import coverage_curve, fit_temperature
from secateurs.fit.probe.classifier import fit_classifier
from secateurs.fit.probe.pooling import borders, pooled_features
from secateurs.nets.depth import num_depths
from secateurs.study.frontier.estimate import Judged
from secateurs.study.insight.trust import TARGET, find_confidence
from secateurs.study.setup.config import from_preset
from secateurs.study.setup.trial_context import Dataset, TrialContext, open_context, settle_split

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.machine import machine

Row = dict[str, Any]
NETWORKS = "squeezenet1_1,mobilenet_v2,tf_efficientnet_lite0,tf_efficientnet_lite2"


def opened(given: argparse.Namespace, name: str, split: int) -> TrialContext:
    config = from_preset("quick", backbone=name, seed=split, group_by=given.group_by, device="cpu")
    return open_context(given.data, settle_split(given.data, config), cache=cache_dir())


def features(given: argparse.Namespace, name: str) -> torch.Tensor:
    """(2, images, features) of all images of the folder, in its order, plain and mirrored."""
    path = given.store / f"{name.replace(':', '_')}.safetensors"
    if not path.exists():
        context = opened(given, name, 0)
        model = context.new_model(seed=0, pretrained=True)
        places = borders(model, name, (num_depths(model, name) - 1,))
        sides, split = context.dataset.sides, context.dataset.split
        parts = [
            pooled_features(model, name, places, sides[side], mirrored=True, device=context.device)[
                0
            ]
            for side in ("train", "val", "test")
        ]
        rows = np.concatenate([split.train, split.val, split.test])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": torch.cat(parts, 1)[:, np.argsort(rows)].contiguous()}, path)
    return load_file(path)["features"]


def answered(dataset: Dataset, scores: torch.Tensor, threshold: float, temperature: float) -> Row:
    labels = dataset.sides["test"].labels
    confidence = torch.softmax(scores / temperature, 1).amax(1).numpy()
    kept = confidence >= threshold
    return {"num": int(kept.sum()), "right": int((scores.argmax(1).numpy() == labels)[kept].sum())}


def measure(given: argparse.Namespace, name: str, split: int, x: torch.Tensor) -> Row:
    """One network on one split."""
    dataset = opened(given, name, split).dataset
    part, num_classes = dataset.split, len(dataset.classes)
    labels = {side: dataset.sides[side].labels for side in ("train", "val", "test")}

    def fitted(rows: np.ndarray, own: np.ndarray) -> Any:
        groups = None if dataset.groups is None else [dataset.groups[row] for row in rows]
        return fit_classifier(x[:, rows], own, num_classes, groups)

    one = fitted(part.train, labels["train"])
    rows = np.concatenate([part.train, part.val])
    both = fitted(rows, np.concatenate([labels["train"], labels["val"]]))
    val, test = one.scores(x[0, part.val]), one.scores(x[0, part.test])
    control = torch.cat([one.left_out[0], val]).argmax(1).numpy()
    own = val.argmax(1).numpy() == labels["val"]
    temperature = fit_temperature(val, labels["val"], smoothing=1 / (len(own) + 1))
    curve = coverage_curve(torch.softmax(val / temperature, 1).numpy(), labels["val"])
    plain = next((point.threshold for point in curve if point.accuracy >= TARGET), 2.0)
    bound = find_confidence(val, labels["val"])
    right = control == np.concatenate([labels["train"], labels["val"]])
    return {
        "backbone": name,
        "split": split,
        "val": bits(own),
        "control": bits(right),
        "num_test": len(labels["test"]),
        "test": float((test.argmax(1).numpy() == labels["test"]).mean()),
        "test_both": float(
            (both.scores(x[0, part.test]).argmax(1).numpy() == labels["test"]).mean()
        ),
        "plain": answered(dataset, test, plain, temperature),
        "bound": answered(dataset, test, bound.threshold or 0.0, bound.temperature),
        "bound_promise": bound.bound,
    }


def bits(correct: np.ndarray) -> str:
    """A 1 or 0 for each image."""
    return "".join("01"[int(one)] for one in correct)


def answers(text: str) -> np.ndarray:
    """The other way round.

    >>> answers(bits(np.array([True, False]))).tolist()
    [True, False]
    """
    return np.frombuffer(text.encode(), np.uint8) == ord("1")


def estimates(row: Row, other: Row) -> dict[str, float]:
    """Three estimates of the test accuracy of `row`; `other` is the probe that is the control."""
    val = answers(row["val"])
    return {
        "validation": float(val.mean()),
        "all images": float(answers(row["control"]).mean()),
        "adjusted": Judged(val, answers(other["control"])).accuracy,
    }


def table(measured: Row) -> str:
    rows = measured["rows"]
    names = list(dict.fromkeys(row["backbone"] for row in rows))
    by = {(row["backbone"], row["split"]): row for row in rows}
    splits = sorted({row["split"] for row in rows})
    lines = [
        f"{measured['date']}, {measured['machine']}, {measured['data']}, {len(splits)} splits",
        "",
        "| network | classifier of training images, test | of both sides, test | difference |",
        "|---|---|---|---|",
    ]
    for name in [*names, "all"]:
        mine = [row for row in rows if name in (row["backbone"], "all")]
        means = np.array(
            [
                np.mean([[r["test"], r["test_both"]] for r in mine if r["split"] == s], 0)
                for s in splits
            ]
        )
        cells = 100 * means
        lines.append(
            f"| {name} | {cells[:, 0].mean():.1f}% | {cells[:, 1].mean():.1f}% | "
            f"{interval(cells[:, 1] - cells[:, 0])} |"
        )
    lines += ["", "| estimate | root mean square error, points | bias |", "|---|---|---|"]
    for kind in ("validation", "all images", "adjusted"):
        errors = [
            100 * (estimates(by[a, s], by[b, s])[kind] - by[a, s]["test"])
            for a, b in permutations(names, 2)
            for s in splits
        ]
        lines.append(
            f"| {kind} | {np.mean(np.square(errors)) ** 0.5:.1f} | {np.mean(errors):+.1f} |"
        )
    lines += ["", "| chosen by | test accuracy of the chosen probe |", "|---|---|"]
    for kind in ("validation", "all images"):
        found = np.array(
            [
                by[max(names, key=lambda a, s=s: estimates(by[a, s], by[a, s])[kind]), s]["test"]
                for s in splits
            ]
        )
        lines.append(f"| {kind} | {interval(100 * found).lstrip('+')} |")
    lines += ["", "| threshold | answered | of them right |", "|---|---|---|"]
    for kind in ("plain", "bound"):
        num = sum(row[kind]["num"] for row in rows)
        total = sum(row["num_test"] for row in rows)
        right = sum(row[kind]["right"] for row in rows)
        lines.append(f"| {kind} | {num / total:.1%} | {right / max(1, num):.1%} |")
    promise = [row["bound_promise"] for row in rows if row["bound_promise"] is not None]
    lines.append(f"\nThe bound promises {np.mean(promise):.1%} on average.")
    return "\n".join(lines) + "\n"


def run(
    doc: str | None,
    name: str,
    features: Callable[[argparse.Namespace, str], Any],
    measure: Callable[[argparse.Namespace, str, int, Any], Row],
    table: Callable[[Row], str],
) -> None:
    """Measure every network on every split, from features that are taken once, and print it."""
    words = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    words.add_argument("data", help="images, or a file of figures to print")
    words.add_argument("--group-by")
    words.add_argument("--networks", default=NETWORKS)
    words.add_argument("--splits", type=int, default=5)
    words.add_argument("--store", type=Path, default=Path(name))
    words.add_argument("--json", type=Path, default=Path(f"{name}.json"))
    given = words.parse_args()
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())), end="")
        return
    measured: Row = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "data": Path(given.data).name,
        "rows": [],
    }
    for network in given.networks.split(","):
        x = features(given, network)
        measured["rows"] += [measure(given, network, split, x) for split in range(given.splits)]
        write_json(given.json, measured)
    print(table(measured), end="")


if __name__ == "__main__":
    run(__doc__, "small_sides", features, measure, table)
