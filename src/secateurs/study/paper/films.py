"""Which film a frame is from, and whether films can be kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from secateurs.data.splits.image_groups import groups_from_pattern, parse_group_by
from secateurs.data.splits.split import group_split, leakage
from secateurs.errors import InputError
from secateurs.study.setup.trial_context import TrialContext

# SFEW names its frames after their film: the part before the first underscore.
FILM = r"^([^_]+)_"


@dataclass(frozen=True)
class Films:
    """How films are found in file names, and that of each image; without them `why_not`."""

    group_by: str | None
    groups: tuple[str, ...] | None
    why_not: str


def find_films(
    names: Sequence[str], labels: Sequence[int], classes: Sequence[str], *, asked: str | None
) -> Films:
    """The film of each image by `asked`, or by SFEW's names where they fit.

    What was asked for must work: raises InputError when it finds nothing in a name, or when films
    cannot be assigned to three sides with every class on each.

    >>> names = [f"Sad/{film}_{k}.png" for film in "abc" for k in range(2)]
    >>> find_films(names, [0] * 6, ["Sad"], asked=None).groups
    ('a', 'a', 'b', 'b', 'c', 'c')
    >>> find_films(["Sad/1.png"], [0], ["Sad"], asked=None).why_not
    'file names do not start with a film and an underscore, as those of SFEW do'
    """
    if asked is not None:
        groups = parse_group_by(names, asked)
        group_split(labels, groups, seed=0, classes=classes)
        return Films(asked, groups, "")
    try:
        groups = groups_from_pattern(names, FILM)
    except InputError:
        why = "file names do not start with a film and an underscore, as those of SFEW do"
        return Films(None, None, why)
    number = len(set(groups))
    if number == len(groups):
        return Films(None, None, "every file name starts with another word: no two share a film")
    try:
        group_split(labels, groups, seed=0, classes=classes)
    except InputError as error:
        return Films(None, None, f"file names start with {number} different words: {error}")
    return Films(FILM, groups, "")


def with_films(context: TrialContext, films: Films) -> TrialContext:
    """The context with the films of its images known, and how many the paper's split leaks."""
    dataset = context.dataset
    seen = leakage(dataset.split, dataset.audit, films.groups)
    return replace(context, dataset=replace(dataset, groups=films.groups, leakage=seen))
