"""What a training needs to know of its study, wherever it runs."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from secateurs.fit.images import Images
from secateurs.fit.precision import Precision
from secateurs.fit.probe.head import Head
from secateurs.nets.weights import WeightsReport
from secateurs.study.setup.config import StudyConfig


class TrialImages(Protocol):
    """Images by side, with the classes and what decides which pixels are on which side."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        ...

    @property
    def sides(self) -> dict[str, Images]:
        """At least train and val."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides which pixels are on which side."""
        ...


class TrialSetting(Protocol):
    """What `TrialContext` is for a training, and what a worker makes of a package."""

    @property
    def config(self) -> StudyConfig:
        """All that was asked for."""
        ...

    @property
    def dataset(self) -> TrialImages:
        """The images."""
        ...

    @property
    def weights(self) -> WeightsReport:
        """What networks start from."""
        ...

    @property
    def device(self) -> torch.device:
        """Where networks are trained."""
        ...

    @property
    def precision(self) -> Precision:
        """The arithmetic of training."""
        ...

    @property
    def head(self) -> Head | None:
        """What pretrained networks start with as their last layer."""
        ...

    def new_model(self, *, seed: int, pretrained: bool) -> torch.nn.Module:
        """The network before training."""
        ...
