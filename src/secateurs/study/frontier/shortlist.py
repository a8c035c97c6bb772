"""The shortlist of a study: its candidates opened, probed, and the few of them to fine-tune."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateurs.data.scan import scan
from secateurs.errors import InputError
from secateurs.files import write_text
from secateurs.fit.precision import resolve_device, resolve_precision
from secateurs.nets.backbones import bare, check_name
from secateurs.nets.candidates import AUTO, Skipped, candidates
from secateurs.nets.depth import depth_name
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.labelling import TABLE, csv_text, label_findings
from secateurs.study.probe.earlier_depths import with_earlier_depths
from secateurs.study.probe.network import NetworkProbe, probe_network
from secateurs.study.probe.run import FOLDER, gather
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.splitting import data_folder
from secateurs.study.setup.trial_context import TrialContext, open_context

Record = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """The candidates that can be used, and those that cannot with the reasons.

    `depths` are those that were asked for, None where the probe suggests them.
    """

    contexts: tuple[TrialContext, ...]
    skipped: tuple[Skipped, ...]
    depths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Probed:
    """A candidate with what the probe found; `context` starts networks from the probe's head."""

    context: TrialContext
    found: NetworkProbe

    @property
    def head_depth(self) -> int:
        """The depth at which only the head is trained."""
        return self.found.record["num_depths"] - 1

    def correct(self) -> NDArray[np.bool_]:
        """Which images the probe at the head answers correctly: training images out of their group,
        then validation images."""
        sides = self.context.dataset.sides
        labels = np.concatenate([sides[side].labels for side in ("train", "val")])
        return self.found.correct(self.head_depth, labels)

    def depth_names(self, depths: Sequence[int]) -> list[str]:
        """What is frozen at some depths, in words."""
        name = self.context.config.backbone
        model = bare(name, len(self.context.dataset.classes))
        return [depth_name(model, name, depth) for depth in depths]

    def model(self) -> nn.Module:
        """The published network with the probe as its last layer."""
        return self.context.new_model(seed=self.context.config.seed, pretrained=True).eval()


@dataclass(frozen=True)
class ArmPlan:
    """A network to fine-tune, and at which depths."""

    context: TrialContext
    depths: tuple[int, ...]


def open_candidates(
    data: str,
    config: StudyConfig,
    options: FrontierOptions,
    *,
    cache: Path,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Opened:
    """Open the images for every candidate whose weights can be had.

    A network that was named has to be had; of those that are tried by themselves the others are
    skipped. Raises InputError for bad input, and when no candidate is left.
    """
    names = options.backbones or AUTO
    if len(names) > 1 and config.weights not in ("auto", "none"):
        raise InputError(
            "weights: a file is of one network; name that with --backbones, or give auto or none"
        )
    # What is wrong with the options or the folder is said before any weights are fetched.
    for name in names:
        check_name(name)
    resolve_precision(config.precision, resolve_device(config.device))
    scan(data_folder(data, cache=cache, progress=progress), split=config.split)
    skipped: tuple[Skipped, ...] = ()
    if not options.backbones:
        found, skipped = candidates(names, cache=cache, progress=progress)
        names = tuple(one.name for one in found)
        for one in skipped:
            progress.note(f"without {one.name}: {one.reason}")
    if not names:
        raise InputError(
            "no network to start from: "
            + "; ".join(f"{one.name}: {one.reason}" for one in skipped)
            + "; name one with --backbone and give --weights"
        )
    asked = "depths" not in (config.fitted or ()) and not config.auto_depths
    own = replace(
        config,
        depths=config.depths if asked else (),
        auto_depths=False,
        layers=(),
        fitted=tuple({*(config.fitted or ()), "layers"} - {"depths"}),
    )
    contexts = [
        open_context(
            data,
            replace(own, backbone=name),
            cache=cache,
            strict=strict,
            progress=progress,
        )
        for name in names
    ]
    return Opened(tuple(contexts), skipped, contexts[0].depths if asked else None)


def probe_candidates(
    opened: Opened,
    out: Path,
    *,
    earlier_depths: bool = True,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> list[Probed]:
    """Probe every candidate at some depths; what `out`/probe has of it is read.

    With `earlier_depths` a candidate whose head gains by reading earlier depths too is replaced by
    the network with such a head.
    """
    probed: list[Probed] = []
    for context in opened.contexts:
        stop.check()
        found = probe_network(context, out / FOLDER, stop=stop, progress=progress)
        best = max(found.record["depths"], key=lambda row: row["train_accuracy"])
        progress.note(
            f"{context.config.backbone}: a linear classifier on its features reaches "
            f"{best['train_accuracy']:.1%} ({best['name']})"
        )
        one = Probed(replace(context, head=found.head), found)
        if earlier_depths and found.earlier is not None:
            one = Probed(*with_earlier_depths(context, found))
            progress.note(earlier_note(found.record))
        probed.append(one)
    return probed


def earlier_note(record: Record) -> str:
    """What the head of a network gains by reading earlier depths, and why it does."""
    row, last = record["earlier"], record["depths"][-1]
    gain = row["gain"]
    return (
        f"{record['backbone']}: its head also reads {', '.join(row['paths'])}, which lowers the "
        f"squared error on left-out training images from {last['error']:.3g} to "
        f"{row['error']:.3g} (accuracy {100 * gain['difference']:+.1f} points, 95% "
        f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
    )


def choose_arms(
    probed: list[Probed],
    opened: Opened,
    options: FrontierOptions,
    out: Path,
    *,
    within: Collection[str] = (),
    progress: Progress = SILENT,
) -> tuple[list[ArmPlan], Record]:
    """The networks to fine-tune and at which depths, by the probe, and what is kept of the probe.

    See `suggest`. Only those `within` reach of the limits are considered, all where that is empty.
    Depths that were asked for are taken as they are. Writes what the probe says of labels to
    `out`/labels.csv.
    """

    def allowed(record: Record) -> bool:
        return not within or record["backbone"] in within

    skipped = [{"backbone": one.name, "reason": one.reason} for one in opened.skipped]
    found = gather(
        probed[0].context.dataset,
        [one.found for one in probed],
        skipped,
        num=options.num_networks,
        allowed=allowed,
        seconds=sum(one.found.record["seconds"] for one in probed),
    )
    plans: list[ArmPlan] = []
    for suggestion in found.suggestions:
        one = next(one for one in probed if one.found.name == suggestion.backbone)
        depths = opened.depths or near_depths(suggestion.freeze, options.num_depths)
        names = "; ".join(one.depth_names(depths))
        progress.note(f"to fine-tune: {suggestion.backbone}, {suggestion.reason} (depths: {names})")
        plans.append(ArmPlan(one.context, depths))
    found.record["labels"], table = label_findings(found, out)
    write_text(out / TABLE, csv_text(table))
    return plans, found.record


def near_depths(ranked: tuple[int, ...], num: int) -> tuple[int, ...]:
    """The `num` likeliest of ranked depths; of two that are as near the one that trains less.

    >>> near_depths((30, 21, 42, 9, 52), 2), near_depths((30, 21, 42, 9, 52), 3)
    ((30, 42), (21, 30, 42))
    """
    near = sorted(ranked[: num + 1])
    return tuple(near[len(near) - num :]) if len(near) > num else tuple(near)
