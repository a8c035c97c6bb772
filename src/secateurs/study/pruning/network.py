"""A whole network pruned to a budget: groups found, measured, cut, refitted, and trained on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.fit.images import Images
from secateurs.fit.metrics import predict_logits
from secateurs.fit.order import stratified_order
from secateurs.limits import check_fields
from secateurs.nets.attention import open_attention
from secateurs.nets.chain import chain
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.budget import Kept, Price, Step, Widths, descent
from secateurs.prune.allocation.elimination import Elimination
from secateurs.prune.allocation.merge_costs import with_merging
from secateurs.prune.allocation.survey import Survey, survey
from secateurs.prune.compensation.batch_norm import outputs_of, settle_norms
from secateurs.prune.coupling.groups import Group, Groups, find_groups
from secateurs.prune.network import Pruned, StartValidation, cut
from secateurs.prune.surgery.narrow import PARITY_LIMIT, checked, difference, gone_channels, narrow
from secateurs.prune.verification import cut_and_check
from secateurs.ship.cost import macs, num_parameters
from secateurs.ship.latency import torch_latency
from secateurs.stopping import StopFlag
from secateurs.study.pruning.network_record import alarm_sentence, group_rows, remaining, step_row
from secateurs.study.pruning.recovery import Recovered, RecoveryOptions, recover, start_of
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset

BATCH = 64
CHECKED_IMAGES = 4
LATENCY_S = 5.0
FINEST = 0.98


@dataclass(frozen=True)
class Budget:
    """What a pruned network may cost, as fractions of the whole one, and what it may lose.

    `params` and `macs` 0..1; `latency` 0..1 of the time measured on this device at
    `latency_batch` images; `max_loss` points of validation accuracy before any recovery. The
    smallest network within `max_loss` is taken when nothing else is given. `round_to` keeps the
    channels of every group a multiple of it. Units that merge are grouped from `starts` random
    starts, and validation decides between them.
    """

    params: float | None = None
    macs: float | None = None
    latency: float | None = None
    max_loss: float | None = None
    latency_batch: int = 64
    round_to: int = 8
    fewest: int = 8
    starts: int = 5
    recovery: RecoveryOptions = field(default_factory=RecoveryOptions)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.params is self.macs is self.latency is self.max_loss is None:
            raise InputError("budget: give params, macs, latency or max_loss")


@dataclass(frozen=True)
class PrunedNetwork:
    """A network cut as a whole, and what was measured on the way.

    `cut` is the network before recovery, `model` after (the same where there was none).
    """

    model: nn.Module
    cut: nn.Module
    groups: Groups
    eliminations: dict[str, Elimination]
    survivors: dict[str, Tensor]
    kept: dict[str, list[int]]
    trajectory: list[Step]
    chosen: Step
    record: dict[str, Any]
    recovered: Recovered | None


def prune_whole(
    model: nn.Module,
    dataset: Dataset,
    config: StudyConfig,
    budget: Budget,
    *,
    device: torch.device,
    state_file: Path | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedNetwork:
    """Prune every group of a network that can be, to the budget, and train it on if asked to.

    Units are taken where they cost the least loss for what they save, measured on the training
    images; validation decides where `max_loss` does, between the starts of what is merged, and the
    best epoch of a recovery. The model given is not changed. Raises InputError when nothing can be
    cut or the budget cannot be met.
    """
    started = time.perf_counter()
    stop = stop or StopFlag()
    model = open_attention(model).to(device).eval()
    train, val = dataset.sides["train"], dataset.sides["val"]
    train = train.take(stratified_order(train, seed=config.seed))
    batches = views(train, device, mirrored=config.augment)
    copies = 1 + config.augment
    size = train.size
    with progress.task("looking for groups", 2) as advance:
        groups = find_groups(model, size=size)
        advance(1)
        groups = checked(model, groups, batches[0][:CHECKED_IMAGES])
        advance(1)
    if not groups.found:
        raise InputError(
            f"{config.backbone}: nothing can be cut"
            + (f" ({groups.note})" if groups.note else "")
            + "".join(f"; {left.name}: {left.reason}" for left in groups.not_pruned[:3])
        )
    stop.check()
    seen = survey(model, groups.found, batches, copies=copies, seed=config.seed, progress=progress)
    stop.check()
    steps = partial(chain, name=config.backbone)
    seen = with_merging(
        model, groups.found, seen, batches, steps=steps, copies=copies, progress=progress
    )
    widths = Widths(model, groups.found, size=size)
    stop.check()
    labels = torch.from_numpy(val.labels)
    answers = views(val, device)

    def accuracy(network: nn.Module) -> float:
        logits = torch.cat([predict_logits(network, images) for images in answers])
        return float((logits.argmax(1) == labels).double().mean())

    def cut_to(kept: Kept, merging: bool = True, refitting: bool = True, **more: Any) -> Pruned:
        stop.check()
        return cut(
            model,
            groups.found,
            seen,
            kept,
            batches,
            steps=steps,
            merging=merging,
            refitting=refitting,
            copies=copies,
            seed=config.seed,
            **more,
        )

    unpruned = outputs_of(model, answers)

    def settled(kept: Kept) -> Pruned:
        result = cut_to(kept)
        settle_norms(result.model, unpruned, answers, batches, implied=result.implied)
        return result

    trajectory, chosen, tried = _choose(
        model, groups.found, widths, seen, budget, batches[0], settled, accuracy, progress
    )
    judge = StartValidation(answers, labels, budget.starts)
    result, outcome = cut_and_check(
        partial(cut_to, chosen.kept, judge=judge, progress=progress),
        unpruned,
        answers,
        batches,
        predicted=chosen.loss,
    )
    _check_reached(result.model, widths, budget, size)
    if outcome.alarm:
        progress.note(alarm_sentence(outcome))
    seconds = time.perf_counter() - started
    parity = difference(model, groups.found, result.survivors, batches[0][:CHECKED_IMAGES])
    assert parity <= PARITY_LIMIT, f"removed and zeroed differ: {parity}"
    recovered = None
    if budget.recovery.epochs:
        recovered = recover(
            result.model,
            model,
            dataset,
            config,
            budget.recovery,
            device=device,
            state_file=state_file,
            rests_on=start_of(model, dataset, config, asdict(budget), result.survivors),
            stop=stop,
            progress=progress,
        )
    gone = gone_channels(groups.found, result.survivors, reads=False)
    layers = dict(model.named_modules())
    record = {
        "groups": group_rows(groups.found, seen, chosen.kept, result, outcome),
        "not_pruned": [asdict(left) for left in groups.not_pruned],
        "note": groups.note,
        "trajectory": [step_row(step, trajectory[0]) for step in trajectory],
        "chosen": step_row(chosen, trajectory[0]),
        "tried": tried,
        "starts": list(result.tried),
        "outcome": outcome.to_json(),
        "parity": parity,
        "seconds": seconds,
        "recovery": None if recovered is None else recovered.to_json(),
    }
    return PrunedNetwork(
        model=result.model if recovered is None else recovered.model,
        cut=result.model,
        groups=groups,
        eliminations=seen.eliminations,
        survivors=result.survivors,
        kept={
            path: remaining(layers[path], channels)
            for path, channels in gone.items()
            if isinstance(layers[path], nn.Conv2d | nn.Linear)
        },
        trajectory=trajectory,
        chosen=chosen,
        record=record,
        recovered=recovered,
    )


def views(images: Images, device: torch.device, *, mirrored: bool = False) -> list[Tensor]:
    """Evaluation views of all images in batches, channels last; then all mirrored if asked for."""
    plain = [
        images.eval_views(slice(first, first + BATCH), device).contiguous(
            memory_format=torch.channels_last
        )
        for first in range(0, len(images), BATCH)
    ]
    return plain + [batch.flip(-1) for batch in plain] if mirrored else plain


def _choose(
    model: nn.Module,
    groups: tuple[Group, ...],
    widths: Widths,
    seen: Survey,
    budget: Budget,
    images: Tensor,
    cut_to: Callable[[Kept], Pruned],
    accuracy: Callable[[nn.Module], float],
    progress: Progress,
) -> tuple[list[Step], Step, list[dict[str, Any]]]:
    """The trajectory, the step on it that meets the budget, and what was measured to find it."""
    down = partial(
        descent, widths, seen.eliminations, round_to=budget.round_to, fewest=budget.fewest
    )
    asked = budget.params is not None or budget.macs is not None
    trajectory = down(params=budget.params, macs=budget.macs)
    first = len(trajectory) - 1 if asked else 0
    tried: list[dict[str, Any]] = []
    if budget.latency is not None:
        # Onwards by multiply-accumulates, which take the time, until the clock agrees.
        if asked:
            trajectory += down(start=trajectory[-1].kept, by="macs")[1:]
        else:
            trajectory = down(by="macs")
        last = _first_within(
            trajectory,
            first,
            lambda step: _fast_enough(model, groups, seen, step, budget, images, tried),
            progress,
        )
        if last is None:
            raise InputError(
                f"latency: the smallest network still takes {tried[-1]['latency']:.2f} of the time "
                f"at batch {budget.latency_batch} on this device"
            )
        return trajectory, trajectory[last], tried
    if asked:
        return trajectory, trajectory[-1], tried
    assert budget.max_loss is not None
    floor = accuracy(model) - budget.max_loss / 100

    def good(step: Step) -> bool:
        reached = accuracy(cut_to(step.kept).model)
        tried.append({**step_row(step, trajectory[0]), "val_accuracy": reached})
        return reached >= floor - 1e-12

    steps = _thinned(trajectory)
    low, high = 0, len(steps)
    with progress.task("how far the loss allows", len(steps).bit_length()) as advance:
        while high - low > 1:
            middle = (low + high) // 2
            if good(steps[middle]):
                low = middle
            else:
                high = middle
            advance(1)
    return trajectory, steps[low], tried


def _check_reached(model: nn.Module, widths: Widths, budget: Budget, size: int) -> None:
    """Raise InputError when a network that was cut costs more than the budget, as reports count."""
    real = widths.fraction(Price(float(macs(model, size=size)), float(num_parameters(model))))
    for word, limit, part in (
        ("macs", budget.macs, real.macs),
        ("params", budget.params, real.parameters),
    ):
        if limit is not None and part > limit:
            raise InputError(
                f"budget: {word} {limit:g} was asked for, the cut network has {part:.3g}"
            )


def _thinned(trajectory: list[Step]) -> list[Step]:
    """Steps that differ by at least two per cent in price, the first and the last among them."""
    steps = [trajectory[0]]
    for step in trajectory[1:]:
        last = steps[-1].price
        if (
            step.price.macs <= FINEST * last.macs
            or step.price.parameters <= FINEST * last.parameters
        ):
            steps.append(step)
    return steps if steps[-1] is trajectory[-1] else [*steps, trajectory[-1]]


def _first_within(
    trajectory: list[Step], first: int, good: Callable[[Step], bool], progress: Progress
) -> int | None:
    """The first step from `first` on that is good, by bisection; None when the last is not."""
    with progress.task("measuring latency", (len(trajectory) - first).bit_length()) as advance:
        low, high = first - 1, len(trajectory) - 1
        if not good(trajectory[high]):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if good(trajectory[middle]):
                high = middle
            else:
                low = middle
            advance(1)
    return high


def _fast_enough(
    model: nn.Module,
    groups: tuple[Group, ...],
    seen: Survey,
    step: Step,
    budget: Budget,
    images: Tensor,
    tried: list[dict[str, Any]],
) -> bool:
    survivors = {name: seen.eliminations[name].survivors(keep) for name, keep in step.kept.items()}
    row = torch_latency(
        model,
        narrow(model, groups, survivors),
        images.contiguous(),  # as users have them
        batch=budget.latency_batch,
        warmup=1,
        budget_s=LATENCY_S,
    )
    # The ratio within rounds: what else runs on the machine slows both of a round. Three of four
    # have to be fast enough, so that it is still so when it is measured again.
    tried.append({"kept": step.kept, "latency": row.ratio_p75})
    assert budget.latency is not None
    return row.ratio_p75 <= budget.latency
