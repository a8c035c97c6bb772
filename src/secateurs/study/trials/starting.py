"""Networks before training, kept on a graphics card for the trials that start alike."""

from __future__ import annotations

import copy

import torch

from secateurs.study.trials.setting import TrialSetting

NUM_KEPT = 2  # with pretrained weights and without, of one seed


class StartingNetworks:
    """The networks that trials start from; a copy is made where that is faster than a new one.

    Drawing the random weights of AlexNet and reading the pretrained ones takes half a second of a
    processor, fifty steps on a graphics card less. On a CPU every network is made anew.
    """

    def __init__(self, *, keeps_on: tuple[str, ...] = ("cuda",)) -> None:
        self._keeps_on = keeps_on
        self._kept: dict[object, torch.nn.Module] = {}

    def get(self, context: TrialSetting, *, seed: int, pretrained: bool) -> torch.nn.Module:
        """What `context.new_model` gives, the caller's own to train."""
        if context.device.type not in self._keeps_on:
            return context.new_model(seed=seed, pretrained=pretrained)
        head = context.head if pretrained else None
        key = (
            context.config.backbone,
            len(context.dataset.classes),
            (context.weights.loaded, context.weights.sha256) if pretrained else None,
            None if head is None else head.digest(),
            seed,
            context.device,
        )
        if key not in self._kept:
            while len(self._kept) >= NUM_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = context.new_model(seed=seed, pretrained=pretrained)
        return copy.deepcopy(self._kept[key])
