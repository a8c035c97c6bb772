"""The command `train`."""

from __future__ import annotations

from pathlib import Path

import typer

from secateurs.cli.options.data import Data, SplitOptions, Strict
from secateurs.cli.options.network import (
    Backbone,
    Depth,
    NetworkOptions,
)
from secateurs.cli.options.output import (
    LogTo,
    ModelOut,
    Overwrite,
    SessionOptions,
)
from secateurs.cli.options.training import PrefixOptions, TrainingOptions, ViewOptions
from secateurs.cli.parsing.session import config_of, open_session


def train(
    context: typer.Context,
    *,
    data: Data,
    out: ModelOut = Path("models/DATA"),
    depth: Depth = None,
    backbone: Backbone = "alexnet",
    split: SplitOptions,
    network: NetworkOptions,
    training: TrainingOptions,
    augmentation: ViewOptions,
    strict: Strict = False,
    prefixes: PrefixOptions,
    log: LogTo = None,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune one network with --depth frozen layers and save it.

    The same command again resumes after an interruption.
    """
    from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
    from secateurs.study.setup.defaults import default_depth
    from secateurs.study.setup.trial_context import settle_split
    from secateurs.study.tracking.log import open_log
    from secateurs.study.training import train_model

    session = open_session(session_options, context)
    chosen, words = default_depth(backbone) if depth is None else (depth, "")
    settings = config_of(
        depths=str(chosen),
        runs=1,
        scratch_runs=0,
        backbone=backbone,
        **vars(split),
        **vars(network),
        **vars(training),
        **vars(augmentation),
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
            prefix_cache=prefixes.open(out),
            stop=stop,
            progress=session.progress,
            log=open_log(log, out),
        )
    answer = session.keep(out, "training.json", answer)
    settled = settle_split(data, settings).split
    grouped = split.group_by is not None or settled != "random" or data == "faces"
    shown = [f"caution: {text}" for text in cautions(answer["val"], grouped=grouped)]
    lines = [evaluation_words(answer["val"], "validation"), *shown, f"model: {out}"]
    session.answer(answer, "\n".join(lines))
