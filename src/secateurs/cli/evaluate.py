"""The command `evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options.data import Cache, GroupBy, Model, OwnData, OwnSeed, OwnSplit
from secateurs.cli.options.network import Device
from secateurs.cli.options.output import AsJson, Config, ProgressMode, Quiet
from secateurs.cli.options.panels import DATA, suggest
from secateurs.cli.parsing.session import session_of


def evaluate(
    context: typer.Context,
    model: Model,
    data: OwnData = None,
    side: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="train, val, test, or all: every image that the model was not trained on.",
            rich_help_panel=DATA,
            autocompletion=suggest("train", "val", "test", "all"),
        ),
    ] = "test",
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    device: Device = "auto",
    cache: Cache = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Accuracy, precision, recall and specificity of a saved model on labelled images.

    Images that the model was trained or selected on are never counted as test images. Without
    --split or --group-by the split of the model is used.
    """
    from secateurs.study.saved.evaluate_saved import evaluate_saved, evaluation_table
    from secateurs.study.saved.location import images_of

    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress, context=context)
    answer = evaluate_saved(
        model,
        images_of(model, data, command="evaluate MODEL"),
        side=side,
        split=split,
        group_by=group_by,
        seed=seed,
        device=device,
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(answer, evaluation_table(answer, side))
