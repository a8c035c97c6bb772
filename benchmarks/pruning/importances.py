"""Accuracy against multiply-accumulates and measured time: our cut and torch-pruning's importances.

    python benchmarks/pruning/importances.py DATA --group-by REGEX --weights FILE \\
        --store DIR --json FILE

For each split s a network is fine-tuned at --depth (kept in --store), then cut to several shares of
its multiply-accumulates: by ours; and by torch-pruning's L2, geometric-median, Taylor and random
importances with the same share of units kept in every layer. Each with and without our least
squares, and all with the same recovery at --recover-at. `ours` is one start of the merging;
`ours_judged` the best of five on validation, as in `prune_whole`, which is no comparison among
equals on validation. Validation accuracy; the test images are not looked at. Goes on from the file
of figures, which `importances_chart.py` draws.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from networks import Row, heading, keep_rows, kept_rows, options, spread, trained
from secateurs.fit.metrics import predict_logits
from secateurs.nets.batches import blank_image
from secateurs.nets.chain import chain
from secateurs.prune.allocation.budget import Widths, descent
from secateurs.prune.allocation.merge_costs import with_merging
from secateurs.prune.allocation.survey import Survey, survey
from secateurs.prune.compensation.batch_norm import measure_norms
from secateurs.prune.coupling.groups import Group, find_groups
from secateurs.prune.network import StartValidation, prune_groups
from secateurs.ship.latency import torch_latency
from secateurs.study.pruning.network import score_logits, views
from secateurs.study.pruning.recovery import RecoveryOptions, recover
from secateurs.study.setup.trial_context import TrialContext

LATENCY_S = 5.0
RULES = ("ours", "ours_judged", "l2", "geometric_median", "taylor", "random")


@dataclass
class Case:
    """The network of a split and all that a cut of it needs."""

    split: int
    backbone: str
    model: nn.Module
    context: TrialContext
    batches: list[Tensor]
    groups: list[Group]
    seen: Survey
    widths: Widths
    scores: dict[str, dict[str, Tensor]]  # of torch-pruning: by rule, by group
    held: list[Tensor]  # validation images
    answers: Tensor
    unpruned: float = 0.0  # validation accuracy in percent
    times: dict[tuple[int, ...], float] = field(default_factory=dict)  # share left, by widths

    def score(self, network: nn.Module) -> float:
        """Validation accuracy in percent."""
        logits = torch.cat([predict_logits(network, images) for images in self.held])
        return 100 * float((logits.argmax(1) == self.answers).double().mean())

    def time_left(self, network: nn.Module, kept: dict[str, int]) -> float:
        """At batch 64, against the network given; of widths, not of weights, so once for each."""
        widths = tuple(kept.values())
        if widths not in self.times:
            row = torch_latency(self.model, network, self.batches[0], batch=64, budget_s=LATENCY_S)
            self.times[widths] = row.ratio_p50
        return self.times[widths]


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


def opened(given: argparse.Namespace, split: int) -> Case:
    """The network of a split, surveyed and scored by every rule."""
    model, context = trained(given, split)
    model.eval()
    train, val = context.dataset.sides["train"], context.dataset.sides["val"]
    batches = views(train, context.device, mirrored=context.config.augment)
    copies = 1 + context.config.augment
    groups = find_groups(model, blank_image(model, train.size)).found
    seen = survey(model, groups, batches, copies=copies, seed=split)
    seen = with_merging(
        model,
        groups,
        seen,
        batches,
        steps=lambda network: chain(network, given.backbone),
        copies=copies,
    )
    torch.manual_seed(split)
    some = batches[0], torch.from_numpy(train.labels[: len(batches[0])])
    case = Case(
        split,
        given.backbone,
        model,
        context,
        batches,
        groups,
        seen,
        Widths(model, groups, blank_image(model, train.size)),
        {
            rule: tp_scores(rule, model, groups, *some)
            for rule in given.rules
            if not rule.startswith("ours")
        },
        views(val, context.device),
        torch.from_numpy(val.labels),
    )
    case.unpruned = case.score(model)
    return case


def measured(case: Case, rule: str, refitting: bool, macs: float, epochs: int) -> Row:
    """One cut, its accuracy and time, and its accuracy after `epochs` of recovery."""
    ours = rule.startswith("ours")
    survivors = None
    if ours:
        kept = descent(case.widths, case.seen.eliminations, macs=macs, round_to=8)[-1].kept
    else:
        kept = evenly(case.widths, macs, 8)
        survivors = {
            name: values.topk(kept[name]).indices.sort().values
            for name, values in case.scores[rule].items()
        }
    config, device = case.context.config, case.context.device
    started = time.perf_counter()
    result = prune_groups(
        case.model,
        case.groups,
        case.seen,
        kept,
        case.batches,
        refitting=refitting,
        merging=ours,
        survivors=survivors,
        validation=StartValidation(case.held, partial(score_logits, labels=case.answers))
        if rule == "ours_judged"
        else None,
        copies=1 + config.augment,
        seed=case.split,
    )
    measure_norms(result.model, case.batches)
    seconds = time.perf_counter() - started
    price, whole = case.widths.price(kept), case.widths.price(case.widths.whole)
    row: Row = {
        "split": case.split,
        "rule": rule,
        "refitted": refitting,
        "level": macs,
        "macs": price.macs / whole.macs,
        "params": price.parameters / whole.parameters,
        "unpruned": case.unpruned,
        "seconds": seconds,
        "cut": case.score(result.model),
        "latency": case.time_left(result.model, kept),
        "epochs": epochs,
        "recovered": None,
    }
    if epochs:
        again = recover(
            result.model,
            case.model,
            case.context.dataset,
            config,
            RecoveryOptions(epochs),
            device=device,
        )
        row["recovered"] = case.score(again.model)
    return row


def curves(given: argparse.Namespace, rows: list[Row]) -> Iterator[Row]:
    """Every cut that `rows` do not hold yet: split by split, level by level."""
    done = {cell(row): row["epochs"] for row in rows}
    for split in given.splits:
        missing = [
            (rule, refitting, level, epochs)
            for level in given.levels
            for epochs in [given.epochs if level in given.recover_at else 0]
            for rule in given.rules
            for refitting in (True, False)
            if done.get((split, level, rule, refitting)) not in (epochs, given.epochs)
        ]
        case = opened(given, split) if missing else None
        for rule, refitting, level, epochs in missing:
            assert case is not None
            yield measured(case, rule, refitting, level, epochs)


def cell(row: Row) -> tuple[Any, ...]:
    """What a row is of."""
    return row["split"], *kind(row)


def kind(row: Row) -> tuple[Any, ...]:
    """The same on any split."""
    return row["level"], row["rule"], row["refitted"]


def print_curves(rows: list[Row]) -> None:
    """Each rule against the unpruned network, and ours against each rule on the same splits."""
    levels = sorted({row["level"] for row in rows}, reverse=True)
    head = f"| rule | {' | '.join(f'MACs {level:g}' for level in levels)} |\n"
    head += "|---" * (len(levels) + 1) + "|"
    kinds = dict.fromkeys((row["rule"], row["refitted"]) for row in rows)
    for what, name in (("cut", "the cut"), ("recovered", "recovery")):
        if all(row[what] is None for row in rows):
            continue
        found = {cell(row): row for row in rows if row[what] is not None}
        print(f"\nPoints of validation accuracy after {name}, and latency left at batch 64:\n")
        print(head)
        for rule, refitted in kinds:
            cells: list[str] = []
            for level in levels:
                own = [row for row in found.values() if kind(row) == (level, rule, refitted)]
                lost = [row[what] - row["unpruned"] for row in own]
                time_left = np.mean([row["latency"] for row in own]) if own else 0.0
                cells.append(f"{spread(lost)}, {100 * time_left:.0f}%" if own else "")
            print(f"| {rule}, {_weights(refitted)} | {' | '.join(cells)} |")
        print(f"\nPoints of ours after {name} less those of each rule, in pairs:\n")
        print(head)
        for rule, refitted in kinds:
            if rule == "ours":
                continue
            cells = []
            for level in levels:
                ahead = [
                    found[split, level, "ours", refitted][what] - row[what]
                    for (split, *rest), row in found.items()
                    if rest == [level, rule, refitted] and (split, level, "ours", refitted) in found
                ]
                better = sum(points > 0 for points in ahead)
                cells.append(f"{spread(ahead)}, {better} of {len(ahead)}" if ahead else "")
            print(f"| {rule}, {_weights(refitted)} | {' | '.join(cells)} |")


def _weights(refitted: bool) -> str:
    return "least squares" if refitted else "as they are"


def main() -> None:
    known = options(__doc__ or "")
    known.add_argument("--epochs", type=int, default=10, help="of recovery")
    known.add_argument("--levels", type=_numbers, default=[0.7, 0.5, 0.35, 0.25])
    known.add_argument("--recover-at", type=_numbers, default=[0.25])
    known.add_argument("--rules", type=lambda text: text.split(","), default=list(RULES))
    given = known.parse_args()
    print(heading(), flush=True)
    rows = kept_rows(given)
    for row in curves(given, list(rows)):
        rows = [*(old for old in rows if cell(old) != cell(row)), row]
        print(json.dumps(row), flush=True)
        keep_rows(given, rows)
    print_curves(rows)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
