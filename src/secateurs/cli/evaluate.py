"""The command `evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options.data import Model, OwnData, OwnSplitOptions
from secateurs.cli.options.network import Device
from secateurs.cli.options.output import SessionOptions
from secateurs.cli.options.panels import DATA, suggest
from secateurs.cli.parsing.session import open_session


def evaluate(
    context: typer.Context,
    *,
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
    split: OwnSplitOptions,
    device: Device = "auto",
    session_options: SessionOptions,
) -> None:
    """Accuracy, precision, recall and specificity of a saved model on labelled images.

    Images that the model was trained or selected on are never counted as test images. Without
    --split or --group-by the split of the model is used.
    """
    from secateurs.study.saved.evaluate_saved import evaluate_saved, evaluation_table
    from secateurs.study.saved.location import images_of

    session = open_session(session_options, context)
    answer = evaluate_saved(
        model,
        images_of(model, data, command="evaluate MODEL"),
        side=side,
        **vars(split),
        device=device,
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(answer, evaluation_table(answer, side))
