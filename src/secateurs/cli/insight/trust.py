"""The command `trust`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Cache, GroupBy, Model, OwnData, OwnSeed, OwnSplit
from secateurs.cli.options.output import AsJson, Config, Overwrite, ProgressMode, Quiet, StudyOut
from secateurs.cli.options.panels import DATA, OUTPUT, suggest, within
from secateurs.cli.parsing.session import session_of
from secateurs.limits import LIMITS
from secateurs.paths import model_path


def _against(model: Path | None) -> Path | None:
    return None if model is None else model_path(model)


def trust(
    context: typer.Context,
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
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    cache: Cache = None,
    config: Config = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
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
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress, context=context)
    with session.running(out) as stop:
        record = trust_saved(
            model,
            images,
            out,
            against=against,
            side=side,
            target=target,
            changes={"split": split, "group_by": group_by, "seed": seed},
            save_threshold=save_threshold,
            cache=session.cache,
            overwrite=overwrite,
            stop=stop,
            progress=session.progress,
        )
    page = write_trust_page(record, out, model=model, data=images)
    words = "\n".join(trust_words(record))
    session.answer(record, f"{words}\npage: {page}")
