"""Whole networks pruned to a budget: accuracy, cost and time over splits.

    python benchmarks/pruning/whole.py DATA --group-by REGEX --weights FILE --store DIR
    python benchmarks/pruning/whole.py DATA --backbone mobilenet_v2 --depth 35 \\
        --weights FILE --epochs 20

For each split s a network is fine-tuned at --depth (kept in --store), with everything else from
seed s, and pruned to a budget with and without recovery. The test images are looked at after
everything is decided.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
from torch import nn

from networks import Row, accuracy, heading, keep_rows, kept_rows, options, spread, trained
from secateurs.prune.to_budget import Budget
from secateurs.ship.latency import torch_latency
from secateurs.study.pruning.network import prune_whole
from secateurs.study.pruning.recovery import RecoveryOptions


def words(budget: Budget, recovery: RecoveryOptions | None) -> str:
    parts = [
        f"{name} {value:.3g}"
        for name in ("params", "macs", "latency", "max_loss")
        if (value := getattr(budget, name)) is not None
    ]
    again = recovery or RecoveryOptions()
    if again.epochs:
        parts.append(f"{again.epochs} epochs of recovery")
        standard = RecoveryOptions()
        parts += [
            f"{name} {value:g}"
            for name in ("lr", "distil")
            if (value := getattr(again, name)) != getattr(standard, name)
        ]
    return ", ".join(parts)


def targets(given: argparse.Namespace) -> list[Row]:
    """Each budget on each split, going on from what the file of figures holds.

    All cuts without recovery come first.
    """
    again = RecoveryOptions(given.epochs, lr=given.lr, distil=given.distil)
    if given.backbone == "alexnet":
        budgets = [
            (Budget(params=1 / 16), None),
            # A little less than the third that is wanted: it is measured again afterwards.
            (Budget(params=1 / 16, latency=0.32), again),
        ]
    else:
        budgets = [(Budget(macs=0.5), again)]
    rows = kept_rows(given)
    done = {(row["split"], row["budget"]) for row in rows}
    for budget, recovery in budgets if given.epochs else budgets[:1]:
        for split in given.splits:
            if (split, words(budget, recovery)) in done:
                continue
            model, context = trained(given, split)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            started = time.process_time()
            whole = prune_whole(
                model,
                context.dataset,
                context.config,
                budget,
                recovery=recovery,
                device=context.device,
            )
            used = time.process_time() - started
            images = context.dataset.sides["train"].eval_views(slice(0, 64), context.device)
            batch64 = torch_latency(model, whole.model, images, batch=64, budget_s=10)
            batch1 = torch_latency(model, whole.model, images, batch=1, budget_s=5)
            recovered = whole.recovered
            row: Row = {
                "split": split,
                "budget": words(budget, recovery),
                "val": accuracy(model, context, "val"),
                "val_cut": accuracy(whole.before_recovery, context, "val"),
                "val_after": accuracy(whole.model, context, "val"),
                "test": accuracy(model, context, "test"),
                "test_cut": accuracy(whole.before_recovery, context, "test"),
                "test_after": accuracy(whole.model, context, "test"),
                "last_epoch": None
                if recovered is None
                else 100 * recovered.fit.curve[-1].val_accuracy,
                "params": _size(whole.model) / _size(model),
                "macs": whole.record["chosen"]["macs"],
                "latency_64": batch64.ratio_p50,
                "latency_1": batch1.ratio_p50,
                "seconds": whole.record["seconds"],
                "lr": None if recovered is None else recovered.lr,
                "recovery_s": None if recovered is None else recovered.seconds,
                "cpu_s": used,
                "kept": whole.chosen.kept,
                "added_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
            keep_rows(given, rows)
    return rows


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def print_targets(rows: list[Row]) -> None:
    print(
        "\n| budget | parameters | MACs | batch 64 | batch 1 | validation after the cut, points "
        "| test | validation in the end | test | unpruned val, test | pruning, s | recovery, s "
        "| processor, s | added MiB |\n|" + "---|" * 14
    )
    for budget in dict.fromkeys(row["budget"] for row in rows):
        own = [row for row in rows if row["budget"] == budget]

        def mean(name: str, own: list[Row] = own) -> float:
            return float(np.mean([row[name] for row in own]))

        recovery = "" if own[0]["recovery_s"] is None else f"{mean('recovery_s'):.0f}"
        print(
            f"| {budget} | {mean('params'):.4f} | {mean('macs'):.2f} | {mean('latency_64'):.2f} "
            f"| {mean('latency_1'):.2f} | {spread([r['val_cut'] - r['val'] for r in own])} "
            f"| {spread([r['test_cut'] - r['test'] for r in own])} "
            f"| {spread([r['val_after'] - r['val'] for r in own])} "
            f"| {spread([r['test_after'] - r['test'] for r in own])} "
            f"| {mean('val'):.1f}, {mean('test'):.1f} | {mean('seconds'):.0f} | {recovery} "
            f"| {mean('cpu_s'):.0f} | {max(r['added_mib'] for r in own):.0f} |"
        )


def main() -> None:
    known = options(__doc__ or "")
    known.add_argument("--epochs", type=int, default=60, help="of recovery")
    known.add_argument("--lr", type=float, default=RecoveryOptions.lr)
    known.add_argument("--distil", type=float, default=RecoveryOptions.distil)
    given = known.parse_args()
    print(heading(), flush=True)
    print_targets(targets(given))


if __name__ == "__main__":
    main()
