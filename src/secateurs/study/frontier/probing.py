"""The candidates of a study over several networks: opened, probed, and the few to fine-tune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from secateurs.data.scan import scan
from secateurs.errors import InputError
from secateurs.files import atomic_path, fingerprint
from secateurs.fit.precision import resolve_device, resolve_precision
from secateurs.fit.probe.head import Head
from secateurs.fit.probe.probing import ProbeResult, probe
from secateurs.fit.tensors import read_checked, write_checked
from secateurs.nets.candidates import AUTO, Skipped, candidate
from secateurs.nets.depth import num_depths
from secateurs.nets.steps import auto_depths, depth_name
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.splitting import data_folder
from secateurs.study.setup.trial_context import TrialContext, open_context
from secateurs.study.stages import Stages

Record = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """The candidates that can be used, and those that cannot with the reasons."""

    contexts: tuple[TrialContext, ...]
    skipped: tuple[Skipped, ...]

    @property
    def by_name(self) -> dict[str, TrialContext]:
        """The contexts by the name of the backbone."""
        return {context.config.backbone: context for context in self.contexts}


@dataclass(frozen=True)
class Probed:
    """A candidate with what the probe found: one row a depth, and the head that it gives.

    `context` starts networks from the head; `key` is of all that decides the rows.
    """

    context: TrialContext
    rows: list[Record]
    key: str

    @property
    def best(self) -> Record:
        """The row of the depth with the highest accuracy on training images left out."""
        return max(self.rows, key=lambda row: (row["train_accuracy"], row["depth"]))

    @property
    def head_depth(self) -> int:
        """The depth at which only the head is trained."""
        return max(row["depth"] for row in self.rows)

    def model(self) -> nn.Module:
        """The published network with the probe as its last layer."""
        return self.context.new_model(seed=self.context.config.seed, pretrained=True).eval()

    def to_json(self) -> Record:
        """What results.json keeps."""
        return {
            "backbone": self.context.config.backbone,
            "weights": self.context.weights.to_json(),
            "depths": self.rows,
            "head": self.context.head is not None,
        }


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
    resolve_precision(config.precision, resolve_device(config.device))
    scan(data_folder(data, cache=cache, progress=progress), split=config.split)
    contexts: list[TrialContext] = []
    skipped: list[Skipped] = []
    for name in names:
        if not options.backbones:
            try:
                candidate(name, weights=config.weights, cache=cache, progress=progress)
            except InputError as error:
                skipped.append(Skipped(name, str(error)))
                progress.note(f"without {name}: {error}")
                continue
        own = replace(config, backbone=name, depths=(), layers=(), fitted=("batch_size", "layers"))
        contexts.append(open_context(data, own, cache=cache, strict=strict, progress=progress))
    if not contexts:
        raise InputError(
            "no network to start from: "
            + "; ".join(f"{one.name}: {one.reason}" for one in skipped)
            + "; name networks with --backbones and give --weights"
        )
    return Opened(tuple(contexts), tuple(skipped))


def probe_candidates(
    opened: Opened, stages: Stages, *, stop: StopFlag, progress: Progress = SILENT
) -> list[Probed]:
    """Probe every candidate at some depths; what was probed before is read."""
    return [_probe_one(context, stages, stop, progress) for context in opened.contexts]


def _probe_one(context: TrialContext, stages: Stages, stop: StopFlag, progress: Progress) -> Probed:
    stop.check()
    config, dataset = context.config, context.dataset
    model = context.new_model(seed=config.seed, pretrained=True)
    depths = auto_depths(model, config.backbone)
    key: Record = {
        **dataset.identity(),
        "backbone": config.backbone,
        "weights": {"loaded": list(context.weights.loaded), "sha256": context.weights.sha256},
        "resize": config.resize,
        "seed": config.seed,
        "depths": list(depths),
        "groups": dataset.groups is not None,
        "precision": context.precision,
        "device": context.device.type,
    }
    name = f"probe-{config.backbone.replace(':', '-').replace('/', '-')}"
    path = stages.root / "stages" / f"{name}.safetensors"

    def make() -> Record:
        found = probe(
            model,
            config.backbone,
            depths,
            dataset.sides["train"],
            dataset.sides["val"],
            num_classes=len(dataset.classes),
            groups=_groups(context, "train"),
            val_groups=_groups(context, "val"),
            device=context.device,
            precision=context.precision,
            stop=stop,
            progress=progress,
        )
        _write_scores(found, path)
        rows = [
            {**row, "name": depth_name(model, config.backbone, row["depth"])}
            for row in found.to_json()
        ]
        best = max(row["val_accuracy"] for row in rows)
        progress.note(f"{config.backbone}: frozen features reach {best:.1%} on validation")
        return {"depths": rows, "num_depths": num_depths(model, config.backbone)}

    record = stages.run(name, key, make, makes=(path,))
    tensors, _ = read_checked(path)
    head = None
    if "weight" in tensors:
        temperature, shift = tensors["scale"].tolist()
        head = Head(tensors["weight"], tensors["bias"], temperature, shift)
    return Probed(replace(context, head=head), record["depths"], fingerprint(key))


def _write_scores(found: ProbeResult, path: Path) -> None:
    """The head and the class scores of every image at every depth."""
    import torch

    tensors = {f"train_{one.depth}": one.train_scores.contiguous() for one in found.depths}
    tensors |= {f"val_{one.depth}": one.val_scores.contiguous() for one in found.depths}
    head = found.head
    if head is not None:
        tensors |= {"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}
        tensors["scale"] = torch.tensor([head.temperature, head.shift], dtype=torch.float64)
    with atomic_path(path) as temporary:
        write_checked(tensors, temporary)


def choose_arms(
    probed: list[Probed], options: FrontierOptions, *, progress: Progress = SILENT
) -> list[ArmPlan]:
    """The networks to fine-tune and their depths, by the probe alone.

    Networks by the accuracy of their best depth on training images left out. Depths: the first at
    which the features are as good as the best ones of the network, within its interval, is where
    later layers begin to add nothing; from there on towards the input, since what is trained has to
    improve on the features before it.
    """
    ranked = sorted(probed, key=lambda one: -one.best["train_accuracy"])
    plans: list[ArmPlan] = []
    for one in ranked[: options.num_networks]:
        depths = depths_to_tune(one.rows, options.num_depths)
        names = {row["depth"]: row["name"] for row in one.rows}
        words = "; ".join(names[depth] for depth in depths)
        progress.note(f"to fine-tune: {one.context.config.backbone} ({words})")
        plans.append(ArmPlan(one.context, depths))
    return plans


def depths_to_tune(rows: list[Record], num: int) -> tuple[int, ...]:
    """The depths to fine-tune at, out of those that were probed: see `choose_arms`.

    >>> rows = [{"depth": d, "train_accuracy": a, "train_low": a - 0.03}
    ...         for d, a in ((0, 0.3), (4, 0.6), (8, 0.79), (12, 0.8))]
    >>> depths_to_tune(rows, 2), depths_to_tune(rows, 9)
    ((4, 8), (0, 4, 8, 12))
    """
    rows = sorted(rows, key=lambda row: row["depth"])
    best = max(rows, key=lambda row: row["train_accuracy"])
    known = next(
        place for place, row in enumerate(rows) if row["train_accuracy"] >= best["train_low"]
    )
    near = sorted(range(len(rows)), key=lambda place: (abs(place - known), place))
    return tuple(sorted(rows[place]["depth"] for place in near[:num]))


def _groups(context: TrialContext, side: str) -> list[str] | None:
    dataset = context.dataset
    if dataset.groups is None:
        return None
    return [dataset.groups[row] for row in getattr(dataset.split, side)]
