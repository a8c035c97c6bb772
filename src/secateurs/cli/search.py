"""The command `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Data, SplitOptions, Strict
from secateurs.cli.options.executors import ExecutionOptions
from secateurs.cli.options.network import Backbone, NetworkOptions
from secateurs.cli.options.output import Overwrite, SessionOptions, StudyOut
from secateurs.cli.options.panels import NETWORK, TRAINING, suggest, within
from secateurs.cli.options.training import (
    Dropout,
    PrefixOptions,
    ViewOptions,
)
from secateurs.cli.parsing.session import open_session
from secateurs.limits import LIMITS


def search(
    context: typer.Context,
    *,
    data: Data,
    out: StudyOut = Path("studies/DATA-search"),
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="grid (learning rates by epochs), halving (many short trainings, few long ones) "
            "or tpe (the sampler of Optuna).",
            rich_help_panel=TRAINING,
            autocompletion=suggest("grid", "halving", "tpe"),
        ),
    ] = "grid",
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="grid: learning rates. [default: 0.001,0.005,0.01,0.05]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option(
            metavar="A-B:STEP|A,B|N",
            help="grid: numbers of epochs [default: 20-100:10]; tpe: epochs per trial "
            "[default: 20].",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="halving, tpe: number of configurations. [default: 27; 20 for tpe]",
            callback=within(LIMITS["trials"]),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    lr_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="halving, tpe: range of learning rates. [default: 1e-5,1e-2]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    min_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="halving: epochs of the first rung. [default: 4]",
            callback=within(LIMITS["min_epochs"]),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="halving: epochs of the last rung. [default: 36]",
            callback=within(LIMITS["max_epochs"]),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    eta: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="halving: one configuration in N is kept for the next rung, which trains N "
            "times as long. [default: 3]",
            callback=within(LIMITS["eta"]),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of frozen layers with weights, counted from the input. [default: 5]",
            callback=within(LIMITS["depth"]),
            rich_help_panel=NETWORK,
        ),
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(
            metavar="0-7|5,6",
            help="halving, tpe: numbers of frozen layers to search.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Runs (seeds) per configuration.",
            callback=within(LIMITS["runs"]),
            rich_help_panel=TRAINING,
        ),
    ] = 1,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|full",
            help="Images per step. [default: 64; searched by halving and tpe]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="L2 weight decay. [default: 0; searched by halving and tpe]",
            callback=within(LIMITS["weight_decay"]),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Label smoothing. [default: 0; searched by halving and tpe]",
            callback=within(LIMITS["label_smoothing"]),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    backbone: Backbone = "alexnet",
    split: SplitOptions,
    network: NetworkOptions,
    dropout: Dropout = "on",
    augmentation: ViewOptions,
    strict: Strict = False,
    prefixes: PrefixOptions,
    execution: ExecutionOptions,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Search learning rate, epochs and other settings on the validation images.

    A grid trains each learning rate once: shorter trainings are read off the longest one. halving
    and tpe also search batch size, weight decay and label smoothing where these are not given. The
    same command again resumes; several processes may share the output directory. Writes
    search.json, search.csv and search.html.
    """
    from secateurs.errors import InputError
    from secateurs.report.search.page import write_search_page
    from secateurs.study.search.answer_text import search_words
    from secateurs.study.search.plan import plan_of
    from secateurs.study.search.run import run_search
    from secateurs.study.setup.config import from_preset, parse_depths

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
    settings = from_preset(
        "quick",
        backbone=backbone,
        **vars(split),
        **vars(network),
        **vars(augmentation),
        depths=frozen,
        runs=runs,
        scratch_runs=0,
        batch_size=batch_size,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        dropout=dropout,
    )
    session = open_session(session_options, context)
    crew = execution.open(cache=session.cache, progress=session.progress)
    with session.running(out) as stop, crew as opened:
        answer = run_search(
            data,
            settings,
            plan,
            out,
            cache=session.cache,
            strict=strict,
            overwrite=overwrite,
            prefix_cache=prefixes.open(out),
            executor=opened,
            stop=stop,
            progress=session.progress,
        )
    answer = session.keep(out, "search.json", answer)
    page = write_search_page(answer, out, data=data)
    session.answer(answer, f"{search_words(answer, data)}\npage: {page}")
