"""Which candidates can come within the limits: what they have, and what pruning would leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.attention import open_attention
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.cost_model import Widths
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.eligible import norm_width, without
from secateurs.prune.surgery.narrow import narrow
from secateurs.stopping import StopFlag
from secateurs.study.frontier.latency import time_models
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.shortlist import Probed
from secateurs.study.stages import Stages, machine_words

SHARE = 0.25  # of the multiply-accumulates, where a study prunes to no smaller size
FEWEST = 8  # units of a group, as a budget leaves them
BUDGET_S = 6.0  # for timing all candidates
HALVINGS = 12
Record = dict[str, Any]


@dataclass(frozen=True)
class Reach:
    """10**6 bytes and milliseconds of a network, and the least that pruning would leave of them.

    The times are None where no limit asks for them.
    """

    backbone: str
    mb: float
    least_mb: float
    ms: float | None = None
    least_ms: float | None = None

    def excess(self, options: FrontierOptions) -> float:
        """How far the network stays beyond the limits: 0 within them, 0.5 half as much again."""
        over = [0.0]
        if options.max_mb is not None:
            over.append(self.least_mb / options.max_mb - 1)
        if options.max_ms is not None and self.least_ms is not None:
            over.append(self.least_ms / options.max_ms - 1)
        return max(over)


def share_of(options: FrontierOptions) -> float:
    """The share of the multiply-accumulates to which a study prunes at most, before limits."""
    return min(options.sizes, default=SHARE)


def estimate_reach(
    probed: Sequence[Probed],
    options: FrontierOptions,
    stages: Stages,
    *,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> list[Reach]:
    """What each candidate has and could come to; nothing where no limit is given.

    The least is what a network has whose groups of units are all narrowed alike, to the smallest
    share of the multiply-accumulates to which the study prunes. It is timed like the answer,
    in the same rounds as the unpruned network.
    """
    if options.max_mb is None and options.max_ms is None:
        return []
    timed = options.max_ms is not None
    first = probed[0].context
    key = {
        "networks": [one.found.record["key"] for one in probed],
        "share": share_of(options),
        "batch": options.batch if timed else None,
        "machine": machine_words(first) if timed else None,
    }

    def make() -> Record:
        networks: dict[str, nn.Module] = {}
        images: dict[str, Tensor] = {}
        with progress.task("what pruning can reach", len(probed)) as advance:
            for one in probed:
                stop.check()
                name, val = one.found.name, one.context.dataset.sides["val"]
                views = val.eval_views(slice(0, max(2, options.batch)), one.context.device)
                networks[name] = one.model()
                networks[f"{name} pruned"] = narrowed(networks[name], views, share_of(options))
                images |= {name: views, f"{name} pruned": views}
                advance(1)
        ms: dict[str, Any] = {}
        if timed:
            ms = time_models(
                networks,
                images,
                batch=options.batch,
                device=first.device,
                budget_s=BUDGET_S,
                stop=stop,
                progress=progress,
            )["ms"]
        return {
            "networks": [
                asdict(
                    Reach(
                        backbone=one.found.name,
                        mb=_megabytes(networks[one.found.name]),
                        least_mb=_megabytes(networks[f"{one.found.name} pruned"]),
                        ms=ms[one.found.name]["median"] if timed else None,
                        least_ms=ms[f"{one.found.name} pruned"]["median"] if timed else None,
                    )
                )
                for one in probed
            ]
        }

    return [Reach(**row) for row in stages.run("reach", key, make)["networks"]]


def within_reach(
    found: Sequence[Reach], options: FrontierOptions
) -> tuple[frozenset[str], tuple[str, ...]]:
    """The networks that are worth fine-tuning under the limits, and sentences on the others.

    Where none can come within the limits it is the nearest.
    """
    near = {one.backbone for one in found if one.excess(options) <= 0}
    if not near and found:
        nearest = min(found, key=lambda one: one.excess(options))
        return frozenset({nearest.backbone}), (
            f"no network is likely to come within the limits; {nearest.backbone} is the nearest: "
            f"{_least(nearest, options)}",
        )
    return frozenset(near), tuple(
        f"{one.backbone} is not fine-tuned: {_least(one, options)}"
        for one in found
        if one.backbone not in near
    )


def narrowed(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """A copy with every group of units narrowed alike, to a share of the multiply-accumulates.

    It is as near to the share as `FEWEST` units of each group allow; a network of which nothing
    can be pruned comes back whole.
    """
    model = open_attention(model).eval()
    try:
        groups = without(find_groups(model, example), norm_width)
        if not groups.found:
            return model
        widths = Widths(model, groups.found, example)
    except InputError:
        return model

    def kept(part: float) -> dict[str, int]:
        return {
            name: min(units, max(FEWEST, round(part * units)))
            for name, units in widths.whole.items()
        }

    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if widths.fraction(widths.price(kept(middle))).macs > share:
            high = middle
        else:
            low = middle
    stay = {name: torch.arange(number) for name, number in kept(low).items()}
    return narrow(model, groups.found, stay)


def _megabytes(model: nn.Module) -> float:
    return sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6


def _least(one: Reach, options: FrontierOptions) -> str:
    parts = [
        f"{one.least_mb:.1f} MB of {one.mb:.1f}" if options.max_mb is not None else "",
        f"{one.least_ms:.1f} ms of {one.ms:.1f}" if options.max_ms is not None else "",
    ]
    return (
        f"pruned to {share_of(options):.0%} of its multiply-accumulates it would have about "
        + " and ".join(part for part in parts if part)
    )
