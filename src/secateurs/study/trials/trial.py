"""A trial is a file: one training at one depth, keyed by all that decides its numbers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from secateurs.errors import InputError
from secateurs.files import atomic_path, fingerprint
from secateurs.fit.cache import PrefixCache
from secateurs.fit.images import ViewPlan
from secateurs.fit.inputs import Inputs, extend_inputs, prepare_inputs
from secateurs.fit.memory import memory_kept
from secateurs.fit.tensors import DamagedError, read_checked, write_checked
from secateurs.fit.train import Epoch, Fit, fit
from secateurs.limits import LIMITS, check_number
from secateurs.nets.backbones import layers
from secateurs.nets.depth import freeze, split_at, train_mode
from secateurs.progress import SILENT, Progress, epoch_task
from secateurs.stopping import StopFlag
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.records.kinds import is_trial
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext

TRIAL_FORMAT = 2
WAIT_S = 0.5  # between looks at what another process holds


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


def view_plan(context: TrialContext, trial: Trial) -> ViewPlan:
    """The views a trial sees: a bank shared by all runs, or its own new ones."""
    config = context.config
    seed = config.seed if config.views is not None else config.seed + trial.run
    return ViewPlan(
        seed=seed,
        num_views=config.views,
        augmentation=config.augmentation(),
    )


def image_size(config: StudyConfig) -> dict[str, int]:
    """The size of the images where it is not the backbone's own, which its name says."""
    return {} if config.image_size is None else {"image_size": config.image_size}


def trial_key(context: TrialContext, trial: Trial) -> str:
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
            "fit": asdict(config.fit_config(run=trial.run)),
            "views": config.views,
            "augmentation": None if augmentation is None else asdict(augmentation),
            "precision": context.precision,
            "device": context.device.type,
        }
    )


def cached_depth(context: TrialContext, trial: Trial, model: torch.nn.Module) -> int:
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
        self._held: tuple[str, int, Inputs] | None = None

    def get(
        self, context: TrialContext, trial: Trial, model: torch.nn.Module
    ) -> tuple[Inputs, torch.nn.Module]:
        """Inputs for a trial's tail, and that tail of its `model`.

        What precedes the tail is all that the trial does not change.
        """
        name = context.config.backbone
        depth, key = cached_depth(context, trial, model), _views_key(context, trial)
        prefix, _ = split_at(model, name, depth)
        if self._held is not None and self._held[:2] == (key, depth):
            inputs = self._held[2]
        elif self._held is not None and self._held[0] == key and self._held[1] < depth:
            _, held_depth, held = self._held
            self._held = None
            inputs = extend_inputs(
                held,
                prefix[len(split_at(model, name, held_depth)[0]) :],
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
                prefix,
                view_plan(context, trial),
                num_epochs=context.config.epochs,
                device=context.device,
                precision=context.precision,
                cache=self.cache,
                key=_prefix_key(context, key, depth),
                progress=self.progress,
            )
        self._held = (key, depth, inputs)
        frozen, tail = split_at(model, name, trial.depth)
        if len(frozen) > len(prefix) and inputs.stored is not None:
            # Frozen layers with random weights: this trial's own, in memory.
            inputs = extend_inputs(inputs, frozen[len(prefix) :])
            return inputs, tail
        return inputs, split_at(model, name, depth)[1]


def _views_key(context: TrialContext, trial: Trial) -> str:
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


def _prefix_key(context: TrialContext, views_key: str, depth: int) -> str:
    weights = {"loaded": list(context.weights.loaded), "sha256": context.weights.sha256}
    return fingerprint(
        {"views": views_key, "depth": depth, "weights": weights if depth > 0 else None}
    )


@dataclass(frozen=True)
class Store:
    """Where a study keeps its trials: `trials/KEY.json`, weights and unfinished states beside."""

    root: Path

    def record(self, key: str) -> Path:
        """The file of a finished trial."""
        return self.root / "trials" / f"{key}.json"

    def state(self, key: str) -> Path:
        """The state of an unfinished one."""
        return self.root / "trials" / f"{key}.state.safetensors"

    def weights(self, key: str) -> Path:
        """The trained network of a trial that leads its depth."""
        return self.root / "trials" / f"{key}.weights.safetensors"

    def has_weights(self, key: str) -> bool:
        """Whether the trained network of a trial is there; removes it when it is damaged."""
        try:
            read_checked(self.weights(key))
        except DamagedError:
            self.weights(key).unlink(missing_ok=True)
            return False
        except OSError:
            return False
        return True

    @contextmanager
    def claim(self, name: str) -> Generator[bool]:
        """Hold `name` (a trial's key) for this process; gives False when another one has it.

        The system frees it when its holder ends in whatever way, so that nothing stays claimed. The
        file goes when the work is done; whoever has opened it meanwhile finds the work done too.
        """
        lock = FileLock(self.root / "trials" / f"{name}.lock")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                Path(lock.lock_file).unlink()
        finally:
            lock.release()

    def tidy(self) -> None:
        """Remove the locks and unfinished states of trials that a killed process had finished."""
        for kind in (".lock", ".state.safetensors"):
            for path in (self.root / "trials").glob(f"*{kind}"):
                if self.read(path.name.removesuffix(kind)) is not None:
                    with contextlib.suppress(OSError):
                        path.unlink()

    @contextmanager
    def wait_for(self, name: str, stop: StopFlag) -> Generator[None]:
        """Hold `name` for this process as soon as no other does; StopRequested when asked to."""
        while True:
            with self.claim(name) as mine:
                if mine:
                    yield
                    return
            stop.check()
            time.sleep(WAIT_S)

    def read(self, key: str) -> dict[str, Any] | None:
        """A finished trial's record; None when there is none, or it is damaged."""
        record = read_sealed(self.record(key))
        return record if record and record.get("key") == key and is_trial(record) else None


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a network's state, whole or not at all."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        write_checked(state, temporary)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Read a network's state back into a model of the same shape."""
    try:
        model.load_state_dict(read_checked(path)[0])
    except (DamagedError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: not this network's weights ({error}); delete it") from None


def _record(
    context: TrialContext, trial: Trial, key: str, result: Fit, seconds: dict[str, float]
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
    context: TrialContext,
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
    with memory_kept():
        return _run_trial(context, trial, shared, store, stop=stop, progress=progress)


def _run_trial(
    context: TrialContext,
    trial: Trial,
    shared: SharedInputs,
    store: Store,
    *,
    stop: StopFlag | None,
    progress: Progress,
) -> tuple[dict[str, Any], torch.nn.Module]:
    started = time.perf_counter()
    config, key, name = context.config, trial_key(context, trial), context.config.backbone
    model = context.new_model(seed=config.seed + trial.run, pretrained=trial.pretrained)
    freeze(model, name, trial.depth)
    model.to(memory_format=torch.channels_last)
    inputs, tail = shared.get(context, trial, model)
    prepared = time.perf_counter()
    fit_config = replace(config.fit_config(run=trial.run), precision=context.precision)
    with epoch_task(progress, trial.name, config.epochs) as epochs:
        result = fit(
            tail,
            inputs,
            context.dataset.sides["val"].labels,
            fit_config,
            train_mode=lambda: train_mode(model, name, trial.depth),
            state_file=store.state(key),
            stop=stop,
            on_start=epochs.start,
            on_epoch=epochs.end_one,
        )
    if result.message:
        progress.note(f"{trial.name}: {result.message}")
    seconds = {"seconds": time.perf_counter() - started, "frozen_seconds": prepared - started}
    record = _record(context, trial, key, result, seconds)
    record["num_trained_parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    write_sealed(store.record(key), record)
    store.state(key).unlink(missing_ok=True)
    return record, model.to(memory_format=torch.contiguous_format).eval()
