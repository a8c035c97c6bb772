"""Fine-tuning of the networks that the probe chose, each at some depths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.sweep.sweep import Choice, Record, choose, layers_frozen_at_random, run_sweep
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor
from secateurs.wording import counted


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


def plan_words(
    depths: Sequence[tuple[int, ...]], config: StudyConfig, options: FrontierOptions
) -> str:
    """What is still to be done once the networks and their `depths` are chosen.

    >>> plan_words([(24, 30)], StudyConfig(runs=2, epochs=20), FrontierOptions(recover=4))
    'to do: 4 trainings of 20 epochs, 2 smaller networks with 4 epochs of recovery each, int8, \
a last training on all images but the test images, the test'
    """
    num_trainings = sum(map(len, depths)) * config.runs + options.scratch_runs
    limits = (options.max_mb, options.max_ms)
    num_sizes = len(depths) * (len(options.sizes) + sum(limit is not None for limit in limits))
    steps = [
        f"{counted(num_trainings, 'training')} of {counted(config.epochs, 'epoch')}",
        f"{counted(num_sizes, 'smaller network')} "
        f"with {counted(options.recover, 'epoch')} of recovery each",
        *(["int8"] if options.int8 else []),
        *(["a last training on all images but the test images"] if options.refit == "all" else []),
        "the test",
    ]
    return f"to do: {', '.join(steps)}"
