"""The commands `study` and `train`; registered in `cli`."""

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
    Compensation,
    Data,
    Depths,
    Device,
    Dropout,
    Epochs,
    GroupBy,
    High,
    Keep,
    KeepFraction,
    LabelSmoothing,
    Layers,
    LearningRate,
    LogTo,
    Low,
    MaxLoss,
    MinScale,
    Out,
    Patience,
    Precision,
    Preset,
    ProgressMode,
    Quiet,
    Resize,
    Rotation,
    Rule,
    Runs,
    Schedule,
    ScratchRuns,
    Seed,
    SplitRule,
    Std,
    Strict,
    Views,
    WeightDecay,
    Weights,
    within,
)
from secateurs.cli.session import config_of, session_of
from secateurs.limits import LIMITS
from secateurs.stopping import stop_on_interrupt


def study(
    data: Data,
    out: Out,
    preset: Preset = "quick",
    backbone: Backbone = "alexnet",
    weights: Weights = "auto",
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
    rotation: Rotation = None,
    min_scale: MinScale = None,
    schedule: Schedule = None,
    resize: Resize = "straight",
    precision: Precision = None,
    layers: Layers = None,
    low: Low = None,
    high: High = None,
    std: Std = None,
    max_loss: MaxLoss = 2.0,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: Compensation = "merge",
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
    """Sweep the depths, choose on validation, prune, export, measure, and write a report.

    Run again with the same words, it does only what is missing.
    """
    from secateurs.report.study.card import write_card
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import check_results
    from secateurs.study.setup.config import rule_of
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
        layers=layers,
        low_deg=low,
        high_deg=high,
        norm_std=std,
        max_loss=max_loss,
        rule=rule_of(
            rule,
            search=max_loss >= 0 or keep is not None or keep_fraction is not None,
            low=low,
            high=high,
            std=std,
        ),
        keep=keep,
        keep_fraction=keep_fraction,
        compensation=compensation,
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
            strict=strict,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    page = write_report(results, out)
    if results["pruned"]:
        write_card(check_results(results), out)
    session.answer(results, f"{headline(results)}\nreport: {page}")


def train(
    data: Data,
    out: Out,
    depth: Annotated[
        int,
        typer.Option(
            help="Frozen weighted layers, counted from the input.",
            callback=within(LIMITS["depth"]),
        ),
    ] = 5,
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
    """Fine-tune one network with DEPTH frozen layers and save it in DIR."""
    from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
    from secateurs.study.setup.trial_context import settle_split
    from secateurs.study.tracking.log import open_log
    from secateurs.study.training import train_model
    from secateurs.study.trials.trial import prefix_cache

    config = config_of(
        depths=str(depth),
        runs=1,
        scratch_runs=0,
        backbone=backbone,
        weights=weights,
        split=split,
        group_by=group_by,
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
        answer = train_model(
            data,
            config,
            out,
            cache=session.cache,
            strict=strict,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    settled = settle_split(data, config).split
    grouped = group_by is not None or settled != "random" or data == "faces"
    said = [f"caution: {text}" for text in cautions(answer["val"], grouped=grouped)]
    words = [evaluation_words(answer["val"], "validation"), *said, f"model: {out}"]
    session.answer(answer, "\n".join(words))
