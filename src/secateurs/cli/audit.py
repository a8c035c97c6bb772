"""The command `audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options.data import SPLITS, Data, GroupBy, Seed, Strict
from secateurs.cli.options.output import SessionOptions
from secateurs.cli.options.panels import DATA
from secateurs.cli.parsing.session import open_session
from secateurs.errors import InputError


def audit(
    context: typer.Context,
    *,
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="RULE",
            help="Also split: auto, random, ungrouped, paper or folders. [default: folders for "
            "images in train and test folders]",
            rich_help_panel=DATA,
            autocompletion=SPLITS,
        ),
    ] = None,
    group_by: GroupBy = None,
    seed: Seed = 0,
    strict: Strict = False,
    session_options: SessionOptions,
) -> None:
    """Check a folder of images: unusable files, duplicates, conflicting labels, leakage."""
    from secateurs.study.audit_summary import audit_data, audit_words

    session = open_session(session_options, context)
    found = audit_data(
        data,
        split=split,
        group_by=group_by,
        seed=seed,
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(found, audit_words(found))
    if strict and found["findings"]:
        raise InputError(f"{data}: the audit has findings, and --strict makes them an error")
