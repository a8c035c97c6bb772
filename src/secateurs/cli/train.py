"""The command `train`."""

from __future__ import annotations

from pathlib import Path

import typer

from secateurs.cli.options.data import Cache, Data, GroupBy, Seed, SplitRule, Strict
from secateurs.cli.options.network import (
    Backbone,
    Depth,
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
    ModelOut,
    Overwrite,
    ProgressMode,
    Quiet,
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
    RotationDeg,
    Schedule,
    Views,
    WeightDecay,
)
from secateurs.cli.parsing.session import config_of, session_of


def train(
    context: typer.Context,
    data: Data,
    out: ModelOut = Path("models/DATA"),
    depth: Depth = None,
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
    log: LogTo = None,
    cache: Cache = None,
    config: Config = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Fine-tune one network with --depth frozen layers and save it.

    The same command again resumes after an interruption.
    """
    from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
    from secateurs.study.setup.defaults import default_depth
    from secateurs.study.setup.trial_context import settle_split
    from secateurs.study.tracking.log import open_log
    from secateurs.study.training import train_model
    from secateurs.study.trials.trial import prefix_cache

    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress, context=context)
    chosen, words = default_depth(backbone) if depth is None else (depth, "")
    settings = config_of(
        depths=str(chosen),
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
    if words:  # now that the other options are known to be good
        session.progress.note(f"depth {chosen}: {words}")
    if not overwrite:
        session.check_earlier(out, "training.json")
    with session.running(out) as stop:
        answer = train_model(
            data,
            settings,
            out,
            cache=session.cache,
            strict=strict,
            overwrite=overwrite,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    settled = settle_split(data, settings).split
    grouped = group_by is not None or settled != "random" or data == "faces"
    shown = [f"caution: {text}" for text in cautions(answer["val"], grouped=grouped)]
    lines = [evaluation_words(answer["val"], "validation"), *shown, f"model: {out}"]
    session.answer(answer, "\n".join(lines))
