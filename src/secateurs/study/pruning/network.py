"""A network pruned as a whole on the images of a study: the client of `prune_to_budget`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.fit.images import Images
from secateurs.fit.metrics import predict_logits
from secateurs.fit.order import stratified_order
from secateurs.nets.attention import open_attention
from secateurs.nets.chain import chain
from secateurs.progress import SILENT, Progress
from secateurs.prune.network import Pruned
from secateurs.prune.reconstruction.options import ReconstructionOptions
from secateurs.prune.to_budget import (
    Budget,
    Hooks,
    PrunedToBudget,
    Surveyed,
    prune_surveyed,
    survey_network,
)
from secateurs.ship.latency import torch_latency
from secateurs.stopping import StopFlag
from secateurs.study.pruning.network_record import alarm_sentence, network_record
from secateurs.study.pruning.recovery import Recovered, RecoveryOptions, recover, start_of
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset
from secateurs.study.trials.setting import TrialImages

BATCH = 64
VIEWS = 3  # of each of them on which blocks are tuned
CALIBRATION = 256  # training images on which a network is measured and refitted
LATENCY_S = 5.0


@dataclass(frozen=True)
class PrunedNetwork:
    """A network pruned as a whole, its record as in pruning.json, and its recovery if any."""

    pruned: PrunedToBudget
    record: dict[str, Any]
    recovered: Recovered | None

    @property
    def model(self) -> nn.Module:
        """The network after recovery."""
        return self.pruned.model

    @property
    def before_recovery(self) -> nn.Module:
        """The network before recovery."""
        return self.pruned.before_recovery


def prune_whole(
    model: nn.Module,
    dataset: Dataset,
    config: StudyConfig,
    budget: Budget,
    *,
    recovery: RecoveryOptions | None = None,
    num_images: int | None = CALIBRATION,
    reconstruction: ReconstructionOptions | None = None,
    device: torch.device,
    state_file: Path | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedNetwork:
    """Prune every group of a network that can be pruned, to the budget; train it on if asked to.

    Units are taken where they cost the least loss for what they save, measured on the training
    images; validation decides where `max_loss` does, between the starts of what is merged, and the
    best epoch of a recovery. At most `num_images` training images are used before recovery, spread
    over the classes; None for all. With `reconstruction` blocks are tuned before it. The model
    given is not changed. Raises InputError when nothing can be pruned or the budget cannot be met.
    """
    network = survey_whole(
        model, dataset, config, device=device, num_images=num_images, stop=stop, progress=progress
    )
    return network.prune(
        budget,
        recovery=recovery,
        reconstruction=reconstruction,
        state_file=state_file,
        stop=stop,
        progress=progress,
    )


@dataclass(frozen=True)
class SurveyedNetwork:
    """A network of a study, surveyed once, to be pruned to any number of budgets."""

    surveyed: Surveyed
    dataset: TrialImages
    config: StudyConfig
    device: torch.device
    num_images: int

    def prune(
        self,
        budget: Budget,
        *,
        recovery: RecoveryOptions | None = None,
        reconstruction: ReconstructionOptions | None = None,
        state_file: Path | None = None,
        stop: StopFlag | None = None,
        progress: Progress = SILENT,
    ) -> PrunedNetwork:
        """The network pruned to one budget; see `prune_whole`."""
        recovery = (recovery or RecoveryOptions()).settled(self.config)
        stop = stop or StopFlag()
        recovered: list[Recovered] = []
        asked = asdict(budget) | {"recovery": asdict(recovery), "calibration": self.num_images}
        asked["reconstruction"] = None if reconstruction is None else asdict(reconstruction)

        def train_on(pruned: Pruned, unpruned: nn.Module) -> nn.Module:
            recovered.append(
                recover(
                    pruned.model,
                    unpruned,
                    self.dataset,
                    self.config,
                    recovery,
                    device=self.device,
                    state_file=state_file,
                    rests_on=start_of(unpruned, self.dataset, self.config, asked, pruned.survivors),
                    stop=stop,
                    progress=progress,
                )
            )
            return recovered[0].model

        hooks = replace(
            self.surveyed.hooks,
            latency=partial(
                _share_of_time,
                images=self.surveyed.calibration[0].contiguous(),  # as users have them
                batch=budget.latency_batch,
            ),
            train=train_on if recovery.epochs else None,
        )
        pruned = prune_surveyed(
            self.surveyed,
            budget,
            hooks=hooks,
            reconstruction=reconstruction,
            stop=stop,
            progress=progress,
        )
        if pruned.outcome.alarm:
            progress.note(alarm_sentence(pruned.outcome))
        found = recovered[0] if recovered else None
        record = network_record(pruned, found) | {
            "calibration": {
                "num_images": self.num_images,
                "of": len(self.dataset.sides["train"]),
                "mirrored": self.surveyed.copies > 1,
            }
        }
        return PrunedNetwork(pruned, record, found)


def survey_whole(
    model: nn.Module,
    dataset: TrialImages,
    config: StudyConfig,
    *,
    device: torch.device,
    num_images: int | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> SurveyedNetwork:
    """Survey a network on the training images of a study; the model given is not changed.

    With `num_images` on so many of them at most, spread over the classes. Raises InputError when
    nothing can be pruned.
    """
    model = open_attention(model).to(device).eval()
    train, val = dataset.sides["train"], dataset.sides["val"]
    train = train.take(stratified_order(train, seed=config.seed)[:num_images])
    calibration, held_out = views(train, device, mirrored=config.augment), views(val, device)
    labels = torch.from_numpy(val.labels)

    def evaluate(network: nn.Module) -> float:
        logits = torch.cat([predict_logits(network, images) for images in held_out])
        return float((logits.argmax(1) == labels).double().mean())

    hooks = Hooks(
        steps=partial(chain, name=config.backbone),
        evaluate=evaluate,
        score=partial(score_logits, labels=labels),
        views=partial(_augmented, train, config, device),
    )
    surveyed = survey_network(
        model,
        calibration,
        held_out,
        hooks,
        name=config.backbone,
        copies=1 + config.augment,
        seed=config.seed,
        stop=stop,
        progress=progress,
    )
    return SurveyedNetwork(surveyed, dataset, config, device, len(train))


def score_logits(outputs: list[object], *, labels: Tensor) -> tuple[float, float]:
    """Accuracy (0..1) and, the larger the better, minus the cross-entropy; `labels` (images,)."""
    parts = [output for output in outputs if isinstance(output, Tensor)]
    logits = torch.cat(parts).float().cpu()
    entropy = float(nn.functional.cross_entropy(logits, labels))
    return float((logits.argmax(1) == labels).double().mean()), -entropy


def views(images: Images, device: torch.device, *, mirrored: bool = False) -> list[Tensor]:
    """Evaluation views of all images in batches, channels last; then all mirrored if asked for."""
    plain = [
        images.eval_views(slice(first, first + BATCH), device).contiguous(
            memory_format=torch.channels_last
        )
        for first in range(0, len(images), BATCH)
    ]
    return plain + [batch.flip(-1) for batch in plain] if mirrored else plain


def _augmented(train: Images, config: StudyConfig, device: torch.device) -> list[Tensor]:
    """`VIEWS` views of each image, cropped and mirrored as in a recovery, in batches.

    Blocks are tuned on them: on the images themselves, which the network has learned by heart and
    layers were refitted on, little is left to learn. The images as they are come first.
    """
    found = views(train, device)
    augmentation = replace(config, min_scale=RecoveryOptions.min_scale).augmentation()
    for epoch in range(VIEWS - 1 if augmentation is not None else 0):
        for first in range(0, len(train), BATCH):
            batch = train.train_views(
                slice(first, first + BATCH),
                seed=config.seed,
                epoch=epoch,
                augmentation=augmentation,
                device=device,
            )
            found.append(batch.contiguous(memory_format=torch.channels_last))
    return found


def _share_of_time(unpruned: nn.Module, pruned: nn.Module, *, images: Tensor, batch: int) -> float:
    # The ratio within rounds: what else runs on the machine slows both of a round. Three of four
    # have to be fast enough, so that it is still so when it is measured again.
    row = torch_latency(unpruned, pruned, images, batch=batch, warmup=1, budget_s=LATENCY_S)
    return row.ratio_p75
