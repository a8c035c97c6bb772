"""Networks of a study: evaluated on a side of its split, described for whoever loads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

import secateurs
from secateurs.fit.metrics import Evaluation, evaluate, predict_logits
from secateurs.ship.spec import ImageInput, ModelSpec, describe
from secateurs.study.bench import Bench, Dataset

EVAL_BATCH = 64


def side_logits(
    model: torch.nn.Module, dataset: Dataset, side: str, device: torch.device
) -> torch.Tensor:
    """Logits (n, classes) on the evaluation views of a side, float32 on the CPU."""
    images = dataset.sides[side]
    parts = [
        predict_logits(model, images.eval_views(slice(first, first + EVAL_BATCH), device))
        for first in range(0, len(images), EVAL_BATCH)
    ]
    return torch.cat(parts)


def evaluate_model(
    model: torch.nn.Module, dataset: Dataset, side: str, device: torch.device
) -> Evaluation:
    """Evaluate a network on the images of a side."""
    labels = torch.from_numpy(dataset.sides[side].labels)
    return evaluate(side_logits(model, dataset, side, device), labels, dataset.classes)


def model_spec(
    model: torch.nn.Module, bench: Bench, *, depth: int, kept: Mapping[str, Sequence[int]]
) -> ModelSpec:
    """What a saved network says of itself: backbone, classes, preprocessing, origin."""
    config = bench.config
    return describe(
        model,
        config.backbone,
        bench.dataset.classes,
        ImageInput.of(config.backbone, resize=config.resize),
        kept=kept,
        extra={
            "depth": depth,
            "weights": bench.weights.sentence,
            "data": bench.dataset.name,
            "config": config.to_json(),
            "secateurs": secateurs.__version__,
        },
    )
