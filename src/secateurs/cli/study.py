"""The command `study`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from secateurs.cli.options.data import Cache, Data, GroupBy, Seed, SplitRule, Strict
from secateurs.cli.options.executors import ExecutorName, TrialCpus, TrialGpus, executor_of
from secateurs.cli.options.frontier import Backbones, Batch, MaxMb, MaxMs
from secateurs.cli.options.network import (
    Depths,
    Device,
    ImageSize,
    OneBackbone,
    Precision,
    Resize,
    Weights,
)
from secateurs.cli.options.output import (
    AsJson,
    Config,
    LogTo,
    Overwrite,
    ProgressMode,
    Quiet,
    StudyOut,
)
from secateurs.cli.options.pruning import (
    HighDeg,
    Keep,
    KeepFraction,
    Layers,
    LossAllowed,
    LowDeg,
    NormStd,
    OwnCompensation,
    Rule,
)
from secateurs.cli.options.training import (
    Augment,
    AverageWeights,
    BatchSize,
    CacheBudget,
    CacheIn,
    ClassWeights,
    Dropout,
    Epochs,
    L2Sp,
    LabelSmoothing,
    LayerDecay,
    LearningRate,
    MinScale,
    Mixup,
    Norms,
    Patience,
    Preset,
    RotationDeg,
    Runs,
    Schedule,
    ScratchRuns,
    Views,
    WeightDecay,
)
from secateurs.cli.parsing.session import config_of, session_of
from secateurs.errors import InputError

if TYPE_CHECKING:
    from secateurs.stopping import StopFlag
    from secateurs.study.frontier.options import FrontierOptions
    from secateurs.study.setup.config import StudyConfig


def study(
    context: typer.Context,
    data: Data,
    out: StudyOut = Path("studies/DATA"),
    preset: Preset = "quick",
    backbones: Backbones = "auto",
    backbone: OneBackbone = None,
    weights: Weights = "auto",
    max_mb: MaxMb = None,
    max_ms: MaxMs = None,
    batch: Batch = 1,
    max_loss: LossAllowed = None,
    split: SplitRule = "auto",
    group_by: GroupBy = None,
    depths: Depths = None,
    runs: Runs = None,
    scratch_runs: ScratchRuns = None,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    weight_decay: WeightDecay = 0.0,
    label_smoothing: LabelSmoothing = 0.0,
    dropout: Dropout = "on",
    patience: Patience = None,
    views: Views = None,
    augment: Augment = True,
    rotation_deg: RotationDeg = None,
    min_scale: MinScale = None,
    schedule: Schedule = None,
    layer_decay: LayerDecay = None,
    l2_sp: L2Sp = None,
    mixup: Mixup = None,
    average: AverageWeights = None,
    class_weights: ClassWeights = None,
    norms: Norms = None,
    resize: Resize = "straight",
    image_size: ImageSize = None,
    precision: Precision = None,
    layers: Layers = None,
    low_deg: LowDeg = None,
    high_deg: HighDeg = None,
    norm_std: NormStd = None,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: OwnCompensation = None,
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    cache_budget: CacheBudget = 2.0,
    cache_in: CacheIn = "memory",
    executor: ExecutorName = "inline",
    trial_cpus: TrialCpus = None,
    trial_gpus: TrialGpus = None,
    log: LogTo = None,
    cache: Cache = None,
    config: Config = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Find the network to use: probe, fine-tune, prune to several sizes, recommend one, test it.

    With --layers, or another option of layer pruning: fine-tune one network at several depths and
    prune the named layers. The same command again resumes after an interruption.
    """
    from secateurs.study.setup.config import rule_of
    from secateurs.study.tracking.log import open_log
    from secateurs.study.trials.trial import prefix_cache

    of_layers = {
        "layers": layers,
        "low_deg": low_deg,
        "high_deg": high_deg,
        "norm_std": norm_std,
        "rule": rule,
        "keep": keep,
        "keep_fraction": keep_fraction,
        "compensation": compensation,
    }
    one_network = any(value is not None for value in of_layers.values())
    shared = {
        "weights": weights,
        "split": split,
        "group_by": group_by,
        "depths": depths,
        "runs": runs,
        "scratch_runs": scratch_runs,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "dropout": dropout,
        "patience": patience,
        "views": views,
        "augment": augment,
        "rotation_deg": rotation_deg,
        "min_scale": min_scale,
        "schedule": schedule,
        "layer_decay": layer_decay,
        "l2_sp": l2_sp,
        "mixup": mixup,
        "average": average,
        "class_weights": class_weights,
        "norms": norms,
        "resize": resize,
        "image_size": image_size,
        "precision": precision,
        "device": device,
        "seed": seed,
    }
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress, context=context)
    crew = executor_of(
        executor, trial_cpus, trial_gpus, cache=session.cache, progress=session.progress
    )
    running: dict[str, Any] = {
        "cache": session.cache,
        "strict": strict,
        "overwrite": overwrite,
        "prefix_cache": prefix_cache(out, cache_budget, cache_in),
        "progress": session.progress,
        "log": open_log(log, out),
    }
    if not one_network:
        options = frontier_options(
            preset,
            backbones,
            backbone,
            max_mb=max_mb,
            max_ms=max_ms,
            batch=batch,
            loss=max_loss,
            scratch_runs=scratch_runs,
        )
        settings = config_of(preset, **shared)
        with session.running(out) as stop, crew as opened:
            running["executor"] = opened
            text, results = study_networks(data, settings, options, out, stop, running)
        session.answer(results, text)
        return
    refuse_together(backbones=backbones != "auto", max_mb=max_mb, max_ms=max_ms, batch=batch != 1)
    loss = 2.0 if max_loss is None else max_loss
    settings = config_of(
        preset,
        backbone=backbone or "alexnet",
        max_loss=loss,
        **shared,
        **of_layers
        | {
            "compensation": compensation or "merge",
            "rule": rule_of(
                rule,
                search=loss >= 0 or keep is not None or keep_fraction is not None,
                low_deg=low_deg,
                high_deg=high_deg,
                norm_std=norm_std,
            ),
        },
    )
    with session.running(out) as stop, crew as opened:
        running["executor"] = opened
        text, results = study_layers(data, settings, out, stop, running)
    session.answer(results, text)


def frontier_options(
    preset: str,
    backbones: str,
    backbone: str | None,
    *,
    max_mb: float | None,
    max_ms: float | None,
    batch: int,
    loss: float | None,
    scratch_runs: int | None,
) -> FrontierOptions:
    """What a study over several networks is asked for, from the command line's options."""
    from secateurs.study.frontier.options import FRONTIER_PRESETS, parse_backbones

    if preset not in FRONTIER_PRESETS:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(FRONTIER_PRESETS)}")
    if backbone is not None and backbones != "auto":
        raise InputError("--backbone and --backbones: give one of them")
    base = FRONTIER_PRESETS[preset]
    return replace(
        base,
        backbones=parse_backbones(backbone or backbones),
        max_mb=max_mb,
        max_ms=max_ms,
        batch=batch,
        max_loss=base.max_loss if loss is None else loss,
        scratch_runs=base.scratch_runs if scratch_runs is None else scratch_runs,
    )


def refuse_together(**given: object) -> None:
    """Raise InputError for options that a study of named layers does not have."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise InputError(
            f"{', '.join(names)}: not with --layers and the other options of layer pruning"
        )


def study_networks(
    data: str,
    settings: StudyConfig,
    options: FrontierOptions,
    out: Path,
    stop: StopFlag,
    running: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Run a study over several networks, write its page, and say the answer."""
    from secateurs.report.frontier.card import write_frontier_card
    from secateurs.report.frontier.page import write_frontier_report
    from secateurs.report.frontier.schema import check_frontier
    from secateurs.study.frontier.record import headline
    from secateurs.study.frontier.run import run_frontier

    results = run_frontier(data, settings, options, out, stop=stop, **running)
    page = write_frontier_report(results, out)
    write_frontier_card(check_frontier(results), out)
    return f"{headline(results)}\nreport: {page}", results


def study_layers(
    data: str, settings: StudyConfig, out: Path, stop: StopFlag, running: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Run a study of one network whose named layers are pruned, write its page, say the answer."""
    from secateurs.report.study.card import write_card
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import check_results
    from secateurs.study.study import headline, run_study

    results = run_study(data, settings, out, stop=stop, **running)
    page = write_report(results, out)
    if results["pruned"]:
        write_card(check_results(results), out)
    return f"{headline(results)}\nreport: {page}", results
