"""The command `sweep`; registered in `cli`."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options import (
    AsJson,
    Augment,
    Backbone,
    BatchSize,
    Cache,
    CacheBudget,
    CacheIn,
    Data,
    Depths,
    Device,
    Dropout,
    Epochs,
    GroupBy,
    LabelSmoothing,
    LearningRate,
    LogTo,
    MinScale,
    Out,
    Patience,
    Precision,
    Preset,
    ProgressMode,
    Quiet,
    Resize,
    Rotation,
    Runs,
    Schedule,
    ScratchRuns,
    Seed,
    SplitRule,
    Strict,
    Views,
    WeightDecay,
    Weights,
)
from secateurs.cli.session import config_of, session_of
from secateurs.stopping import stop_on_interrupt


def sweep(
    data: Data,
    out: Out,
    preset: Preset = "quick",
    depths: Depths = None,
    runs: Runs = None,
    scratch_runs: ScratchRuns = None,
    both_splits: Annotated[
        bool,
        typer.Option(
            "--both-splits",
            help="Sweep once more with images dealt at random, groups ignored, to see what that "
            "would have promised; needs groups.",
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
    rotation: Rotation = None,
    min_scale: MinScale = None,
    schedule: Schedule = None,
    resize: Resize = "straight",
    precision: Precision = None,
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    cache_budget: CacheBudget = 2.0,
    cache_in: CacheIn = "memory",
    log: LogTo = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Try depths over several runs and say how many layers to freeze, with a table and a figure.

    Writes results.json and report.html; the network chosen on validation is kept under unpruned.
    `secateurs study` in the same DIR with the same words goes on with pruning. Several processes
    may run the same command at once and share the trials.
    """
    from secateurs.report.study.page import write_report
    from secateurs.study.study import headline, run_study
    from secateurs.study.tracking.log import open_log
    from secateurs.study.trials.trial import prefix_cache

    config = config_of(
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
        rotation_deg=rotation,
        min_scale=min_scale,
        schedule=schedule,
        resize=resize,
        precision=precision,
        device=device,
        seed=seed,
    )
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    with stop_on_interrupt() as stop:
        results = run_study(
            data,
            config,
            out,
            cache=session.cache,
            prune=False,
            both_splits=both_splits,
            strict=strict,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    page = write_report(results, out)
    session.answer(results, f"{headline(results)}\nreport: {page}")
