"""The command `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Cache, Data, GroupBy, Seed, SplitRule, Strict
from secateurs.cli.options.executors import ExecutorName, TrialCpus, TrialGpus, executor_of
from secateurs.cli.options.network import (
    Backbone,
    Depths,
    Device,
    ImageSize,
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
from secateurs.cli.options.panels import DATA
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


def sweep(
    context: typer.Context,
    data: Data,
    out: StudyOut = Path("studies/DATA"),
    preset: Preset = "quick",
    depths: Depths = None,
    runs: Runs = None,
    scratch_runs: ScratchRuns = None,
    both_splits: Annotated[
        bool,
        typer.Option(
            "--both-splits",
            help="Also sweep with images split at random, groups ignored, for comparison; needs "
            "groups.",
            rich_help_panel=DATA,
        ),
    ] = False,
    backbone: Backbone = "alexnet",
    weights: Weights = "auto",
    split: SplitRule = "auto",
    group_by: GroupBy = None,
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
    """Compare numbers of frozen layers over several runs, and recommend one.

    Writes results.json and report.html, and keeps the network selected on validation. `secateurs
    study` with the same options and --out continues with pruning. Several processes may run the
    same command at once and share the trials.
    """
    from secateurs.report.study.page import write_report
    from secateurs.study.study import headline, run_study
    from secateurs.study.tracking.log import open_log
    from secateurs.study.trials.trial import prefix_cache

    settings = config_of(
        preset,
        backbone=backbone,
        weights=weights,
        split=split,
        group_by=group_by,
        depths=depths,
        runs=runs,
        scratch_runs=scratch_runs,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        dropout=dropout,
        patience=patience,
        views=views,
        augment=augment,
        rotation_deg=rotation_deg,
        min_scale=min_scale,
        schedule=schedule,
        layer_decay=layer_decay,
        l2_sp=l2_sp,
        mixup=mixup,
        average=average,
        class_weights=class_weights,
        norms=norms,
        resize=resize,
        image_size=image_size,
        precision=precision,
        device=device,
        seed=seed,
    )
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress, context=context)
    crew = executor_of(
        executor, trial_cpus, trial_gpus, cache=session.cache, progress=session.progress
    )
    with session.running(out) as stop, crew as opened:
        results = run_study(
            data,
            settings,
            out,
            cache=session.cache,
            prune=False,
            both_splits=both_splits,
            strict=strict,
            overwrite=overwrite,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            executor=opened,
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    page = write_report(results, out)
    session.answer(results, f"{headline(results)}\nreport: {page}")
