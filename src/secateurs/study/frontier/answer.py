"""The recommended network: tested once, exported, and measured against the unpruned one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateurs
from secateurs.progress import Progress
from secateurs.ship.checkpoint import load, save
from secateurs.ship.export import onnx_obstacle
from secateurs.ship.program import export_program
from secateurs.stopping import StopFlag
from secateurs.study.frontier.refit import Refit
from secateurs.study.frontier.trust import trust_stage, with_confidence
from secateurs.study.pruning.savings import price
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.stages import (
    FILES,
    Stages,
    example_images,
    machine_words,
    write_onnx,
)

FORMAT = 4  # of what the stage writes: with a refit since 4
Record = dict[str, Any]


def export_recommended(
    folder: Path,
    unpruned: Path,
    context: TrialContext,
    stages: Stages,
    key: Record,
    *,
    refit: Refit | None = None,
    stop: StopFlag,
    progress: Progress,
) -> Record:
    """Write the network in `folder` to `model/` with its exports, and `unpruned` to `unpruned/`.

    Both keep the temperature and the threshold that the validation images give, for `predict`. With
    a `refit` the first is then trained on the validation images too, and tested as it is after
    that. Returns the accuracy on the test images, the cost of both: what pruning saved, and under
    "trust" what `trust_stage` measures, of both networks before a refit.
    """
    out = stages.root
    network = load(folder)
    obstacle = onnx_obstacle(network.model)
    note = obstacle and f"No ONNX file was written and ONNX Runtime was not timed: {obstacle}"
    names = ["model", "tensors", "program", "unpruned"]
    names += [] if note else ["onnx", "unpruned_onnx"]
    makes = (*(out / FILES[name] for name in names), out / "unpruned" / "model.safetensors")

    def make() -> Record:
        sure, refitted = with_confidence(network, context), None
        if refit is not None:
            sure, refitted = refit.run(sure, context)
        whole = with_confidence(load(unpruned), context)
        stop.check()
        example = example_images(context)
        with progress.task("export", 3) as advance:
            save(sure.model, sure.spec, out / "model")
            save(whole.model, whole.spec, out / "unpruned")
            check = write_onnx(sure, out / FILES["onnx"], example, note)
            advance(1)
            stop.check()
            write_onnx(whole, out / FILES["unpruned_onnx"], example, note)
            advance(1)
            stop.check()
            export_program(sure.model, sure.spec, out / FILES["program"], example)
            advance(1)
        stop.check()
        test = evaluate_model(_on(sure.model, context), context.dataset, "test", context.device)
        return {
            "name": folder.name,
            "unpruned": unpruned.name,
            "test": test.to_json(),
            "refit": refitted,
            "onnx_max_abs_difference": None if check is None else check.max_abs_difference,
        }

    version = {"version": secateurs.__version__, "format": FORMAT}
    if refit is not None:
        version |= {"refit": asdict(refit.recovery)}
    made = stages.run("recommended", key | version, make, makes=makes)
    stop.check()
    cost = stages.run(
        "cost",
        key | version | {"machine": machine_words(context), "torch": torch.__version__},
        lambda: price(
            out / "unpruned",
            out / "model",
            example_images(context),
            device=context.device,
            onnx_note=note,
            progress=progress,
        ),
    )
    stop.check()
    pruned = folder != unpruned
    trust = trust_stage(
        context,
        stages,
        key | version,
        before=unpruned,
        after=folder if pruned else None,
        stop=stop,
        progress=progress,
    )
    return made | {"cost": cost, "trust": trust, "files": {name: FILES[name] for name in names}}


def _on(model: nn.Module, context: TrialContext) -> nn.Module:
    return model.to(context.device)
