"""Networks of a study: evaluated on a side of its split, described for whoever loads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

import secateurs
from secateurs.errors import InputError
from secateurs.fit.metrics import Evaluation, evaluate, predict_logits
from secateurs.ship.spec import ModelSpec, describe
from secateurs.study.setup.trial_context import Dataset, TrialContext
from secateurs.study.trials.setting import TrialImages

EVAL_BATCH, EVAL_BATCH_ON_DEVICE = 64, 512


def side_logits(
    model: torch.nn.Module,
    dataset: TrialImages,
    side: str,
    device: torch.device,
    *,
    advance: Callable[[int], None] = lambda steps: None,
) -> torch.Tensor:
    """Logits (n, classes) on the evaluation views of a side, float32 on the CPU.

    Raises InputError when one of them is not finite. `advance` gets the number of images done.
    """
    images = dataset.sides[side]
    parts: list[torch.Tensor] = []
    step = EVAL_BATCH if device.type == "cpu" else EVAL_BATCH_ON_DEVICE
    for first in range(0, len(images), step):
        views = images.eval_views(slice(first, first + step), device)
        parts.append(predict_logits(model, views))
        advance(len(views))
    logits = torch.cat(parts)
    num_broken = int((~torch.isfinite(logits).all(dim=1)).sum())
    if num_broken:
        raise InputError(
            f"the network's outputs are not finite for {num_broken} of the {len(logits)} {side} "
            "images: it has diverged, or its weights are damaged"
        )
    return logits


def evaluate_model(
    model: torch.nn.Module,
    dataset: Dataset,
    side: str,
    device: torch.device,
    *,
    advance: Callable[[int], None] = lambda steps: None,
) -> Evaluation:
    """Evaluate a network on the images of a side; raises as `side_logits` does."""
    labels = torch.from_numpy(dataset.sides[side].labels)
    logits = side_logits(model, dataset, side, device, advance=advance)
    return evaluate(logits, labels, dataset.classes, dataset.side_groups(side))


def model_spec(
    model: torch.nn.Module, context: TrialContext, *, depth: int, kept: Mapping[str, Sequence[int]]
) -> ModelSpec:
    """What a saved network says of itself: backbone, classes, preprocessing, origin."""
    config = context.config
    return describe(
        model,
        config.backbone,
        context.dataset.classes,
        context.dataset.recipe,
        kept=kept,
        extra={
            "depth": depth,
            "weights": context.weights.sentence,
            "data": context.dataset.name,
            "config": config.to_json(),
            "secateurs": secateurs.__version__,
        },
        split=context.dataset.record(),
    )
