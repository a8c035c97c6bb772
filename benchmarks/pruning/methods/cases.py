"""The networks that are pruned, with their images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import faces_networks
import torch
from torch import Tensor, nn

from networks import trained
from secateurs.fit.order import stratified_order
from secateurs.nets.chain import chain
from secateurs.prune.compensation.batch_norm import outputs_of

BATCH = 64


@dataclass
class Case:
    """A trained network, images without labels in batches, and the test images with theirs."""

    name: str
    seed: int
    model: nn.Module
    calibration: list[Tensor]
    held_out: list[Tensor]
    test: list[Tensor]
    labels: Tensor
    steps: Callable[[nn.Module], list[tuple[str, nn.Module]]] = lambda model: []
    _answers: Tensor | None = field(default=None, repr=False)

    def answers(self, model: nn.Module) -> Tensor:
        """What the unpruned network gives for the test images."""
        if self._answers is None:
            self._answers = outputs_of(model, self.test)
        return self._answers


def cases(given: argparse.Namespace) -> Generator[Case]:
    """Each network with each seed."""
    seeds = [int(part) for part in given.seeds.split(",")]
    for name in given.networks.split(","):
        for seed in seeds:
            if name in faces_networks.NETWORKS:
                yield _of_faces(name, seed, given.images, given.store)
            else:
                yield _of_folder(name, seed, given)


def _of_faces(name: str, seed: int, images: int, store: Path) -> Case:
    sides = faces_networks.pictures(store)
    model = faces_networks.trained(name, seed, store, sides)
    order = torch.randperm(
        len(sides["train"].labels), generator=torch.Generator().manual_seed(seed)
    )
    return Case(
        name,
        seed,
        model,
        list(sides["train"].images[order[:images]].split(BATCH)),
        list(sides["val"].images.split(BATCH)),
        list(sides["test"].images.split(BATCH)),
        sides["test"].labels,
    )


def _of_folder(name: str, seed: int, given: argparse.Namespace) -> Case:
    words = argparse.Namespace(
        data=given.data,
        group_by=given.group_by,
        backbone=name,
        weights=given.weights,
        depth=given.depth,
        store=given.store,
    )
    model, context = trained(words, seed)
    sides = context.dataset.sides
    train = sides["train"].take(stratified_order(sides["train"], seed=seed)[: given.images])

    def batches(images: object) -> list[Tensor]:
        views = images.eval_views(slice(0, len(images)), context.device)  # type: ignore[attr-defined, arg-type]
        return list(views.split(BATCH))

    return Case(
        name,
        seed,
        model.eval(),
        batches(train),
        batches(sides["val"]),
        batches(sides["test"]),
        torch.from_numpy(sides["test"].labels),
        partial(chain, name=name),
    )
