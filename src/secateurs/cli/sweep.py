"""The command `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Data, SplitOptions, Strict
from secateurs.cli.options.executors import ExecutionOptions
from secateurs.cli.options.network import (
    Backbone,
    Depths,
    NetworkOptions,
)
from secateurs.cli.options.output import (
    LogTo,
    Overwrite,
    SessionOptions,
    StudyOut,
)
from secateurs.cli.options.panels import DATA
from secateurs.cli.options.training import (
    PrefixOptions,
    Preset,
    Runs,
    ScratchRuns,
    TrainingOptions,
    ViewOptions,
)
from secateurs.cli.parsing.session import config_of, open_session


def sweep(
    context: typer.Context,
    *,
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
    split: SplitOptions,
    network: NetworkOptions,
    training: TrainingOptions,
    augmentation: ViewOptions,
    strict: Strict = False,
    prefixes: PrefixOptions,
    execution: ExecutionOptions,
    log: LogTo = None,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Compare numbers of frozen layers over several runs, and recommend one.

    Writes results.json and report.html, and keeps the network selected on validation. `secateurs
    study` with the same options and --out continues with pruning. Several processes may run the
    same command at once and share the trials.
    """
    from secateurs.report.study.page import write_report
    from secateurs.study.study import headline, run_study
    from secateurs.study.tracking.log import open_log

    settings = config_of(
        preset,
        backbone=backbone,
        depths=depths,
        runs=runs,
        scratch_runs=scratch_runs,
        **vars(split),
        **vars(network),
        **vars(training),
        **vars(augmentation),
    )
    session = open_session(session_options, context)
    crew = execution.open(cache=session.cache, progress=session.progress)
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
            prefix_cache=prefixes.open(out),
            executor=opened,
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    results = session.keep(out, "results.json", results)
    page = write_report(results, out)
    session.answer(results, f"{headline(results)}\nreport: {page}")
