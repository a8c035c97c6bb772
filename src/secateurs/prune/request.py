"""What is asked of a pruning: the budget, and what its client knows of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from secateurs.errors import InputError
from secateurs.limits import check_fields
from secateurs.nets.batches import Batch, Run, forward
from secateurs.prune.allocation.budget import Step
from secateurs.prune.allocation.importance import Loss
from secateurs.prune.allocation.merge_costs import Steps
from secateurs.prune.network import Pruned, Score


@dataclass(frozen=True)
class Budget:
    """What a pruned network may cost, as fractions of the unpruned one, and what it may lose.

    `params` and `macs` 0..1; `size_mb` is the size of the weights in float32 (10**6 bytes);
    `latency` 0..1 of the time measured on this device at
    `latency_batch` samples; `max_loss` points (hundredths) of the evaluation before any recovery.
    The smallest network within `max_loss` is taken when nothing else is given. `round_to` keeps the
    channels of every group a multiple of it, and at least `fewest` stay. Units that merge are
    grouped from `starts` random starts, and validation decides between them.
    """

    params: float | None = None
    macs: float | None = None
    latency: float | None = None
    max_loss: float | None = None
    size_mb: float | None = None
    latency_batch: int = 64
    round_to: int = 8
    fewest: int = 8
    starts: int = 5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.params is self.macs is self.latency is self.max_loss is self.size_mb is None:
            raise InputError("budget: give params, macs, latency, max_loss or size_mb")

    def params_of(self, num_parameters: float) -> float | None:
        """The fraction of so many parameters that may stay; None for no limit."""
        if self.size_mb is None:
            return self.params
        allowed = min(1.0, self.size_mb * 1e6 / (4 * num_parameters))
        return allowed if self.params is None else min(allowed, self.params)


@dataclass(frozen=True)
class Hooks:
    """What a client of `prune_to_budget` knows and the flow does not.

    `run` runs a network on a batch; `steps` opens one into (path, module) that run one after the
    other, where that is known: merged units are then scored by the network's answers. `evaluate`
    scores a network, higher is better: `max_loss` needs it. `loss(network, batch)`, of one sample,
    decides between groups in the place of the change of the outputs. `score` orders the starts of
    merging by a network's outputs on the held-out batches. `latency(unpruned, pruned)` measures the
    pruned network's share of the time. `train(pruned, unpruned)` returns the pruned network, of
    which it also gets the survivors, trained on.
    `keep_whole(path)` says that the outputs of a layer stay; `ratios` are shares (0..1) of the
    units to remove of groups by name (with `*` as in file names), whatever the budget.
    `views` gives other views of the calibration samples, on which blocks are tuned instead.
    `norm_widths` says whether units may go over which a layer, RMS or group norm computes its
    statistics, which changes these.
    """

    run: Run = forward
    steps: Steps = lambda model: []
    evaluate: Callable[[nn.Module], float] | None = None
    loss: Loss | None = None
    score: Score | None = None
    latency: Callable[[nn.Module, nn.Module], float] | None = None
    train: Callable[[Pruned, nn.Module], nn.Module] | None = None
    keep_whole: Callable[[str], bool] = lambda path: False
    ratios: Mapping[str, float] = field(default_factory=dict[str, float])
    norm_widths: bool = False
    views: Callable[[], Sequence[Batch]] | None = None


@dataclass(frozen=True)
class Tried:
    """A step that was measured: its evaluation or its share of the time."""

    step: Step
    evaluation: float | None = None
    latency: float | None = None
