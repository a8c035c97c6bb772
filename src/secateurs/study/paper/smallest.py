"""The smallest networks that lose nothing on validation: fc7, fc6 and fc7, the whole network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from secateurs.progress import SILENT, Progress
from secateurs.prune.to_budget import Budget
from secateurs.stopping import StopFlag
from secateurs.study.pruning.network import prune_whole
from secateurs.study.pruning.tail import prune_network
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.stages import Stages

Record = dict[str, Any]
LAYERS = (("fc7",), ("fc6", "fc7"))


def smallest(
    model: nn.Module,
    context: TrialContext,
    stages: Stages,
    identity: Record,
    *,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> list[Record]:
    """A row for the network as it is, and one each for what can be cut off it without loss.

    Units are merged by their angles and the next layers refitted by least squares; the whole
    network goes by the loss that each unit costs. No training follows. Each row is a stage.
    """
    sides = context.dataset.sides
    rows = [_measured("unpruned", model, model, context)]
    for names in LAYERS:
        stop.check()

        def cut_layers(names: tuple[str, ...] = names) -> Record:
            config = replace(context.config, layers=names, max_loss=0.0)
            cut = prune_network(
                model,
                sides["train"],
                sides["val"],
                config,
                device=context.device,
                progress=progress,
            )
            kept = {layer["layer"]: layer["num_kept"] for layer in cut.layers}
            return _measured(" and ".join(names), cut.model, model, context) | {"kept": kept}

        rows.append(stages.run(f"smallest-{'-'.join(names)}", identity, cut_layers))
        rows[-1].pop("timing")
    stop.check()
    whole = prune_whole(
        model,
        context.dataset,
        context.config,
        Budget(max_loss=0.0),
        num_images=None,
        device=context.device,
        stop=stop,
        progress=progress,
    )
    rows.append(_measured("the whole network", whole.model, model, context))
    return rows


def _measured(what: str, model: nn.Module, before: nn.Module, context: TrialContext) -> Record:
    own, full = (sum(p.numel() for p in one.parameters()) for one in (model, before))
    return {
        "what": what,
        "kept": None,
        "num_parameters": own,
        "fraction": own / full,
        **{
            side: evaluate_model(model, context.dataset, side, context.device).to_json()
            for side in ("val", "test")
        },
    }
