"""The probe's choice of network and depth against fine-tuning every network at every depth.

For each split all networks are probed, and all are fine-tuned at some depths, each from the probe's
classifier, as `secateurs study` does. The probe's choice is what the study would fine-tune: the
first networks that it suggests, at the depths nearest to its suggestion, of which validation takes
one. The exhaustive choice takes the best on validation of everything. What the probe gives away is
the difference of their test accuracies; its share of the time is that of probing all and
fine-tuning what it chose, against fine-tuning all. The test side is looked at for every network:
this measures the method, and is no study.

    python benchmarks/studies/probe_choice.py DATA --store DIR --json FILE [--group-by REGEX]
    python benchmarks/studies/probe_choice.py FILE.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secateurs.files import cache_dir, write_json
from secateurs.fit.cache import PrefixCache
from secateurs.progress import Plain
from secateurs.stopping import StopFlag
from secateurs.study.frontier.arms import fine_tune
from secateurs.study.frontier.options import FrontierOptions, parse_backbones
from secateurs.study.frontier.shortlist import choose_arms, open_candidates, probe_candidates
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.config import StudyConfig, from_preset
from secateurs.study.setup.trial_context import settle_split
from secateurs.study.sweep.statistics import summarise
from secateurs.study.sweep.sweep import chosen_model
from secateurs.study.trials.store import Store

Row = dict[str, Any]


def measure(data: str, config: StudyConfig, options: FrontierOptions, out: Path) -> Row:
    """One split: every network at every probed depth, and what the probe would have chosen."""
    stop, progress, kept, store = StopFlag(), Plain(), PrefixCache(), Store(out)
    config = settle_split(data, config)
    opened = open_candidates(data, config, options, cache=cache_dir(), progress=progress)
    probed = probe_candidates(opened, out, stop=stop, progress=progress)
    plans, _ = choose_arms(probed, opened, options, out, progress=progress)
    chosen = {(plan.context.config.backbone, depth) for plan in plans for depth in plan.depths}
    arms: list[Row] = []
    for one in probed:
        context = one.context
        for row in one.found.record["depths"]:
            arm = fine_tune(
                context, (row["depth"],), store, prefix_cache=kept, stop=stop, progress=progress
            )
            model = chosen_model(
                arm.context, store, arm.choice, prefix_cache=kept, stop=stop, progress=progress
            )
            test = evaluate_model(model.to(context.device), context.dataset, "test", context.device)
            arms.append(
                {
                    "backbone": one.found.name,
                    "depth": row["depth"],
                    "name": row["name"],
                    "probe": row["train_accuracy"],
                    "val": arm.choice.record["val_accuracy"],
                    "test": test.accuracy,
                    "num_test": test.num_images,
                    "seconds": sum(trial["timing"]["seconds"] for trial in arm.trials),
                    "chosen": (one.found.name, row["depth"]) in chosen,
                }
            )
    kept.close()
    probing = sum(one.found.record["seconds"] for one in probed)
    return {"split": config.seed, "probe_seconds": probing, "arms": arms}


def choices(row: Row) -> Row:
    """What the probe and the exhaustive search choose, both by validation, on one split."""
    best = max(row["arms"], key=lambda arm: arm["val"])
    some = [arm for arm in row["arms"] if arm["chosen"]]
    ours = max(some, key=lambda arm: arm["val"])
    whole = sum(arm["seconds"] for arm in row["arms"])
    share = (row["probe_seconds"] + sum(arm["seconds"] for arm in some)) / whole
    top = max(arm["test"] for arm in row["arms"])
    return {"ours": ours, "best": best, "given_away": best["test"] - ours["test"]} | {
        "share": share,
        "below_top": top - ours["test"],
    }


def table(measured: Row) -> str:
    """The figures as a Markdown table, one row for each split, and the mean with its interval."""
    lines = [
        f"{measured['date']}, {measured['machine']}; `{measured['command']}`",
        "",
        "| split | by the probe | test | exhaustive | test | given away, points | time |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [choices(row) for row in measured["rows"]]
    for row, found in zip(measured["rows"], rows, strict=True):
        ours, best = found["ours"], found["best"]
        lines.append(
            f"| {row['split']} | {ours['backbone']}, {ours['name']} | {ours['test']:.1%} | "
            f"{best['backbone']}, {best['name']} | {best['test']:.1%} | "
            f"{100 * found['given_away']:+.1f} | {found['share']:.0%} |"
        )
    mean = summarise([100 * found["given_away"] for found in rows])
    interval = "" if mean.low is None else f" ({mean.low:+.1f} to {mean.high:+.1f})"
    share = sum(found["share"] for found in rows) / len(rows)
    lines.append(f"| mean | | | | | {mean.mean:+.1f}{interval} | {share:.0%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("data", help="images, or a file of figures to print")
    words.add_argument("--store", type=Path)
    words.add_argument("--json", type=Path, default=Path("probe_choice.json"))
    words.add_argument("--backbones", default="auto")
    words.add_argument("--group-by")
    words.add_argument("--splits", type=int, default=5)
    words.add_argument("--runs", type=int, default=2)
    words.add_argument("--epochs", type=int)
    words.add_argument("--image-size", type=int)
    words.add_argument("--networks", type=int, default=1, help="networks that the study takes")
    words.add_argument("--depths", type=int, default=2, help="depths that it takes of each")
    given = words.parse_args()
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())), end="")
        return
    if given.store is None:
        words.error("give --store DIR, or a file of figures")
    options = FrontierOptions(
        backbones=parse_backbones(given.backbones),
        num_networks=given.networks,
        num_depths=given.depths,
    )
    given_words = {"epochs": given.epochs, "image_size": given.image_size}
    own = {name: value for name, value in given_words.items() if value is not None}
    base = from_preset("quick", group_by=given.group_by, runs=given.runs, **own)
    measured: Row = {"rows": []}
    if given.json.exists():
        measured = json.loads(given.json.read_text())
    measured |= {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "command": " ".join(["probe_choice.py", Path(given.data).name, *sys.argv[2:]]),
    }
    done = {row["split"] for row in measured["rows"]}
    for split in range(given.splits):
        if split not in done:
            config = replace(base, seed=split)
            measured["rows"].append(measure(given.data, config, options, given.store / f"{split}"))
            write_json(given.json, measured)
    print(table(measured), end="")


if __name__ == "__main__":
    main()
