"""Recovery: a short fine-tuning of a pruned network, taught by the network it was made from."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.fit.config import FitConfig
from secateurs.fit.images import ViewPlan
from secateurs.fit.inputs import prepare_inputs, with_teacher
from secateurs.fit.precision import resolve_precision
from secateurs.fit.recipe import Recipe
from secateurs.fit.tensors import checksum
from secateurs.fit.train import Fit, fit
from secateurs.limits import check_fields
from secateurs.memory import memory_kept
from secateurs.nets.depth import freeze, train_mode
from secateurs.nets.layers import BATCH_NORMS
from secateurs.nets.training_split import training_split
from secateurs.progress import SILENT, Progress, epoch_task
from secateurs.stopping import StopFlag
from secateurs.study.setup.config import StudyConfig
from secateurs.study.trials.setting import TrialImages


@dataclass(frozen=True)
class RecoveryOptions:
    """How a pruned network is trained on.

    `epochs` 0 leaves it as it is; `lr` is Adam's learning rate, None what `standard_rate` says;
    `depth` layers stay frozen; `distil` is the share of the loss that the unpruned network's
    answers have, at `temperature`. There are `views` of each image, cropped to at least `min_scale`
    of it: all layers are trained on few images. `norms` "fixed" keeps the statistics of batch
    norms, "trained" takes those of each batch, "auto" does what the network's own training was
    asked for, and keeps them where that was auto.
    """

    epochs: int = 0
    lr: float | None = None
    depth: int = 0
    distil: float = 0.5
    temperature: float = 2.0
    views: int = 6
    min_scale: float = 0.5
    norms: Literal["auto", "trained", "fixed"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, {"epochs": "recover"})
        if self.norms not in ("auto", "trained", "fixed"):
            raise InputError(f"norms must be auto, trained or fixed, got {self.norms!r:.40}")

    def settled(self, config: StudyConfig) -> RecoveryOptions:
        """The options with norms as the training under `config` has them, where left open.

        >>> RecoveryOptions().settled(StudyConfig()).norms
        'fixed'
        """
        if self.norms != "auto":
            return self
        return replace(self, norms=config.recipe.settled(fixed=True).norms)


def standard_rate(model: nn.Module, norms: str) -> float:
    """Adam's learning rate for the recovery of a network, by what batch norm does in it.

    >>> norm = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    >>> [standard_rate(norm, "trained"), standard_rate(norm, "fixed"), standard_rate(nn.ReLU(), "")]
    [0.001, 0.0001, 0.0003]
    """
    if not any(isinstance(module, BATCH_NORMS) for module in model.modules()):
        return 3e-4
    return 1e-3 if norms == "trained" else 1e-4


@dataclass(frozen=True)
class Recovered:
    """The network at its best epoch on validation, its learning curve and the rate it came at."""

    model: nn.Module
    fit: Fit
    lr: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What is kept of it."""
        return {
            "lr": self.lr,
            "best_epoch": self.fit.best_epoch,
            "curve": [asdict(row) for row in self.fit.curve],
            "stopped": self.fit.stopped,
            "message": self.fit.message,
            "seconds": self.seconds,
        }


def start_of(
    teacher: nn.Module,
    dataset: TrialImages,
    config: StudyConfig,
    budget: Mapping[str, Any],
    survivors: Mapping[str, Tensor],
) -> str:
    """64 hexadecimal digits over all that decides what a recovery starts from and learns from.

    The unpruned network, its images, what was asked for, and the units that were kept: a budget of
    latency may keep others in another run.
    """
    tensors = {name: value.detach().cpu() for name, value in teacher.state_dict().items()}
    return fingerprint(
        {
            "network": checksum(tensors, {}),
            **dataset.identity(),
            "config": config.to_json(),
            "budget": dict(budget),
            "survivors": {name: units.tolist() for name, units in survivors.items()},
        }
    )


def recover(
    pruned: nn.Module,
    teacher: nn.Module,
    dataset: TrialImages,
    config: StudyConfig,
    options: RecoveryOptions,
    *,
    device: torch.device,
    keep: Literal["best", "last"] = "best",
    state_file: Path | None = None,
    rests_on: str = "",
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Recovered:
    """Fine-tune a copy of `pruned` on the training images.

    Of its epochs the best on validation is kept, or with `keep` the last.

    Batch size, regularisation and arithmetic are those of `config`. Layers that are frozen,
    and all before them, run once for every view, as in any training. Raises StopRequested, its
    state saved in `state_file` with what it `rests_on` (see `fit`), and InputError for options out
    of range.
    """
    started = time.perf_counter()
    name, options = config.backbone, options.settled(config)
    lr = standard_rate(pruned, options.norms) if options.lr is None else options.lr
    model = copy.deepcopy(pruned).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(model, name, options.depth)
    prefix, tail = training_split(model, name, options.depth)
    precision = resolve_precision(config.precision, device)
    # The network's own batch size, as far as there are so many images here.
    batch_size = config.batch_size and min(config.batch_size, len(dataset.sides["train"]))
    augmentation = replace(config, min_scale=options.min_scale).augmentation()
    plan = ViewPlan(config.seed, options.views, augmentation)
    with memory_kept():
        inputs = prepare_inputs(
            dataset.sides["train"],
            dataset.sides["val"],
            prefix,
            plan,
            num_epochs=options.epochs,
            device=device,
            precision=precision,
            progress=progress,
        )
        if options.distil:
            inputs = with_teacher(inputs, teacher, progress=progress)
        with epoch_task(progress, "recovery", options.epochs) as epochs:
            result = fit(
                tail,
                inputs,
                dataset.sides["val"].labels,
                FitConfig(
                    lr=lr,
                    epochs=options.epochs,
                    batch_size=batch_size,
                    weight_decay=config.weight_decay,
                    label_smoothing=config.label_smoothing,
                    dropout=config.dropout,
                    schedule="cosine",
                    keep=keep,
                    precision=precision,
                    seed=config.seed,
                    distil=options.distil,
                    temperature=options.temperature,
                    recipe=Recipe(norms=options.norms),
                ),
                train_mode=lambda: train_mode(model, name, options.depth),
                state_file=state_file,
                rests_on=rests_on,
                stop=stop,
                on_start=epochs.start,
                on_epoch=epochs.end_one,
            )
    model = model.to(memory_format=torch.contiguous_format).eval()
    return Recovered(model, result, lr, time.perf_counter() - started)
