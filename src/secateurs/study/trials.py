"""A trial is a file: one training at one depth, keyed by all that decides its numbers."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from secateurs.errors import InputError
from secateurs.files import atomic_path, fingerprint, read_json, write_json
from secateurs.fit.inputs import Inputs, ViewPlan, extend_inputs, prepare_inputs
from secateurs.fit.train import Epoch, Fit, fit
from secateurs.nets.backbones import layers
from secateurs.nets.depth import freeze, split_at, train_mode
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.bench import Bench

TRIAL_FORMAT = 1
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


def plan_trials(bench: Bench) -> list[Trial]:
    """Every trial of a study, in the order that shares the most frozen prefixes."""
    config = bench.config
    sweep = [Trial(depth, run) for depth in bench.depths for run in range(config.runs)]
    if config.views is None:
        sweep.sort(key=lambda trial: (trial.run, trial.depth))
    scratch = [Trial(0, run, pretrained=False) for run in range(config.scratch_runs)]
    return scratch + sweep


def view_plan(bench: Bench, trial: Trial) -> ViewPlan:
    """The views a trial sees: a bank shared by all runs, or its own new ones."""
    config = bench.config
    seed = config.seed if config.views is not None else config.seed + trial.run
    return ViewPlan(
        seed=seed,
        num_views=config.views,
        augmentation=config.augmentation(),
    )


def trial_key(bench: Bench, trial: Trial) -> str:
    """64 hexadecimal digits over configuration, images, split, weights and format."""
    config = bench.config
    augmentation = config.augmentation()
    weights = {"loaded": list(bench.weights.loaded), "sha256": bench.weights.sha256}
    return fingerprint(
        {
            "format": TRIAL_FORMAT,
            **bench.dataset.identity(),
            "weights": weights if trial.pretrained else None,
            "backbone": config.backbone,
            "resize": config.resize,
            "trial": asdict(trial),
            "fit": asdict(config.fit_config(run=trial.run)),
            "views": config.views,
            "augmentation": None if augmentation is None else asdict(augmentation),
            "precision": bench.precision,
            "device": bench.device.type,
        }
    )


def cached_depth(bench: Bench, trial: Trial, model: torch.nn.Module) -> int:
    """How many frozen layers every run shares: those that hold pretrained weights.

    A frozen layer with random weights differs from run to run and belongs to the trial.
    """
    if not trial.pretrained:
        return 0
    shared = 0
    for layer in layers(model, bench.config.backbone)[: trial.depth]:
        if layer.alias not in bench.weights.loaded:
            break
        shared += 1
    return shared


class SharedInputs:
    """The frozen prefix's outputs held between trials, extended when the next one is deeper."""

    def __init__(self, bench: Bench, *, budget_bytes: int, progress: Progress = SILENT) -> None:
        self.bench, self.progress, self.budget_bytes = bench, progress, budget_bytes
        self._held: tuple[ViewPlan, int, Inputs] | None = None

    def get(self, trial: Trial, model: torch.nn.Module) -> tuple[Inputs, torch.nn.Module]:
        """Inputs for a trial's tail, and that tail of its `model`."""
        bench, name = self.bench, self.bench.config.backbone
        depth, plan = cached_depth(bench, trial, model), view_plan(bench, trial)
        prefix, tail = split_at(model, name, depth)
        if not trial.pretrained:
            return self._prepare(plan, prefix), tail
        if self._held is not None and self._held[0] == plan and self._held[1] <= depth:
            _, held_depth, inputs = self._held
            if held_depth < depth and inputs.stored is None:
                # What did not fit at this depth may at a deeper one, whose outputs are smaller.
                inputs = self._prepare(plan, prefix)
            elif held_depth < depth:
                self._held = None
                num_done = len(split_at(model, name, held_depth)[0])
                inputs = extend_inputs(
                    inputs, prefix[num_done:], prefix=prefix, progress=self.progress
                )
        else:
            self._held = None
            inputs = self._prepare(plan, prefix)
        self._held = (plan, depth, inputs)
        return inputs, tail

    def _prepare(self, plan: ViewPlan, prefix: torch.nn.Module) -> Inputs:
        sides = self.bench.dataset.sides
        return prepare_inputs(
            sides["train"],
            sides["val"],
            prefix,
            plan,
            num_epochs=self.bench.config.epochs,
            device=self.bench.device,
            precision=self.bench.precision,
            budget_bytes=self.budget_bytes,
            progress=self.progress,
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

    @contextmanager
    def claim(self, name: str) -> Generator[bool]:
        """Hold `name` (a trial's key) for this process; gives False when another one has it.

        The system frees it when its holder ends in whatever way, so that nothing stays claimed.
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
        finally:
            lock.release()

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
        """A finished trial's record, or None."""
        path = self.record(key)
        return read_json(path) if path.exists() else None


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a network's state, whole or not at all."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Read a network's state back into a model of the same shape."""
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: not this network's weights ({error}); delete it") from None


def _record(bench: Bench, trial: Trial, key: str, result: Fit, seconds: float) -> dict[str, Any]:
    best: Epoch | None = None if result.best_epoch < 0 else result.curve[result.best_epoch]
    return {
        "key": key,
        **asdict(trial),
        "seed": bench.config.seed + trial.run,
        "lr": bench.config.lr,
        "epochs_run": len(result.curve),
        "best_epoch": None if best is None else best.epoch,
        "stopped": result.stopped,
        "message": result.message,
        "val_accuracy": None if best is None else best.val_accuracy,
        "val_loss": None if best is None else best.val_loss,
        "curve": [asdict(row) for row in result.curve],
        "precision": bench.precision,
        "timing": {"seconds": seconds},
    }


def run_trial(
    bench: Bench,
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
    started = time.perf_counter()
    config, key, name = bench.config, trial_key(bench, trial), bench.config.backbone
    model = bench.new_model(seed=config.seed + trial.run, pretrained=trial.pretrained)
    freeze(model, name, trial.depth)
    inputs, tail = shared.get(trial, model)
    fit_config = replace(config.fit_config(run=trial.run), precision=bench.precision)
    with progress.task(trial.name, config.epochs) as advance:
        result = fit(
            tail,
            inputs,
            bench.dataset.sides["val"].labels,
            fit_config,
            train_mode=lambda: train_mode(model, name, trial.depth),
            state_file=store.state(key),
            stop=stop,
            on_epoch=lambda row: advance(1),
        )
    if result.message:
        progress.note(f"{trial.name}: {result.message}")
    record = _record(bench, trial, key, result, time.perf_counter() - started)
    record["num_trained_parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    write_json(store.record(key), record)
    store.state(key).unlink(missing_ok=True)
    return record, model.eval()
