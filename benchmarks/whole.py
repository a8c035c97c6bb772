"""Whole networks pruned to a budget: accuracy, cost and time over splits, against other rules.

    python benchmarks/whole.py DATA --group-by REGEX --weights FILE --store DIR --part targets
    python benchmarks/whole.py DATA --group-by REGEX --weights FILE --store DIR --part curves
    python benchmarks/whole.py DATA --backbone mobilenet_v2 --depth 35 --weights FILE --part targets

For each split s a network is fine-tuned at --depth (kept in --store), with everything else from
seed s. `targets` prunes it to budgets, with and without recovery. `curves` compares rules at
several shares of the multiply-accumulates: ours; and torch-pruning's L2, geometric-median, Taylor
and random importances with the same share of units kept in every layer, each with and without our
least squares, and all with the same recovery. Validation accuracy; the test images are looked at
only in `targets`, after everything is decided.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from secateurs.files import cache_dir, read_json, write_json
from secateurs.fit.metrics import predict_logits
from secateurs.nets.chain import chain
from secateurs.progress import Console
from secateurs.prune.budget import Widths, descent
from secateurs.prune.groups import Group, find_groups
from secateurs.prune.merged import with_merging
from secateurs.prune.network import Judge, cut, recalibrate
from secateurs.prune.survey import survey
from secateurs.ship.checkpoint import load, save
from secateurs.ship.latency import torch_latency
from secateurs.study.bench import Bench, open_bench
from secateurs.study.config import StudyConfig, from_preset
from secateurs.study.models import evaluate_model, model_spec
from secateurs.study.recovery import RecoveryOptions, recover
from secateurs.study.trials import SharedInputs, Store, Trial, run_trial
from secateurs.study.whole import Budget, prune_whole, views

Row = dict[str, Any]
LATENCY_S = 5.0
RULES = ("ours", "ours_judged", "l2", "geometric_median", "taylor", "random")


def trained(given: argparse.Namespace, split: int) -> tuple[nn.Module, Bench]:
    """The network of a split, from the store or fine-tuned now."""
    config: StudyConfig = replace(
        from_preset("quick"),
        backbone=given.backbone,
        group_by=given.group_by,
        weights=given.weights,
        depths=(given.depth,),
        runs=1,
        seed=split,
    )
    bench = open_bench(given.data, config, cache=cache_dir(), progress=Console())
    folder = Path(given.store) / f"{given.backbone}-{given.depth}-{split}"
    if not (folder / "model.json").exists():
        shared = SharedInputs(progress=Console())
        _, model = run_trial(bench, Trial(given.depth, 0), shared, Store(folder))
        save(model, model_spec(model, bench, depth=given.depth, kept={}), folder)
    return load(folder).model.to(bench.device), bench


def accuracy(model: nn.Module, bench: Bench, side: str) -> float:
    return 100 * evaluate_model(model, bench.dataset, side, bench.device).accuracy


def words(budget: Budget) -> str:
    parts = [
        f"{name} {value:.3g}"
        for name in ("params", "macs", "latency", "max_loss")
        if (value := getattr(budget, name)) is not None
    ]
    epochs = budget.recovery.epochs
    return ", ".join(parts) + (f", {epochs} epochs of recovery" if epochs else "")


def targets(given: argparse.Namespace) -> list[Row]:
    """Each budget on each split, going on from what the file of figures holds.

    All cuts without recovery come first.
    """
    if given.backbone == "alexnet":
        budgets = [
            Budget(params=1 / 16),
            # A little less than the third that is wanted: it is measured again afterwards.
            Budget(params=1 / 16, latency=0.32, recovery=RecoveryOptions(given.epochs)),
        ]
    else:
        budgets = [Budget(macs=0.5), Budget(macs=0.5, recovery=RecoveryOptions(given.epochs))]
    rows: list[Row] = read_json(Path(given.json))["rows"] if _exists(given.json) else []
    done = {(row["split"], row["budget"]) for row in rows}
    for budget in budgets if given.epochs else budgets[:1]:
        for split in range(given.splits):
            if (split, words(budget)) in done:
                continue
            model, bench = trained(given, split)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            started = time.process_time()
            whole = prune_whole(model, bench.dataset, bench.config, budget, device=bench.device)
            used = time.process_time() - started
            images = bench.dataset.sides["train"].eval_views(slice(0, 64), bench.device)
            batch64 = torch_latency(model, whole.model, images, batch=64, budget_s=10)
            batch1 = torch_latency(model, whole.model, images, batch=1, budget_s=5)
            recovery = whole.recovered
            row: Row = {
                "split": split,
                "budget": words(budget),
                "val": accuracy(model, bench, "val"),
                "val_after": accuracy(whole.model, bench, "val"),
                "test": accuracy(model, bench, "test"),
                "test_after": accuracy(whole.model, bench, "test"),
                "last_epoch": None
                if recovery is None
                else 100 * recovery.fit.curve[-1].val_accuracy,
                "params": _size(whole.model) / _size(model),
                "macs": whole.chosen.price.macs / whole.way[0].price.macs,
                "latency_64": batch64.ratio_p50,
                "latency_1": batch1.ratio_p50,
                "seconds": whole.record["seconds"],
                "recovery_s": None if recovery is None else recovery.seconds,
                "cpu_s": used,
                "kept": whole.chosen.kept,
                "added_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
            if given.json:
                write_json(Path(given.json), {"rows": rows})
    return rows


def _exists(path: str | None) -> bool:
    return path is not None and Path(path).exists()


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def tp_scores(
    rule: str, model: nn.Module, groups: Iterable[Group], images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """torch-pruning's importance of every unit of our groups, by group; higher stays."""
    import torch_pruning as tp

    graph: Any = tp.DependencyGraph().build_dependency(model, (images[:1],), verbose=False)
    importances: dict[str, Any] = {
        "l2": tp.importance.GroupMagnitudeImportance(p=2),
        "geometric_median": tp.importance.FPGMImportance(),
        "taylor": tp.importance.GroupTaylorImportance(),
        "random": tp.importance.RandomImportance(),
    }
    if rule == "taylor":
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
    scores: dict[str, Tensor] = {}
    for group in groups:
        layer = model.get_submodule(group.name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        pruner = graph.get_pruner_of_module(layer)
        every = list(range(len(layer.weight)))
        found = importances[rule](graph.get_pruning_group(layer, pruner.prune_out_channels, every))
        scores[group.name] = found.detach().cpu()
    model.zero_grad()
    return scores


def evenly(widths: Widths, macs: float, round_to: int) -> dict[str, int]:
    """The same share of units kept in every group, within the multiply-accumulates."""
    whole = widths.price(widths.whole)

    def kept(share: float) -> dict[str, int]:
        return {
            name: min(units, max(round_to, int(share * units) // round_to * round_to))
            for name, units in widths.whole.items()
        }

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if widths.price(kept(middle)).macs <= macs * whole.macs:
            low = middle
        else:
            high = middle
    return kept(low)


def curves(given: argparse.Namespace) -> list[Row]:
    """Every rule, with and without least squares, at every share of multiply-accumulates.

    `ours` is one start of the merging, `ours_judged` the best of five on validation, as in
    `prune_whole`: on validation that is no comparison among equals.
    """
    rows: list[Row] = []
    for split in range(given.splits):
        model, bench = trained(given, split)
        model.eval()
        train, val = bench.dataset.sides["train"], bench.dataset.sides["val"]
        batches = views(train, bench.device, mirrored=bench.config.augment)
        copies = 1 + bench.config.augment
        seen_val = views(val, bench.device)
        answers = torch.from_numpy(val.labels)
        groups = find_groups(model, size=train.size).found
        seen = survey(model, groups, batches, copies=copies, seed=split)
        seen = with_merging(
            model,
            groups,
            seen,
            batches,
            steps=lambda network: chain(network, given.backbone),
            copies=copies,
        )
        widths = Widths(model, groups, size=train.size)

        def score(network: nn.Module, held: list[Tensor] = seen_val, y: Tensor = answers) -> float:
            logits = torch.cat([predict_logits(network, images) for images in held])
            return 100 * float((logits.argmax(1) == y).double().mean())

        unpruned = score(model)
        torch.manual_seed(split)
        some = batches[0], torch.from_numpy(train.labels[: len(batches[0])])
        scores = {
            rule: tp_scores(rule, model, groups, *some)
            for rule in given.rules
            if not rule.startswith("ours")
        }
        measured: dict[tuple[int, ...], float] = {}

        def timed(
            network: nn.Module,
            kept: dict[str, int],
            model: nn.Module = model,
            images: Tensor = batches[0],
            measured: dict[tuple[int, ...], float] = measured,
        ) -> float:
            """Of widths, not of weights: once for each."""
            widths = tuple(kept.values())
            if widths not in measured:
                row = torch_latency(model, network, images, batch=64, budget_s=LATENCY_S)
                measured[widths] = row.ratio_p50
            return measured[widths]

        for macs in given.levels:
            for rule in given.rules:
                if rule.startswith("ours"):
                    kept = descent(widths, seen.eliminations, macs=macs, round_to=8)[-1].kept
                    survivors = None
                else:
                    kept = evenly(widths, macs, 8)
                    survivors = {
                        name: values.topk(kept[name]).indices.sort().values
                        for name, values in scores[rule].items()
                    }
                for refitting in (True, False):
                    started = time.perf_counter()
                    result = cut(
                        model,
                        groups,
                        seen,
                        kept,
                        batches,
                        steps=lambda network: chain(network, given.backbone),
                        refitting=refitting,
                        merging=rule.startswith("ours"),
                        survivors=survivors,
                        judge=Judge(seen_val, answers) if rule == "ours_judged" else None,
                        copies=copies,
                        seed=split,
                    )
                    recalibrate(result.model, batches)
                    price = widths.price(kept)
                    whole = widths.price(widths.whole)
                    row: Row = {
                        "split": split,
                        "rule": rule,
                        "refitted": refitting,
                        "level": macs,
                        "macs": price.macs / whole.macs,
                        "params": price.parameters / whole.parameters,
                        "unpruned": unpruned,
                        "seconds": time.perf_counter() - started,
                        "cut": score(result.model),
                        "latency": timed(result.model, kept),
                        "recovered": None,
                    }
                    if given.epochs and macs in given.recover_at:
                        again = recover(
                            result.model,
                            model,
                            bench.dataset,
                            bench.config,
                            RecoveryOptions(given.epochs),
                            device=bench.device,
                        )
                        row["recovered"] = score(again.model)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def spread(values: list[float]) -> str:
    """Mean and 95% interval over splits."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:+.1f}"
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def print_targets(rows: list[Row]) -> None:
    print(
        "\n| budget | parameters | MACs | batch 64 | batch 1 | validation, points | test, points "
        "| unpruned val, test | pruning, s | recovery, s | processor, s | added MiB |\n|"
        + "---|"
        * 12
    )
    for budget in dict.fromkeys(row["budget"] for row in rows):
        own = [row for row in rows if row["budget"] == budget]

        def mean(name: str, own: list[Row] = own) -> float:
            return float(np.mean([row[name] for row in own]))

        recovery = "" if own[0]["recovery_s"] is None else f"{mean('recovery_s'):.0f}"
        print(
            f"| {budget} | {mean('params'):.4f} | {mean('macs'):.2f} | {mean('latency_64'):.2f} "
            f"| {mean('latency_1'):.2f} | {spread([r['val_after'] - r['val'] for r in own])} "
            f"| {spread([r['test_after'] - r['test'] for r in own])} "
            f"| {mean('val'):.1f}, {mean('test'):.1f} | {mean('seconds'):.0f} | {recovery} "
            f"| {mean('cpu_s'):.0f} | {max(r['added_mib'] for r in own):.0f} |"
        )


def print_curves(rows: list[Row], given: argparse.Namespace) -> None:
    levels = given.levels
    head = " | ".join(f"MACs {level:g}" for level in levels)
    for what, name in (("cut", "the cut"), ("recovered", "recovery")):
        if all(row[what] is None for row in rows):
            continue
        print(f"\nPoints of validation accuracy after {name}, and latency left at batch 64:\n")
        print(f"| rule | {head} |")
        print("|---" * (len(levels) + 1) + "|")
        for rule in given.rules:
            for refitted in (True, False):
                cells: list[str] = []
                for level in levels:
                    own = [
                        row
                        for row in rows
                        if (row["rule"], row["refitted"], row["level"]) == (rule, refitted, level)
                        and row[what] is not None
                    ]
                    lost = [row[what] - row["unpruned"] for row in own]
                    time_left = np.mean([row["latency"] for row in own]) if own else 0.0
                    cells.append(f"{spread(lost)}, {100 * time_left:.0f}%" if own else "")
                least = "least squares" if refitted else "as they are"
                print(f"| {rule}, {least} | {' | '.join(cells)} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data")
    options.add_argument("--part", choices=("targets", "curves"), default="targets")
    options.add_argument("--group-by")
    options.add_argument("--backbone", default="alexnet")
    options.add_argument("--depth", type=int, default=5)
    options.add_argument("--weights", default="auto")
    options.add_argument("--store", default="networks", help="folder of the fine-tuned networks")
    options.add_argument("--splits", type=int, default=5)
    options.add_argument("--epochs", type=int, default=60, help="of recovery")
    options.add_argument("--levels", type=_numbers, default=[0.7, 0.5, 0.35, 0.25])
    options.add_argument("--recover-at", type=_numbers, default=[0.35])
    options.add_argument("--rules", type=lambda text: text.split(","), default=list(RULES))
    options.add_argument("--json", help="file for all figures")
    given = options.parse_args()
    print(
        f"{datetime.now(UTC).date()}, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}",
        flush=True,
    )
    parts: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
        "targets": targets,
        "curves": curves,
    }
    rows = parts[given.part](given)
    if given.part == "targets":
        print_targets(rows)
    else:
        print_curves(rows, given)
    if given.json:
        write_json(Path(given.json), {"rows": rows})


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
