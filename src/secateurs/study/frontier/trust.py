"""Whether the recommended network can be trusted, and what it gets wrong: measured after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import Loaded, load
from secateurs.stopping import StopFlag
from secateurs.study.insight.mistake_maps import add_maps
from secateurs.study.insight.mistakes import mistakes_record
from secateurs.study.insight.trust import find_confidence, trust_record
from secateurs.study.saved.confidence import KEY
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.stages import Stages

SIDE = "test"
Record = dict[str, Any]


def with_confidence(network: Loaded, context: TrialContext) -> Loaded:
    """A network whose recipe keeps its temperature and threshold, found on validation images."""
    model = network.model.to(context.device)
    logits = side_logits(model, context.dataset, "val", context.device)
    found = find_confidence(logits, context.dataset.sides["val"].labels)
    spec = network.spec
    extra = {**spec.extra, KEY: found.to_json()}
    return Loaded(model.cpu(), replace(spec, extra=extra))


def trust_stage(
    context: TrialContext,
    stages: Stages,
    key: Record,
    *,
    before: Path,
    after: Path | None,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> Record:
    """Calibration, coverage, corruptions, rare classes, groups and mistakes on the test images.

    Of the unpruned network in the folder `before` and, where it was pruned, of that in `after`:
    both as they were chosen, before a refit, so that they have seen the same images. Nothing is
    chosen by it. A thumbnail that is gone or damaged is made again.
    """
    out = stages.root

    def make() -> Record:
        models: dict[str, nn.Module] = {}
        for when, folder in (("before", before), ("after", after)):
            if folder is not None:
                models[when] = load(folder).model.to(context.device).eval()
        dataset = context.dataset
        record = trust_record(
            models,
            dataset,
            dataset.side_groups(SIDE),
            device=context.device,
            stop=stop,
            progress=progress,
        )
        probabilities = {
            when: torch.softmax(side_logits(model, dataset, SIDE, context.device).double(), 1)
            for when, model in models.items()
        }
        for old in (out / "thumbnails").glob("mistake-*.jpg"):
            old.unlink()
        tables = {when: found.numpy() for when, found in probabilities.items()}
        mistakes = mistakes_record(tables, dataset, SIDE, out)
        stop.check()
        with progress.task("where the networks looked", 1) as advance:
            add_maps(mistakes, models, dataset, SIDE, out, device=context.device)
            advance(1)
        return record | {"mistakes": mistakes}

    return stages.run("trust", key, make)
