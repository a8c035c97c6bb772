"""Arguments and options that say which images are used and how they are split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.panels import DATA, suggest, within
from secateurs.limits import LIMITS
from secateurs.paths import data_path, group_by_path, model_path

SPLITS = suggest("auto", "random", "ungrouped", "paper", "folders")


def _known_path(data: str | None) -> str | None:
    return None if data is None else data_path(data)


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with one folder per class, or the word faces (embedded images).",
        callback=data_path,
    ),
]
OwnData = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="Folder with one folder per class, or the word faces. [default: the images of the "
        "study]",
        callback=_known_path,
        show_default=False,
    ),
]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="Folder with model.json, or the directory of a study.",
        callback=model_path,
    ),
]
AnyModel = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="Folder with model.json, the directory of a study, or an exported file.",
        callback=model_path,
    ),
]
SplitRule = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="RULE",
        help="random (60/20/20, each group on one side), ungrouped (random, groups are only "
        "counted), paper, folders (train, val and test folders), or auto: folders where they "
        "exist, else random.",
        rich_help_panel=DATA,
        autocompletion=SPLITS,
    ),
]
OwnSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="RULE",
        help="auto, random, ungrouped, paper or folders. [default: the split of the model]",
        rich_help_panel=DATA,
        autocompletion=SPLITS,
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX|CSV",
        help="Keep groups on one side of the split: a regular expression on the file name, whose "
        "first group names the group, or a CSV file with the columns name and group.",
        callback=group_by_path,
        rich_help_panel=DATA,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Seed of the split, the augmentation, the weights and the order.",
        callback=within(LIMITS["seed"]),
        rich_help_panel=DATA,
    ),
]
OwnSeed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Seed of the split. [default: that of the model]",
        callback=within(LIMITS["seed"]),
        rich_help_panel=DATA,
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Treat findings of the audit as errors.", rich_help_panel=DATA),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Cache folder. [default: $SECATEURS_CACHE or ~/.cache/secateurs]",
        rich_help_panel=DATA,
    ),
]


@dataclass(frozen=True)
class SplitOptions:
    """How the images of a training are split."""

    split: SplitRule = "auto"
    group_by: GroupBy = None
    seed: Seed = 0


@dataclass(frozen=True)
class OwnSplitOptions:
    """How images are split for a saved model: as its own images were, by default."""

    split: OwnSplit = None
    group_by: GroupBy = None
    seed: OwnSeed = None
