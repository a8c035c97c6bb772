"""How a network is trained: the configuration, the learning rate and the loss of a teacher."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from secateurs.errors import InputError
from secateurs.fit.precision import Precision
from secateurs.fit.recipe import Recipe
from secateurs.limits import check_fields


@dataclass(frozen=True)
class FitConfig:
    """How a tail is trained.

    `lr` Adam's learning rate; `batch_size` images a step, None for the whole training set;
    `weight_decay` L2 as in Adam; `label_smoothing` in 0..1; `dropout` on, off, or in the first
    epoch only (as the paper's program does); `schedule` keeps the learning rate or lets it fall to
    zero along half a cosine (Loshchilov and Hutter 2017); `patience` epochs without a better
    validation accuracy before stopping, None never; `seed` orders the images and draws the dropout;
    `keep` is which epoch's network is the result: the best on validation, or the last.
    `distil` in 0..1 is the share of the loss that compares with a teacher's answers at
    `temperature` (see `distillation_loss`), the labels having the rest. `recipe` holds what is done
    beside.
    """

    lr: float = 1e-4
    epochs: int = 12
    batch_size: int | None = 64
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    dropout: Literal["on", "off", "first-epoch"] = "on"
    schedule: Literal["constant", "cosine"] = "constant"
    patience: int | None = None
    keep: Literal["best", "last"] = "best"
    precision: Precision = "float32"
    seed: int = 0
    distil: float = 0.0
    temperature: float = 2.0
    recipe: Recipe = field(default_factory=Recipe)

    def identity(self) -> dict[str, Any]:
        """Plain data that names the training; of the recipe only what is not the plain loop's."""
        plain, changes = asdict(self), self.recipe.changes()
        if changes.get("norms") == "trained":
            del changes["norms"]
        del plain["recipe"]
        return plain | ({"recipe": changes} if changes else {})

    def __post_init__(self) -> None:
        check_fields(self)
        checks = {
            "dropout": self.dropout in ("on", "off", "first-epoch"),
            "schedule": self.schedule in ("constant", "cosine"),
            "keep": self.keep in ("best", "last"),
        }
        for name, good in checks.items():
            if not good:
                raise InputError(f"{name} is out of range: {getattr(self, name)!r}")
        if self.keep == "last" and self.patience is not None:
            raise InputError(
                "keep last: leave patience out, which waits for a better epoch than the one kept"
            )


def learning_rate(config: FitConfig, *, progress: float) -> float:
    """Adam's learning rate when a share `progress` in 0..1 of all steps is done.

    >>> learning_rate(FitConfig(lr=2.0, schedule="cosine"), progress=0.5)
    1.0
    """
    if config.schedule == "constant":
        return config.lr
    return config.lr * (1 + math.cos(math.pi * progress)) / 2


def distillation_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence, nats, of answers (n, classes) from a teacher's logits.

    Both are softened by `temperature`, and the loss is times its square, so that gradients keep
    their size (Hinton, Vinyals and Dean, 2015).

    >>> import torch
    >>> float(distillation_loss(torch.ones(2, 3), torch.zeros(2, 3), temperature=2.0))
    0.0
    """
    return temperature**2 * functional.kl_div(
        functional.log_softmax(logits / temperature, 1),
        functional.log_softmax(teacher_logits / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
