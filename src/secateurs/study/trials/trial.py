"""A trial is a file: one training at one depth, keyed by all that decides its numbers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.fit.cache import PrefixCache
from secateurs.fit.config import FitConfig
from secateurs.fit.images import ViewPlan
from secateurs.fit.inputs import Inputs, extend_inputs, prepare_inputs, view_name
from secateurs.fit.train import Epoch, Fit, fit
from secateurs.limits import LIMITS, check_number
from secateurs.memory import memory_kept
from secateurs.nets.backbones import has_batch_norms, layers
from secateurs.nets.depth import freeze, train_mode
from secateurs.nets.training_split import training_split, training_stretch
from secateurs.progress import SILENT, Progress, epoch_task
from secateurs.stopping import StopFlag
from secateurs.study.records.checksummed import write_sealed
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.trials.setting import TrialSetting
from secateurs.study.trials.starting import StartingNetworks
from secateurs.study.trials.store import Store

TRIAL_FORMAT = 2


@dataclass(frozen=True, order=True)
class Trial:
    """One training: `depth` frozen layers, run number, pretrained or from scratch."""

    depth: int
    run: int
    pretrained: bool = True

    @property
    def name(self) -> str:
        """What progress calls it.

        >>> Trial(5, 0).name, Trial(0, 1, pretrained=False).name
        ('depth 5 run 1', 'scratch run 2')
        """
        return (
            f"depth {self.depth} run {self.run + 1}"
            if self.pretrained
            else (f"scratch run {self.run + 1}")
        )


def plan_trials(context: TrialContext) -> list[Trial]:
    """Every trial of a study, in the order that shares the most frozen prefixes."""
    config = context.config
    sweep = [Trial(depth, run) for depth in context.depths for run in range(config.runs)]
    scratch = [Trial(0, run, pretrained=False) for run in range(config.scratch_runs)]
    if config.views is None:
        # Each run has views of its own: all its trials in a row.
        return sorted(scratch + sweep, key=lambda trial: (trial.run, trial.depth))
    return scratch + sweep


def view_plan(context: TrialSetting, trial: Trial) -> ViewPlan:
    """The views a trial sees: a bank shared by all runs, or its own new ones."""
    config = context.config
    seed = config.seed if config.views is not None else config.seed + trial.run
    return ViewPlan(
        seed=seed,
        num_views=config.views,
        augmentation=config.augmentation(),
    )


def fit_config(context: TrialSetting, trial: Trial) -> FitConfig:
    """How a trial is trained; norms that were left open are fixed where they are pretrained."""
    config, fitted = context.config, bool(context.weights.loaded) and trial.pretrained
    found = config.fit_config(run=trial.run)
    fixed = fitted and has_batch_norms(config.backbone, len(context.dataset.classes))
    return replace(found, recipe=found.recipe.settled(fixed=fixed))


def image_size(config: StudyConfig) -> dict[str, int]:
    """The size of the images where it is not the backbone's own, which its name says."""
    return {} if config.image_size is None else {"image_size": config.image_size}


def trial_key(context: TrialSetting, trial: Trial) -> str:
    """64 hexadecimal digits over configuration, images, split, weights and format."""
    config = context.config
    augmentation = config.augmentation()
    weights: dict[str, Any] = {
        "loaded": list(context.weights.loaded),
        "sha256": context.weights.sha256,
    }
    if context.head is not None:
        weights["head"] = context.head.digest()
    return fingerprint(
        {
            "format": TRIAL_FORMAT,
            **context.dataset.identity(),
            "weights": weights if trial.pretrained else None,
            "backbone": config.backbone,
            "resize": config.resize,
            **image_size(config),
            "trial": asdict(trial),
            "fit": fit_config(context, trial).identity(),
            "views": config.views,
            "augmentation": None if augmentation is None else asdict(augmentation),
            "precision": context.precision,
            "device": context.device.type,
        }
    )


def cached_depth(context: TrialSetting, trial: Trial, model: torch.nn.Module) -> int:
    """How many frozen layers every run shares: those that hold pretrained weights.

    A frozen layer with random weights differs from run to run and belongs to the trial.
    """
    if not trial.pretrained:
        return 0
    shared = 0
    for layer in layers(model, context.config.backbone)[: trial.depth]:
        if layer.alias not in context.weights.loaded:
            break
        shared += 1
    return shared


def prefix_cache(out: Path, budget_gib: float, where: str) -> PrefixCache:
    """Room for frozen layers' outputs: `where` is memory, disk or keep (files in `out`).

    >>> prefix_cache(Path("study"), 2.0, "disk").folder
    PosixPath('study/frozen')
    """
    if where not in ("memory", "disk", "keep"):
        raise InputError(f"cache-in must be memory, disk or keep, got {where!r}")
    check_number("cache-budget (GiB)", budget_gib, LIMITS["cache_budget"])
    folder = None if where == "memory" else out / "frozen"
    return PrefixCache(int(budget_gib * 2**30), folder, keep_files=where == "keep")


class SharedInputs:
    """The frozen prefix's outputs held between trials, extended when the next one is deeper.

    They serve every trial, of whatever context, that has the same images, views and prefix.
    """

    def __init__(self, cache: PrefixCache | None = None, *, progress: Progress = SILENT) -> None:
        self.cache, self.progress = cache or PrefixCache(), progress
        self.networks = StartingNetworks()
        self._held: tuple[str, int, Inputs] | None = None

    def get(
        self, context: TrialSetting, trial: Trial, model: torch.nn.Module
    ) -> tuple[Inputs, torch.nn.Module]:
        """Inputs for a trial's tail, and that tail of its `model`.

        What precedes the tail is all that the trial does not change.
        """
        name, depth = context.config.backbone, cached_depth(context, trial, model)
        inputs = self._shared(context, trial, model, depth)
        own = training_stretch(model, name, depth, trial.depth)
        if len(own) and inputs.stored is not None:
            # Frozen layers with random weights: this trial's own, in memory.
            return extend_inputs(inputs, own), training_split(model, name, trial.depth)[1]
        return inputs, training_split(model, name, depth)[1]

    def outputs(
        self, context: TrialSetting, trial: Trial, model: torch.nn.Module
    ) -> dict[str, torch.Tensor]:
        """What is kept of the layers that every run shares, by the names of the cache's keys.

        Nothing when there is no room for all of it.
        """
        depth = cached_depth(context, trial, model)
        inputs = self._shared(context, trial, model, depth)
        key = _prefix_key(context, _views_key(context, trial), depth)
        kept = inputs.stored if inputs.stored is not None and not len(inputs.rest) else []
        return {view_name(key, view): tensor for view, tensor in enumerate(kept)}

    def _shared(
        self, context: TrialSetting, trial: Trial, model: torch.nn.Module, depth: int
    ) -> Inputs:
        name, key = context.config.backbone, _views_key(context, trial)
        if self._held is not None and self._held[:2] == (key, depth):
            inputs = self._held[2]
        elif self._held is not None and self._held[0] == key and self._held[1] < depth:
            _, held_depth, held = self._held
            self._held = None
            inputs = extend_inputs(
                held,
                training_stretch(model, name, held_depth, depth),
                cache=self.cache,
                key=_prefix_key(context, key, depth),
                consume=True,
                progress=self.progress,
            )
        else:
            self._held = None
            inputs = prepare_inputs(
                context.dataset.sides["train"],
                context.dataset.sides["val"],
                training_split(model, name, depth)[0],
                view_plan(context, trial),
                num_epochs=context.config.epochs,
                device=context.device,
                precision=context.precision,
                cache=self.cache,
                key=_prefix_key(context, key, depth),
                progress=self.progress,
            )
        self._held = (key, depth, inputs)
        return inputs


def shared_prefix(context: TrialSetting, trial: Trial, model: torch.nn.Module) -> str | None:
    """What names the frozen layers that every run shares, and their views; None without any.

    `model` is any network of the backbone. Trials of the same name have the same inputs.
    """
    depth = cached_depth(context, trial, model)
    return _prefix_key(context, _views_key(context, trial), depth) if depth else None


def _views_key(context: TrialSetting, trial: Trial) -> str:
    # All that decides the views and the numbers in which a prefix answers, but its depth.
    plan = view_plan(context, trial)
    return fingerprint(
        {
            "format": TRIAL_FORMAT,
            **context.dataset.identity(),
            "backbone": context.config.backbone,
            "resize": context.config.resize,
            **image_size(context.config),
            "plan": asdict(plan),
            "num_views": plan.num_distinct(context.config.epochs),
            "precision": context.precision,
            "device": context.device.type,
        }
    )


def _prefix_key(context: TrialSetting, views_key: str, depth: int) -> str:
    weights = {"loaded": list(context.weights.loaded), "sha256": context.weights.sha256}
    return fingerprint(
        {"views": views_key, "depth": depth, "weights": weights if depth > 0 else None}
    )


def _record(
    context: TrialSetting, trial: Trial, key: str, result: Fit, seconds: dict[str, float]
) -> dict[str, Any]:
    best: Epoch | None = None if result.best_epoch < 0 else result.curve[result.best_epoch]
    return {
        "key": key,
        **asdict(trial),
        "seed": context.config.seed + trial.run,
        "lr": context.config.lr,
        "epochs_run": len(result.curve),
        "best_epoch": None if best is None else best.epoch,
        "stopped": result.stopped,
        "message": result.message,
        "val_accuracy": None if best is None else best.val_accuracy,
        "val_loss": None if best is None else best.val_loss,
        "curve": [asdict(row) for row in result.curve],
        "precision": context.precision,
        "timing": seconds,
    }


def run_trial(
    context: TrialSetting,
    trial: Trial,
    shared: SharedInputs,
    store: Store,
    *,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, Any], torch.nn.Module]:
    """Train one trial, write its record, return it with the network at its best epoch.

    Goes on from the state that an interrupted run left. Raises StopRequested after saving one.
    """
    key = trial_key(context, trial)
    record, model = train_trial(
        context, trial, shared, state_file=store.state(key), stop=stop, progress=progress
    )
    write_sealed(store.record(key), record)
    store.state(key).unlink(missing_ok=True)
    return record, model


def train_trial(
    context: TrialSetting,
    trial: Trial,
    shared: SharedInputs,
    *,
    state_file: Path,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, Any], torch.nn.Module]:
    """Train one trial; its record, which is not written, and the network at its best epoch.

    A function of what `trial_key` names: where it runs changes nothing but the times. Goes on from
    the state in `state_file`. Raises StopRequested after saving one.
    """
    with memory_kept():
        return _train_trial(
            context, trial, shared, state_file=state_file, stop=stop, progress=progress
        )


def _train_trial(
    context: TrialSetting,
    trial: Trial,
    shared: SharedInputs,
    *,
    state_file: Path,
    stop: StopFlag | None,
    progress: Progress,
) -> tuple[dict[str, Any], torch.nn.Module]:
    started = time.perf_counter()
    config, key, name = context.config, trial_key(context, trial), context.config.backbone
    model = shared.networks.get(context, seed=config.seed + trial.run, pretrained=trial.pretrained)
    freeze(model, name, trial.depth)
    model.to(memory_format=torch.channels_last)
    inputs, tail = shared.get(context, trial, model)
    prepared = time.perf_counter()
    settled = replace(fit_config(context, trial), precision=context.precision)
    with epoch_task(progress, trial.name, config.epochs) as epochs:
        result = fit(
            tail,
            inputs,
            context.dataset.sides["val"].labels,
            settled,
            train_mode=lambda: train_mode(model, name, trial.depth),
            state_file=state_file,
            stop=stop,
            on_start=epochs.start,
            on_epoch=epochs.end_one,
        )
    if result.message:
        progress.note(f"{trial.name}: {result.message}")
    seconds = {"seconds": time.perf_counter() - started, "frozen_seconds": prepared - started}
    record = _record(context, trial, key, result, seconds)
    record["num_trained_parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return record, model.to(memory_format=torch.contiguous_format).eval()
