"""Which networks go the whole way through the commands: each of torchvision's classifiers.

For every network: `secateurs train` for an epoch from random weights; then twice, to half of the
multiply-accumulates and to 0.3 of the parameters, `secateurs prune` with an epoch of recovery, and
with what that saved `evaluate`, `predict` and `export` to .onnx and .pt2. Everything not named here
is the commands' default. After each cut the cost is measured again from the two saved models with
the public functions, and a budget that was missed is a failure; so is a saved model whose
validation accuracy differs from what `prune` reported. The images are drawn (natural_images.py).

Small networks come first. The JSON file is written after each network and gone on from; networks
that failed are run again with --failed.

    python benchmarks/coverage/torchvision_networks.py --json benchmarks/measured/coverage.json
    python benchmarks/coverage/torchvision_networks.py resnet18 vit_b_16
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command_steps import Limits, Step, load_libraries, run_command, run_function
from natural_images import CLASSES, write_images

BUDGETS = {"macs": 0.5, "params": 0.3}
TRAIN = ["--weights", "none", "--depth", "0", "--epochs", "1", "--batch-size", "16"]
Row = dict[str, Any]


def order() -> list[str]:
    """All networks, by the multiply-accumulates that torchvision publishes."""
    from secateurs.nets.backbones import backbones, weights_entry

    return sorted(backbones(), key=lambda name: weights_entry(name).meta["_ops"])


def remeasure(before: Path, after: Path) -> None:
    """Print what is left of a network's cost, by the public functions, from the saved models."""
    from secateurs.nets.batches import blank_image
    from secateurs.nets.counting import macs, num_parameters
    from secateurs.ship.checkpoint import load

    counts = []
    for folder in (before, after):
        loaded = load(folder)
        image = blank_image(loaded.model, loaded.spec.preprocessing.size)
        counts.append((macs(loaded.model, image), num_parameters(loaded.model)))
    (m0, p0), (m1, p1) = counts
    print(json.dumps({"macs": m1 / m0, "params": p1 / p0, "before": counts[0]}))


def steps_of(name: str, data: Path, folder: Path, limits: Limits) -> list[Step]:
    """The steps of one network in order; what cannot be run after a failure is left out."""
    whole, logs = folder / "whole", folder / "logs"
    cache = ["--cache", str(folder.parent / "cache")]
    done = [
        run_command(
            "train",
            ["train", str(data), "--out", str(whole), "--backbone", name, *TRAIN, *cache, "--json"],
            limits,
            logs,
        )
    ]
    done[0].answer = {"val": done[0].answer.get("val_accuracy")}
    if not done[0].passed:
        return done
    for word, share in BUDGETS.items():
        done += pruned(word, share, whole, data, folder / word, cache, limits, logs)
    return done


def pruned(
    word: str,
    share: float,
    whole: Path,
    data: Path,
    out: Path,
    cache: list[str],
    limits: Limits,
    logs: Path,
) -> list[Step]:
    """Prune to one budget, and use what was saved."""

    def step(name: str, words: list[str]) -> Step:
        return run_command(f"{name} ({word})", [name.split()[0], *words], limits, logs)

    model, images = str(out), str(data)
    budget = [f"--{word}", str(share), "--recovery-epochs", "1"]
    cut = step("prune", [str(whole), images, "--out", model, *budget, *cache, "--json"])
    reported = cut.answer.get("after", {})
    groups = cut.answer.get("groups", [])
    cut.answer = {
        "groups": len(groups),
        "narrowed": sum(group["num_kept"] < group["num_units"] for group in groups),
        "not_pruned": len(cut.answer.get("not_pruned", [])),
        "parity": cut.answer.get("parity"),
        "val": reported.get("accuracy"),
    }
    if not cut.passed:
        return [cut]
    cost = run_function(f"cost ({word})", lambda: remeasure(whole, out), limits, logs)
    if cost.passed and not cost.answer[word] <= share:
        cost.error = f"{cost.answer[word]:.3f} of the {word} left, {share:g} asked for"
    val = step("evaluate --side val", [model, images, "--side", "val", *cache, "--json"])
    if val.passed:
        val.error = other_answers(reported, val.answer)
    test = step("evaluate", [model, images, *cache, "--json"])
    for one in (val, test):
        one.answer = {key: one.answer.get(key) for key in ("accuracy", "loss")}
    picture = sorted((data / CLASSES[0]).iterdir())[0]
    asked = step("predict", [model, str(picture), "--top", str(len(CLASSES)), "--json"])
    if asked.passed:
        asked.error = bad_prediction(asked.answer)
    asked.answer = {}
    files = [
        step(f"export {suffix}", [model, images, "--out", str(out) + suffix, "--json"])
        for suffix in (".onnx", ".pt2")
    ]
    for one in files:
        one.answer.pop("path", None)
    return [cut, cost, val, test, asked, *files]


def other_answers(reported: dict[str, Any], loaded: dict[str, Any]) -> str:
    """How a saved model's evaluation differs from what was reported; empty where it does not."""
    for key in ("accuracy", "loss"):
        if not math.isclose(reported[key], loaded[key], rel_tol=1e-4):
            return f"{key} on validation {loaded[key]:g}, where prune reported {reported[key]:g}"
    return ""


def bad_prediction(answer: dict[str, Any]) -> str:
    """What is wrong with a prediction of all classes; empty where nothing is."""
    try:
        (row,) = answer["predictions"]
        total = sum(one["probability"] for one in row["answers"])
    except (KeyError, ValueError, TypeError):
        return "predict answered in a form that was not expected"
    if len(row["answers"]) != len(CLASSES) or not math.isclose(total, 1, rel_tol=1e-4):
        return f"probabilities of {len(row['answers'])} classes add up to {total}"
    return ""


def examine(name: str, data: Path, work: Path, given: argparse.Namespace) -> Row:
    """The row of one network; its folder goes where it passed, and else only its models do."""
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    limits = Limits(start + given.time_limit, given.memory_gib)
    steps = steps_of(name, data, folder, limits)
    for path in folder.iterdir():
        if path.name != "logs":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    failures = [
        {"step": one.name, "reason": one.error, "where": one.where, "limit": one.code is None}
        for one in steps
        if not one.passed
    ]
    return {
        "network": name,
        "passed": not failures,
        "failures": failures,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gib": max(one.peak_gib for one in steps),
        "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M}",
        "steps": [asdict(one) | {"words": short_words(one.words, work, data)} for one in steps],
    }


def short_words(words: list[str], work: Path, data: Path) -> str:
    """A command line without the folders of this machine."""
    text = " ".join(words).replace(str(data), "IMAGES").replace(f"{work}/", "")
    return text.removesuffix(" --json")


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """What the rows were measured on."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    names = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": given.threads,
        "time_limit_s": given.time_limit,
        "memory_gib": given.memory_gib,
        "versions": {name: version(name) for name in ("torch", "torchvision", "onnxruntime")},
    }


def said(row: Row) -> str:
    """A line on a row for whoever waits."""
    why = "; ".join(f"{one['step']}: {one['reason']} {one['where']}" for one in row["failures"])
    return f"{why or 'passed'} ({row['seconds']:.0f} s, {row['peak_gib']:.1f} GiB)"


def main() -> None:
    from secateurs.files import read_json, write_json

    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("networks", nargs="*", help="in this order; all if none")
    words.add_argument("--json", type=Path, help="all rows; read again to go on")
    words.add_argument("--failed", action="store_true", help="run those that did not pass again")
    words.add_argument("--again", action="store_true", help="run those that are there again")
    words.add_argument("--jobs", type=int, default=1, help="networks at a time")
    words.add_argument("--threads", type=int, default=1, help="of each")
    words.add_argument("--time-limit", type=float, default=1800.0, help="seconds for a network")
    words.add_argument("--memory-gib", type=float, default=10.0, help="limit for a command")
    words.add_argument("--work", type=Path, help="folder for images, models and logs")
    given = words.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    load_libraries(given.threads)
    rows: dict[str, Row] = {}
    if given.json and given.json.exists():
        rows = {row["network"]: row for row in read_json(given.json)["rows"]}
    places = {name: place for place, name in enumerate(order())}
    wanted = given.networks or list(places)
    missing = [
        name
        for name in wanted
        if given.again or name not in rows or (given.failed and not rows[name]["passed"])
    ]
    work = given.work or Path(tempfile.mkdtemp(prefix="coverage-"))
    data = write_images(work / "images")

    def one(name: str) -> Row:
        return examine(name, data, work, given)

    with ThreadPoolExecutor(given.jobs) as pool:
        for place, row in enumerate(pool.map(one, missing), 1):
            rows[row["network"]] = row
            print(f"[{place}/{len(missing)}] {row['network']}: {said(row)}", file=sys.stderr)
            if given.json:
                found = sorted(rows.values(), key=lambda row: places[row["network"]])
                write_json(given.json, {"machine": machine(given), "rows": found})
    print(f"{sum(rows[name]['passed'] for name in wanted)} of {len(wanted)} pass; logs in {work}")


if __name__ == "__main__":
    main()
