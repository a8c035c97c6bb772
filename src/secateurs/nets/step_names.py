"""What people call the parts of a network: stem, stage 1 block 2, features 3, encoder layer 5."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Words that hold numbered parts and say nothing where there are stages and blocks.
_LISTS = ("stages", "blocks", "layers", "levels", "features", "network", "stage", "block", "layer")
_STAGES = ("stages", "stage", "blocks", "levels", "s")
_NUMBERED = re.compile(r"^([A-Za-z][A-Za-z_]*?)[_-]?(\d+(?:-\d+)?[a-z]?)$")


@dataclass(frozen=True)
class _Part:
    """A path taken apart: its numbered places in order, and the word that follows the last."""

    numbers: tuple[tuple[str, str, bool], ...]  # (word, number, whether it is part of the word)
    rest: str


def step_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Names for the parts of a network, given by the paths of their modules in running order.

    Two numbered levels are stages and blocks, counted from one (or as the modules' own names
    count); one level is named after its list, with the place in it. The first part is the stem
    unless it stands in such a list with others of its kind; the last is the head.

    >>> step_names(["conv1", "layer1.0", "layer1.1", "layer2.0", "fc"])
    ('stem', 'stage 1 block 1', 'stage 1 block 2', 'stage 2 block 1', 'head')
    >>> step_names(["features.0", "features.3", "classifier.1"])
    ('features 0', 'features 3', 'head')
    """
    parts = [_taken_apart(path) for path in paths]
    groups: dict[tuple[str, str], int] = {}
    for path, part in zip(paths[:-1], parts, strict=False):
        if len(part.numbers) > 1 and not _is_stem(path, paths[0]):
            groups.setdefault(part.numbers[0][:2], len(groups) + 1)
    names: list[str] = []
    seen_stage = 0
    for place, part in enumerate(parts):
        if place == len(parts) - 1 and place:
            names.append("head")
        elif _is_stem(paths[place], paths[0]):
            names.append("stem")
        elif len(part.numbers) > 1:
            word, number, own = part.numbers[0]
            seen_stage = groups[word, number]
            # In these lists stages stand among other parts.
            counted = (
                seen_stage if word in ("features", "layers") else _from_one((word, number, own))
            )
            stage = number if own else str(counted)
            names.append(f"stage {stage} block {_from_one(part.numbers[-1])}{_tail(part.rest)}")
        elif place == 0 and (groups or not part.numbers or part.numbers[0][2]):
            names.append("stem")
        else:
            names.append(_single(paths[place], part, seen_stage, len(groups)))
    return tuple(names)


def _is_stem(path: str, first: str) -> bool:
    """Whether a part is in the same module as the first, where that is no list of blocks."""
    start = path.split(".")[0]
    return start == first.split(".")[0] and start not in _LISTS and "." in path


def _single(path: str, part: _Part, seen_stage: int, num_stages: int) -> str:
    """The name of a part that stands in one numbered list at most."""
    if path.split(".")[0] == "stem":
        return "stem"
    if not part.numbers:
        return _spaced(path)
    word, number, own = part.numbers[0]
    if num_stages and word in _LISTS and not own:
        if word in _STAGES or part.rest:
            return f"stage {int(number) + 1}{_tail(part.rest)}"
        if 0 < seen_stage < num_stages:
            return f"stage {seen_stage + 1} downsampling"
    if own and word in ("layer", "stage", "s"):
        return f"stage {number}{_tail(part.rest)}"
    if own:
        joint = "" if word == "conv" else " "
        return f"{_spaced(word)}{joint}{number}{_tail(part.rest)}"
    if word in ("blocks", "stages", "levels"):
        return f"{word[:-1]} {int(number) + 1}{_tail(part.rest)}"
    return f"{_spaced(word)} {number}{_tail(part.rest)}"


def _taken_apart(path: str) -> _Part:
    """The numbered places of a path: lists of blocks, their places, and numbers in words."""
    numbers: list[tuple[str, str, bool]] = []
    word, rest = "", ""
    for piece in path.split("."):
        found = _NUMBERED.match(piece)
        own = found is not None and piece != "conv0"
        if not piece.isdigit() and not own:
            rest = rest or (piece if numbers and piece not in _LISTS else "")
        elif numbers and rest:
            break  # a layer within a part that has a name
        elif own:
            assert found is not None
            numbers.append((found[1], found[2], True))
        else:
            numbers.append((word, piece, False))
        word = piece
    return _Part(tuple(numbers), rest)


def _from_one(number: tuple[str, str, bool]) -> str:
    _, text, own = number
    text = text.rpartition("-")[2] if "-" in text else text
    if own and "-" not in number[1]:
        return text
    return str(int(text) + 1)


def _tail(rest: str) -> str:
    return f" {_spaced(rest)}" if rest else ""


def _spaced(text: str) -> str:
    text = re.sub(r"^(dense)(block)$", r"\1 \2", text)
    return text.replace("_", " ").replace(".", " ").strip().lower()
