"""One fine-tuned network pruned to several sizes, each recovered and kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from secateurs.errors import InputError
from secateurs.progress import SILENT, Progress
from secateurs.prune.reconstruction.options import options_of
from secateurs.prune.to_budget import Budget
from secateurs.ship.checkpoint import load
from secateurs.ship.spec import describe
from secateurs.stopping import StopFlag
from secateurs.study.frontier.points import Place, Record, keep_point
from secateurs.study.pruning.network import SurveyedNetwork, survey_whole
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.trials.setting import TrialSetting

MARGIN = 0.998  # for names of tensors that only the pruned network has


@dataclass(frozen=True)
class Size:
    """A budget, the end of the name of what it gives, and in words."""

    ending: str
    budget: Budget
    words: str

    @property
    def short(self) -> str:
        """The words for a bar of progress."""
        return self.words.replace("multiply-accumulates", "MACs")


def sizes_of(
    shares: tuple[float, ...],
    *,
    mb: float,
    num_parameters: int,
    ms: float,
    max_mb: float | None,
    max_ms: float | None,
    batch: int,
) -> list[Size]:
    """The sizes to which a network is pruned: `shares` of its multiply-accumulates, and the limits.

    `mb`, `num_parameters` and `ms` are what the unpruned network has. A limit that it exceeds is a
    size of its own.

    >>> network = {"mb": 9.2, "num_parameters": 2_250_000, "ms": 7.0}
    >>> found = sizes_of((0.5,), **network, max_mb=5.0, max_ms=None, batch=1)
    >>> [size.ending for size in found], round(found[1].budget.size_mb, 2)
    (['macs50', 'mb5'], 4.79)
    """
    found = [
        Size(
            f"macs{100 * share:g}",
            Budget(macs=share),
            f"{share:.0%} of its multiply-accumulates",
        )
        for share in shares
    ]
    if max_mb is not None and mb > max_mb:
        # Beside the parameters the file has a header and buffers, at most those of before.
        beside = mb - 4e-6 * num_parameters
        budget = Budget(size_mb=max(MARGIN * (max_mb - beside), 1e-6))
        found.append(Size(f"mb{max_mb:g}", budget, f"{max_mb:g} MB"))
    if max_ms is not None and ms > max_ms:
        budget = Budget(latency=0.95 * max_ms / ms, latency_batch=batch)
        found.append(Size(f"ms{max_ms:g}", budget, f"{max_ms:g} ms"))
    return found


class Shrinking:
    """Prunes one saved network to any number of sizes; what they share is computed once, if at all.

    `folder` is where the unpruned network is kept; it is measured on `num_images` training images.
    By `reconstruction` ("blocks") the blocks of each pruned network are tuned before recovery.
    """

    def __init__(
        self,
        context: TrialSetting,
        folder: Path,
        *,
        num_images: int | None = None,
        reconstruction: str | None = None,
        stop: StopFlag,
        progress: Progress = SILENT,
    ) -> None:
        self.context, self.stop, self.progress = context, stop, progress
        self.num_images, self.reconstruction = num_images, reconstruction
        self.unpruned = load(folder)

    @cached_property
    def _network(self) -> SurveyedNetwork:
        model: nn.Module = self.unpruned.model.to(self.context.device)
        return survey_whole(
            model,
            self.context.dataset,
            self.context.config,
            device=self.context.device,
            num_images=self.num_images,
            stop=self.stop,
            progress=self.progress,
        )

    def to(
        self,
        size: Size,
        place: Place,
        recovery: RecoveryOptions,
        *,
        state_file: Path | None = None,
    ) -> Record:
        """Prune to a size, recover, save, and return the point's row.

        An interrupted recovery leaves its state in `state_file`, by default beside the stages.

        A budget that cannot be met, or a network of which nothing can be pruned, gives a row with
        the reason under "reason" and no model.
        """
        try:
            network = self._network
            usual = place.root / "stages" / f"{place.name}.recovery.state.safetensors"
            state = state_file or usual
            found = network.prune(
                size.budget,
                recovery=recovery,
                reconstruction=options_of(self.reconstruction),
                state_file=state,
                stop=self.stop,
                progress=self.progress,
            )
        except InputError as error:
            return {"name": place.name, "kind": "pruned", "reason": str(error)}
        spec = describe(
            found.model,
            self.unpruned.spec.backbone,
            self.unpruned.spec.classes,
            self.unpruned.spec.preprocessing,
            kept=found.pruned.channels,
            extra=self.unpruned.spec.extra,
            split=self.unpruned.spec.split,
        )
        row = keep_point(found.model, spec, self.context, place, "pruned")
        state.unlink(missing_ok=True)
        return row | {"pruning": _summary(found.record)}


def _summary(record: dict[str, Any]) -> Record:
    """What the study keeps of a pruning: the groups, what was predicted, and the recovery."""
    names = ("groups", "not_pruned", "outcome", "reconstruction", "recovery", "seconds", "parity")
    return {name: record[name] for name in names if name in record}
