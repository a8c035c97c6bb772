"""The founding paper from end to end, beside what it printed, and what it would have found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

import secateurs
from secateurs.data.groups import groups_from_pattern
from secateurs.data.scan import Listing, scan
from secateurs.errors import InputError
from secateurs.files import read_json, write_json
from secateurs.fit.cache import PrefixCache
from secateurs.nets.backbones import layers
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.bench import Bench, Dataset, data_folder, open_bench, open_dataset
from secateurs.study.config import difference
from secateurs.study.models import evaluate_model
from secateurs.study.paper_beside import counted, table1, table2, table3
from secateurs.study.paper_plan import PaperPlan
from secateurs.study.paper_pruning import CELL, grids, smallest
from secateurs.study.paper_trials import best, network_of, tested_trials
from secateurs.study.published import is_sfew, published
from secateurs.study.search import run_search
from secateurs.study.stages import Stages, versions
from secateurs.study.study import run_study
from secateurs.study.sweep import choose, summarise_sweep
from secateurs.study.trials import Store

SCHEMA = 1
PLAN = "paper.plan.json"
FILES = {"paper": "paper.json", "page": "paper.html", "apart": "apart", "search": "search"}
FEWEST_GROUPS = 6  # two on each side of a split

Record = dict[str, Any]


def run_paper(
    data: str,
    plan: PaperPlan,
    out: Path,
    *,
    cache: Path,
    prefix_cache: PrefixCache | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Run every experiment of the paper on a folder of images, in the directory `out`.

    Returns what it writes to `out`/paper.json: each published number beside ours, then what the
    same images say when films are kept apart, validation chooses and weights are refitted. What is
    already done is not done again. Raises InputError for bad input and when `out` holds something
    else, StopRequested when asked to stop.
    """
    stop, asked = stop or StopFlag(), plan
    _check_directory(out, asked)
    listing = scan(data_folder(data, cache=cache, progress=progress))
    groups, ungrouped = _groups(listing, plan.group_by)
    if not groups:
        progress.note(f"films cannot be kept apart: {ungrouped}")
        plan = replace(plan, group_by=None)
    bench = open_bench(data, plan.config(), cache=cache, progress=progress)
    sfew = is_sfew(bench.dataset.audit)
    _claim(out, asked, bench)
    kept = prefix_cache or PrefixCache()
    stages, store = Stages(out), Store(out)
    words: dict[str, Any] = {"prefix_cache": kept, "stop": stop, "progress": progress}

    records = tested_trials(bench, store, **words)
    side = "test" if plan.choose_on_test else "val"
    chosen, honest = best(records, side), best(records, "val")
    model = network_of(bench, store, chosen, **words)
    identity = {"chosen": chosen["key"], "version": secateurs.__version__, "plan": plan.to_json()}
    resized = stages.run("resize", identity, lambda: _both_resizes(model, data, bench, cache))
    pruned = stages.run(
        "grids", identity, lambda: grids(model, bench, plan, stop=stop, progress=progress)
    )
    small = stages.run(
        "smallest",
        identity,
        lambda: {"rows": smallest(model, bench, stop=stop, progress=progress)},
    )
    searched = _search(data, plan, chosen["depth"], out, cache, words) if plan.search else None
    apart = _apart(data, plan, out, cache, words) if groups else None
    kept.close()

    program = pruned["ways"]["published"]
    names = [layer.alias for layer in layers(model, plan.backbone)]
    tables: Record = {
        "table1": table1(records, names, bench.weights.fresh, sfew=sfew),
        "table2": table2(chosen["test"], sfew=sfew),
        "table3": table3(
            program["by_angle"],
            program["cells"],
            len(bench.dataset.sides["test"]),
            sfew=sfew,
        ),
    }
    compared: list[Record] = [*tables["table1"], *tables["table2"], *tables["table3"]["accuracy"]]
    answer: Record = {
        "schema": SCHEMA,
        "plan": plan.to_json(),
        "data": {
            "name": bench.dataset.name,
            "num_images": len(listing),
            "classes": list(bench.dataset.classes),
            "per_class": [listing.labels.count(k) for k in range(len(listing.classes))],
            "is_sfew": sfew,
        },
        "split": {k: v for k, v in bench.dataset.split_json().items() if k != "names"},
        "weights": bench.weights.to_json(),
        **tables,
        "counted": counted(compared),
        "sweep": summarise_sweep(records, num_images=len(bench.dataset.sides["val"])),
        "best": {
            "on": side,
            **{key: chosen[key] for key in ("depth", "run", "val_accuracy", "curve", "test")},
        },
        "search": searched,
        "published_search": published()["training"],
        "grid": pruned | {"cell": list(CELL)},
        "published_grid": published()["grid"],
        "resize": resized["rows"],
        "beyond": {
            "chosen_on_validation": {
                key: honest[key] for key in ("depth", "run", "val_accuracy", "test")
            },
            "indistinguishable": _indistinguishable(records, bench),
            "apart": apart,
            "no_groups": ungrouped,
            "smallest": small["rows"],
        },
        "files": FILES,
        "versions": versions(bench),
        "timing": {"trials": sum(r["timing"]["seconds"] for r in records)},
    }
    write_json(out / FILES["paper"], answer)
    return answer


def _check_directory(out: Path, plan: PaperPlan) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a directory, got a file")
    if not (out / PLAN).exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: not empty and not a run of the paper; choose a new directory")
        return
    found = read_json(out / PLAN)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{out}: a run of another version of Secateurs; choose a new directory")
    asked = plan.to_json()
    if found["plan"] != asked:
        differs = difference(found["plan"], asked)
        raise InputError(f"{out}: holds a run with another plan: {differs}; choose another")


def _claim(out: Path, plan: PaperPlan, bench: Bench) -> None:
    """Mark a directory as this run's; refuse one of other images or weights."""
    weights = {"loaded": list(bench.weights.loaded), "sha256": bench.weights.sha256}
    identity: Record = {**bench.dataset.identity(), "weights": weights}
    path = out / PLAN
    if path.exists():
        found = read_json(path)["identity"]
        odd = sorted(key for key in identity if identity[key] != found.get(key))
        if odd:
            raise InputError(f"{out}: holds a run on other {' and '.join(odd)}; choose another")
        return
    write_json(path, {"schema": SCHEMA, "plan": plan.to_json(), "identity": identity})


def _groups(listing: Listing, pattern: str | None) -> tuple[tuple[str, ...], str]:
    """The film of each image, or nothing and why."""
    if pattern is None:
        return (), "no pattern for them was given"
    try:
        found = groups_from_pattern(listing.names, pattern)
    except InputError:
        return (), f"the pattern {pattern} finds nothing in some file names"
    number = len(set(found))
    if number < FEWEST_GROUPS or number == len(found):
        return (), f"the pattern {pattern} finds {number} groups in {len(found)} file names"
    return found, ""


def _both_resizes(model: nn.Module, data: str, bench: Bench, cache: Path) -> Record:
    """The best network on test images resized as the program does, and as the text says."""
    rows: list[Record] = []
    for resize in ("crop", "straight"):
        dataset: Dataset = bench.dataset
        if resize != bench.config.resize:
            dataset = open_dataset(data, replace(bench.config, resize=resize), cache=cache)
        test = evaluate_model(model, dataset, "test", bench.device).to_json()
        rows.append({"resize": resize, "test": test})
    return {"rows": rows}


def _search(
    data: str, plan: PaperPlan, depth: int, out: Path, cache: Path, words: dict[str, Any]
) -> Record:
    config = replace(plan.config(), depths=(depth,), runs=1, scratch_runs=0)
    found = run_search(
        data, config, plan.search_plan(), out / FILES["search"], cache=cache, **words
    )
    return {key: found[key] for key in ("settings", "cells", "best", "alike", "evaluated")} | {
        "depth": depth
    }


def _apart(data: str, plan: PaperPlan, out: Path, cache: Path, words: dict[str, Any]) -> Record:
    found = run_study(data, plan.apart(), out / FILES["apart"], cache=cache, prune=False, **words)
    split = {key: value for key, value in found["split"].items() if key != "names"}
    return {key: found[key] for key in ("sweep", "recommendation", "chosen")} | {"split": split}


def _indistinguishable(records: list[Record], bench: Bench) -> Record:
    advice = choose(records, num_images=len(bench.dataset.sides["val"])).advice
    same = [row.depth for row in advice.comparisons if row.indistinguishable or row.is_best]
    return {"depths": same, "best": advice.best, "sentences": list(advice.sentences)}
