"""The command `trust`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Model, OwnData, OwnSplitOptions
from secateurs.cli.options.output import Overwrite, SessionOptions, StudyOut
from secateurs.cli.options.panels import DATA, OUTPUT, suggest, within
from secateurs.cli.parsing.session import open_session
from secateurs.limits import LIMITS
from secateurs.paths import model_path


def _against(model: Path | None) -> Path | None:
    return None if model is None else model_path(model)


def trust(
    context: typer.Context,
    *,
    model: Model,
    data: OwnData = None,
    out: StudyOut = Path("studies/MODEL-trust"),
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Another model to compare with. [default: of a study the network before pruning]",
            callback=_against,
            rich_help_panel=DATA,
        ),
    ] = None,
    side: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Measure on test or val images.",
            rich_help_panel=DATA,
            autocompletion=suggest("test", "val"),
        ),
    ] = "test",
    target: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Accuracy on validation that the answered images must reach, 0..1.",
            callback=within(LIMITS["target"]),
            rich_help_panel=OUTPUT,
        ),
    ] = 0.95,
    save_threshold: Annotated[
        bool,
        typer.Option(
            "--save-threshold",
            help="Keep temperature and threshold in the model, for predict.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    split: OwnSplitOptions,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Measure calibration, confident answers, corrupted images, rare classes and groups.

    Of a study the pruned network is compared with the unpruned one. Writes trust.json and
    trust.html.
    """
    from secateurs.report.insight.trust import trust_words
    from secateurs.report.insight.trust_page import write_trust_page
    from secateurs.study.insight.trust_saved import trust_saved
    from secateurs.study.saved.location import images_of

    images = images_of(model, data, command="trust MODEL")
    session = open_session(session_options, context)
    with session.running(out) as stop:
        record = trust_saved(
            model,
            images,
            out,
            against=against,
            side=side,
            target=target,
            changes=vars(split),
            save_threshold=save_threshold,
            cache=session.cache,
            overwrite=overwrite,
            stop=stop,
            progress=session.progress,
        )
    record = session.keep(out, "trust.json", record)
    page = write_trust_page(record, out, model=model, data=images)
    words = "\n".join(trust_words(record))
    session.answer(record, f"{words}\npage: {page}")
