"""What the comparison of sweeps measures of ours, through the functions of `secateurs sweep`."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loops import LR
from secateurs.fit.cache import PrefixCache
from secateurs.fit.state import TrainState, save_state
from secateurs.nets.depth import freeze
from secateurs.stopping import StopFlag
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext, open_context
from secateurs.study.sweep.sweep import run_sweep
from secateurs.study.trials.store import Store, save_weights
from secateurs.study.trials.trial import SharedInputs, Trial, plan_trials, run_trial, trial_key
from tables import CHECK_RUNS, EPOCHS, Row

BUDGET_BYTES = 2 * 2**30  # what `secateurs sweep` keeps unless told otherwise
MARK = "row: "


def emit(kind: str, **values: Any) -> None:
    print(MARK + json.dumps({"kind": kind, "load": os.getloadavg()[0], **values}), flush=True)


class TimedInputs(SharedInputs):
    """The frozen layers' outputs, how long the last took and how many bytes are kept of them."""

    seconds = 0.0
    kept_bytes = 0

    def get(self, *given: Any) -> Any:
        """As of SharedInputs, timed."""
        started = time.perf_counter()
        answer = super().get(*given)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - started
        held = () if self._held is None else (self._held[-1],)
        stored = [view for inputs in (answer[0], *held) for view in inputs.stored or ()]
        self.kept_bytes = sum({id(view): view.nbytes for view in stored}.values())
        return answer


def room(context: TrialContext) -> PrefixCache:
    """What may be kept, such that a short training keeps what one of 50 epochs would."""
    config = context.config
    share = 1.0 if config.views else config.epochs / EPOCHS
    return PrefixCache(int(share * BUDGET_BYTES))


def get_again(context: TrialContext, trial: Trial, shared: TimedInputs) -> float:
    """Seconds that the next run's frozen layers take where a bank of views is there already."""
    model = context.new_model(seed=trial.run + 1, pretrained=True)
    freeze(model, context.config.backbone, trial.depth)
    shared.get(context, replace(trial, run=trial.run + 1), model)
    return shared.seconds


def open_ours(spec: Row, cache: Path) -> TrialContext:
    config = StudyConfig(
        weights=spec["weights"],
        split="folders",
        depths=tuple(spec["depths"]),
        runs=1,
        scratch_runs=0,
        lr=LR,
        batch_size=None,
        schedule="constant",
        views=spec["views"],
        rotation_deg=30.0,
        min_scale=0.08,
        precision=spec["precision"],
        device=spec["device"],
    )
    return open_context(spec["folder"], config, cache=cache)


def changed(context: TrialContext, **changes: Any) -> TrialContext:
    config = replace(context.config, **changes)
    return replace(context, config=config, depths=config.depths)


def autosave_s(model: torch.nn.Module, path: Path) -> float:
    """Seconds that saving the state of a training under way takes."""
    now = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    adam = {f"{n}:{entry}": p for n, p in now.items() for entry in ("exp_avg", "exp_avg_sq")}
    state = TrainState(0, 0, [], 0, (0.0, 0, 0), current=now, best=now, adam=adam)
    started = time.perf_counter()
    save_state(path, state, {})
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def measure_ours(spec: Row) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        context = open_ours(spec, Path(folder) / "cache")
        emit("open", way=spec["way"], seconds=time.perf_counter() - started)
        store = Store(Path(folder))
        # Libraries load and memory is first touched outside the measurement.
        warm = changed(context, epochs=1)
        run_trial(warm, plan_trials(warm)[0], TimedInputs(room(warm)), store)
        for part, depths in spec["parts"].items():
            for epochs in spec["epochs"]:
                row = changed(context, depths=tuple(depths), epochs=epochs)
                shared = TimedInputs(room(row))
                for trial in plan_trials(row):
                    started = time.perf_counter()
                    _, model = run_trial(row, trial, shared, store)
                    whole_s, frozen_s = time.perf_counter() - started, shared.seconds
                    weights = store.weights(trial_key(row, trial))
                    started = time.perf_counter()
                    save_weights(model, weights)
                    save_s = time.perf_counter() - started
                    weights.unlink()
                    state_s = autosave_s(model, Path(folder) / "state")
                    del model  # as before the next run: what follows counts as memory
                    again_s = get_again(row, trial, shared) if spec["views"] else None
                    emit(
                        "trial",
                        way=spec["way"],
                        part=part,
                        depth=trial.depth,
                        epochs=epochs,
                        frozen_s=frozen_s,
                        again_s=again_s,
                        train_s=whole_s - frozen_s,
                        save_s=save_s,
                        autosave_s=state_s,
                        kept_mib=shared.kept_bytes / 2**20,
                    )


def check_ours(spec: Row) -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = changed(
            open_ours(spec, Path(folder) / "cache"), runs=CHECK_RUNS, epochs=spec["epochs"]
        )
        started = time.perf_counter()
        run_sweep(context, Store(Path(folder)), prefix_cache=room(context), stop=StopFlag())
        emit("check", way=spec["way"], epochs=spec["epochs"], seconds=time.perf_counter() - started)
