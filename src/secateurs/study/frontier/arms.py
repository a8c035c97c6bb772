"""Fine-tuning of the networks that the probe chose, each at some depths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.sweep.sweep import Choice, Record, choose, layers_frozen_at_random, run_sweep
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor


@dataclass(frozen=True)
class Arm:
    """One network fine-tuned at several depths: its trials, and which of them stays."""

    context: TrialContext
    trials: list[Record]
    choice: Choice


def arm_context(context: TrialContext, depths: tuple[int, ...], scratch_runs: int) -> TrialContext:
    """A network's context with the depths at which it is fine-tuned."""
    config = replace(context.config, depths=depths, scratch_runs=scratch_runs)
    return replace(context, config=config, depths=depths)


def fine_tune(
    context: TrialContext,
    depths: tuple[int, ...],
    store: Store,
    *,
    scratch_runs: int = 0,
    prefix_cache: PrefixCache,
    executor: Executor | None = None,
    stop: StopFlag,
    progress: Progress = SILENT,
    on_trial: Callable[[TrialContext, Record], None] = lambda context, record: None,
) -> Arm:
    """Train a network at each depth and choose one on validation.

    What was trained before is read. `on_trial` receives each record with the context of its depths.
    Raises StopRequested when asked to stop, and InputError when every training diverges.
    """
    context = arm_context(context, depths, scratch_runs)
    progress.note(f"fine-tuning {context.config.backbone}")
    trials = run_sweep(
        context,
        store,
        prefix_cache=prefix_cache,
        executor=executor,
        stop=stop,
        progress=progress,
        on_trial=lambda record: on_trial(context, record),
    )
    choice = choose(
        trials,
        num_images=len(context.dataset.sides["val"]),
        random_frozen=layers_frozen_at_random(context),
    )
    return Arm(context, trials, choice)
