"""The command `search`; registered in `cli`."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options import (
    AsJson,
    Augment,
    Backbone,
    Cache,
    CacheBudget,
    CacheIn,
    Data,
    Device,
    Dropout,
    GroupBy,
    MinScale,
    Out,
    Precision,
    ProgressMode,
    Quiet,
    Resize,
    Rotation,
    Seed,
    SplitRule,
    Strict,
    Views,
    Weights,
    within,
)
from secateurs.cli.session import session_of
from secateurs.limits import LIMITS
from secateurs.stopping import stop_on_interrupt


def search(
    data: Data,
    out: Out,
    method: Annotated[
        str,
        typer.Option(
            help="grid (learning rates by epochs), halving (many short trainings, few long ones) "
            "or tpe (Optuna's sampler)."
        ),
    ] = "grid",
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="grid: learning rates. [default: 0.001,0.005,0.01,0.05]"
        ),
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option(
            metavar="A-B:STEP|A,B|N",
            help="grid: numbers of epochs [default: 20-100:10]; tpe: epochs a trial [default: 20].",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="halving, tpe: configurations. [default: 27; 20 for tpe]",
            callback=within(LIMITS["trials"]),
        ),
    ] = None,
    lr_range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="halving, tpe: learning rates. [default: 1e-5,1e-2]"),
    ] = None,
    min_epochs: Annotated[
        int | None,
        typer.Option(
            help="halving: epochs of the first rung. [default: 4]",
            callback=within(LIMITS["min_epochs"]),
        ),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            help="halving: epochs of the last rung. [default: 36]",
            callback=within(LIMITS["max_epochs"]),
        ),
    ] = None,
    eta: Annotated[
        int | None,
        typer.Option(
            help="halving: one in so many goes on, for so many times. [default: 3]",
            callback=within(LIMITS["eta"]),
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Frozen weighted layers, from the input. [default: 5]",
            callback=within(LIMITS["depth"]),
        ),
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(metavar="0-7|5,6", help="halving, tpe: frozen layers to search among."),
    ] = None,
    runs: Annotated[
        int, typer.Option(help="Runs (seeds) a configuration.", callback=within(LIMITS["runs"]))
    ] = 1,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|full", help="Images a step. [default: 64; searched by halving and tpe]"
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="L2 weight decay. [default: 0; searched by halving and tpe]",
            callback=within(LIMITS["weight_decay"]),
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            help="Label smoothing. [default: 0; searched by halving and tpe]",
            callback=within(LIMITS["label_smoothing"]),
        ),
    ] = None,
    backbone: Backbone = "alexnet",
    weights: Weights = "auto",
    split: SplitRule = "auto",
    group_by: GroupBy = None,
    dropout: Dropout = "on",
    views: Views = None,
    augment: Augment = True,
    rotation: Rotation = None,
    min_scale: MinScale = None,
    resize: Resize = "straight",
    precision: Precision = None,
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    cache_budget: CacheBudget = 2.0,
    cache_in: CacheIn = "memory",
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Find the learning rate and the number of epochs (and more) on validation.

    A grid trains each learning rate once: shorter trainings are read off the longest one. Batch
    size, weight decay and label smoothing are searched by halving and tpe unless given. Run again
    with the same words, it does only what is missing; several processes may share DIR. Writes
    search.json, search.csv and search.html.
    """
    from secateurs.errors import InputError
    from secateurs.report.search.page import write_search_page
    from secateurs.study.search.plan import plan_of
    from secateurs.study.search.rows import search_words
    from secateurs.study.search.run import run_search
    from secateurs.study.setup.config import from_preset, parse_depths
    from secateurs.study.trials.trial import prefix_cache

    if depths is not None and (depth is not None or method == "grid"):
        other = "--depth" if depth is not None else "method grid"
        raise InputError(f"depths: cannot go with {other}; give one of them")
    frozen = (5 if depth is None else depth,) if depths is None else parse_depths(depths)
    given = {
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "depth": frozen[0] if len(frozen) == 1 else None,
    }
    searched = ("lr", *(name for name, value in given.items() if value is None))
    plan = plan_of(
        method,
        lr=lr,
        epochs=epochs,
        lr_range=lr_range,
        trials=trials,
        min_epochs=min_epochs,
        max_epochs=max_epochs,
        eta=eta,
        searched=searched,
    )
    config = from_preset(
        "quick",
        backbone=backbone,
        weights=weights,
        split=split,
        group_by=group_by,
        depths=frozen,
        runs=runs,
        scratch_runs=0,
        batch_size=batch_size,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        dropout=dropout,
        views=views,
        augment=augment,
        rotation_deg=rotation,
        min_scale=min_scale,
        resize=resize,
        precision=precision,
        device=device,
        seed=seed,
    )
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    with stop_on_interrupt() as stop:
        answer = run_search(
            data,
            config,
            plan,
            out,
            cache=session.cache,
            strict=strict,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
        )
    page = write_search_page(answer, out)
    session.answer(answer, f"{search_words(answer, data)}\npage: {page}")
