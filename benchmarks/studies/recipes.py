"""Recipes of fine-tuning against the default one, paired over splits and networks.

For each network and split the study's own probe gives the head to start from and the depth, and
each recipe trains it with several seeds, as the study does; the epoch that is best on validation
counts. Beside them, from the same weights on the same images: a plain loop, fastai's `fine_tune`
and the recipe of timm's training script, each with all layers trained and its own augmentation.
`average of runs` is one network with the mean of the weights of the default recipe's runs, which
start from the same head. With `--base norms=trained` all recipes have trained norms but those that
name them: so the default was before this comparison. Recipes that are in the JSON file are not run
again.

    python benchmarks/studies/recipes.py DATA --group-by REGEX --store DIR --json FILE --jobs 2
    python benchmarks/studies/recipes.py FILE.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from secateurs.files import cache_dir, write_json
from secateurs.progress import Plain
from secateurs.stopping import StopFlag
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.shortlist import choose_arms, open_candidates, probe_candidates
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.config import from_preset
from secateurs.study.setup.splitting import data_folder
from secateurs.study.setup.trial_context import TrialContext, settle_split
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial, trial_key

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.machine import machine

Row = dict[str, Any]
DEFAULT = "default"  # the base alone
RECIPES: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "random head": {},
    "rate 3e-4": {"lr": 3e-4},
    "rate 3e-5": {"lr": 3e-5},
    "constant rate": {"schedule": "constant"},
    "10 epochs": {"epochs": 10},
    "40 epochs": {"epochs": 40},
    "new views": {"views": 0},
    "crops": {"views": 0, "rotation_deg": 10.0, "min_scale": 0.5},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "layer decay 0.1": {"layer_decay": 0.1},
    "L2-SP 30": {"l2_sp": 30.0},
    "mixup 0.2": {"mixup": 0.2},
    "running average 0.95": {"average": 0.95},
    "balanced classes": {"class_weights": "balanced"},
    "fixed norms": {"norms": "fixed"},
    "several": {
        "views": 0,
        "min_scale": 0.5,
        "label_smoothing": 0.1,
        "average": 0.95,
        "norms": "fixed",
    },
}
AVERAGE = "average of runs"
OTHERS = ("plain loop", "fastai", "timm")


@dataclass(frozen=True)
class Case:
    """One network on one split."""

    backbone: str
    split: int

    @property
    def file(self) -> str:
        """The name of the file of its rows."""
        return f"{self.backbone.replace(':', '_')}-{self.split}.json"


def opened(given: argparse.Namespace, case: Case) -> tuple[TrialContext, TrialContext, int]:
    """The study's context with the probe's head, that of the stock network, and the depth.

    The depth is the one that the study trains most at.
    """
    config = settle_split(
        given.data,
        from_preset(
            "quick",
            seed=case.split,
            group_by=given.group_by,
            device=given.device,
            epochs=given.epochs,
        ),
    )
    options = FrontierOptions(backbones=(case.backbone,))
    progress, out = Plain(), given.store / f"{case.backbone.replace(':', '_')}-{case.split}"
    found = open_candidates(given.data, config, options, cache=cache_dir(), progress=progress)
    probed = probe_candidates(found, out, stop=StopFlag(), progress=progress)
    plans, _ = choose_arms(probed, found, options, out, progress=progress)
    return plans[0].context, found.contexts[0], plans[0].depths[0]


def base_of(text: str) -> Row:
    """What all recipes share, from text such as `norms=trained`.

    >>> base_of("norms=trained"), base_of("")
    ({'norms': 'trained'}, {})
    """
    return dict(part.split("=") for part in text.split(",") if part)


def score(model: torch.nn.Module, context: TrialContext) -> Row:
    return {
        side: evaluate_model(model, context.dataset, side, context.device).accuracy
        for side in ("val", "test")
    }


def ours(
    context: TrialContext, name: str, base: Row, depth: int, runs: int, store: Store
) -> list[Row]:
    """Trials of one recipe as a study runs them; after the default's, their average."""
    changes = base | RECIPES[name]
    changed = from_preset("quick", **changes)
    names = {field if hasattr(changed, field) else "recipe" for field in changes}
    config = replace(context.config, **{field: getattr(changed, field) for field in names})
    context = replace(context, config=config, head=None if name == "random head" else context.head)
    shared, rows = SharedInputs(), list[Row]()
    sums: dict[str, torch.Tensor] = {}
    for run in range(runs):
        started = time.perf_counter()
        trial = Trial(depth, run)
        store.record(trial_key(context, trial)).unlink(missing_ok=True)
        _, model = run_trial(context, trial, shared, store)
        seconds = time.perf_counter() - started
        rows.append({"recipe": name, "run": run, **score(model, context), "seconds": seconds})
        for key, tensor in model.state_dict().items():
            sums[key] = sums.get(key, 0) + tensor.double() / runs
        if run == runs - 1 and name == DEFAULT:
            model.load_state_dict(sums)
            rows.append({"recipe": AVERAGE, "run": 0, **score(model, context), "seconds": 0.0})
    return rows


def other(context: TrialContext, name: str, data: str, runs: int) -> list[Row]:
    from other_trainings import TRAININGS

    folder = data_folder(data, cache=cache_dir())
    rows: list[Row] = []
    for run in range(runs):
        started = time.perf_counter()
        found = TRAININGS[name](context, folder, epochs=context.config.epochs, seed=run)
        rows.append({"recipe": name, "run": run, **found, "seconds": time.perf_counter() - started})
    return rows


def run_case(given: argparse.Namespace, case: Case) -> None:
    """Every recipe that the case's file does not hold yet."""
    path = given.store / case.file
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    context, stock, depth = opened(given, case)
    store = Store(given.store / f"trials-{case.backbone.replace(':', '_')}-{case.split}")
    wanted = given.only.split(",") if given.only else [*RECIPES, *OTHERS]
    for name in wanted:
        if any(row["recipe"] == name for row in rows):
            continue
        try:
            if name in RECIPES:
                found = ours(context, name, base_of(given.base), depth, given.runs, store)
            else:
                found = other(stock, name, given.data, given.runs)
        except Exception as error:  # one training that fails must not lose the others
            found = [{"recipe": name, "error": f"{type(error).__name__}: {error}"}]
        rows += [
            row | {"backbone": case.backbone, "split": case.split, "depth": depth} for row in found
        ]
        write_json(path, rows)
        print(f"{case.backbone} split {case.split} {name}: {found}", flush=True)


def interval(points: np.ndarray) -> str:
    if len(points) < 2:
        return f"{points.mean():+.1f}"
    half = student.ppf(0.975, len(points) - 1) * points.std(ddof=1) / len(points) ** 0.5
    return f"{points.mean():+.1f} ({points.mean() - half:+.1f} to {points.mean() + half:+.1f})"


def table(measured: Row) -> str:
    """Each recipe's mean accuracies and its paired differences from the default, in points."""
    rows = [row for row in measured["rows"] if "error" not in row]
    lines = [
        f"{measured['date']}, {measured['machine']}; runs of each: {measured['runs']}; "
        f"shared by all: {measured['base'] or 'nothing'}",
        "",
        "| network | recipe | validation | test | validation, difference | test, difference | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == backbone]
        for recipe in dict.fromkeys(row["recipe"] for row in own):
            means: dict[str, np.ndarray] = {}
            for side in ("val", "test"):
                pairs = [
                    [
                        np.mean([r[side] for r in own if (r["recipe"], r["split"]) == (name, s)])
                        for name in (recipe, DEFAULT)
                    ]
                    for s in sorted({r["split"] for r in own if r["recipe"] == recipe})
                ]
                means[side] = 100 * np.array(pairs)
            seconds = np.median([r["seconds"] for r in own if r["recipe"] == recipe])
            difference = [interval(means[side][:, 0] - means[side][:, 1]) for side in means]
            lines.append(
                f"| {backbone} | {recipe} | {means['val'][:, 0].mean():.1f}% | "
                f"{means['test'][:, 0].mean():.1f}% | {difference[0]} | {difference[1]} | "
                f"{seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("data", help="images, or a file of figures to print")
    words.add_argument("--group-by")
    words.add_argument("--backbones", default="mobilenet_v2,tf_efficientnet_lite0")
    words.add_argument("--splits", type=int, default=5)
    words.add_argument("--runs", type=int, default=2)
    words.add_argument("--epochs", type=int, help="of every training but those that name theirs")
    words.add_argument("--device", default="auto")
    words.add_argument("--only", help="recipes, with commas")
    words.add_argument("--base", default="", help="what all recipes share, as norms=trained")
    words.add_argument("--jobs", type=int, default=1, help="processes")
    words.add_argument("--store", type=Path, default=Path("recipes"))
    words.add_argument("--json", type=Path, default=Path("recipes.json"))
    words.add_argument("--case", help="one network and split, NAME-SPLIT")
    given = words.parse_args()
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())), end="")
        return
    if given.case:
        backbone, split = given.case.rsplit("-", 1)
        run_case(given, Case(backbone, int(split)))
        return
    cases = [
        Case(name, split) for split in range(given.splits) for name in given.backbones.split(",")
    ]
    given.store.mkdir(parents=True, exist_ok=True)

    def start(case: Case) -> None:
        command = [
            sys.executable,
            __file__,
            *sys.argv[1:],
            "--case",
            f"{case.backbone}-{case.split}",
        ]
        with (given.store / f"{case.file}.log").open("w") as log:
            subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT)

    def gathered() -> None:
        rows: list[Row] = []
        for case in cases:
            path = given.store / case.file
            rows += json.loads(path.read_text()) if path.exists() else []
        measured = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": machine(),
            "data": Path(given.data).name,
            "runs": given.runs,
            "base": base_of(given.base),
            "rows": rows,
        }
        write_json(given.json, measured)

    with ThreadPoolExecutor(given.jobs) as pool:
        for _ in pool.map(start, cases):
            gathered()
    print(table(json.loads(given.json.read_text())), end="")


if __name__ == "__main__":
    main()
