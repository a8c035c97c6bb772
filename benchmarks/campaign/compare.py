"""Whether two output directories say the same, but for times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Lines that may differ from run to run are found by comparing two runs that nothing disturbed.
Tree = dict[str, Any]


def leftovers(*roots: Path) -> list[str]:
    """Temporary files and folders that nobody will ever use."""
    found: list[str] = []
    for root in roots:
        for path in root.rglob("*"):
            name = path.name
            if name.endswith((".part", ".tmp")) or name.startswith((".part-", "tmp")):
                found.append(str(path.relative_to(root)))
    return found


def read_tree(root: Path) -> Tree:
    """What is in a directory: JSON and CSV as values by place, tensors as bytes, others by name."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_dir() or name.endswith((".lock", ".part")):
            continue
        if path.suffix == ".json":
            try:
                _flatten(json.loads(path.read_text()), name, found)
            except (ValueError, RecursionError):
                found[name] = "not JSON"
        elif path.suffix == ".csv":
            for row, text in enumerate(path.read_text(errors="replace").splitlines()):
                for column, cell in enumerate(text.split(",")):
                    found[f"{name}:{row}:{column}"] = cell
        elif path.suffix in (".safetensors", ".npy"):
            found[name] = path.read_bytes()
        else:
            found[name] = None  # pages and ONNX files carry dates or times
    return found


def _flatten(value: Any, place: str, found: Tree) -> None:
    if isinstance(value, dict):
        found[place] = sorted(value)
        for key, part in value.items():
            _flatten(part, f"{place}.{key}", found)
    elif isinstance(value, list):
        found[place] = len(value)
        for number, part in enumerate(value):
            _flatten(part, f"{place}[{number}]", found)
    else:
        found[place] = value


TIMES = ("timing", "seconds", "latency", "_ms", "_s", "ratio", "sentence", "sha256", "finished")


def differences(one: Tree, other: Tree, *, noise: set[str]) -> list[str]:
    """The places at which two trees differ, those in `noise` left out."""
    return [
        place
        for place in sorted(one.keys() | other.keys())
        if place not in noise and one.get(place, "missing") != other.get(place, "missing")
    ]


def noise_of(one: Tree, other: Tree) -> set[str]:
    """The places at which two undisturbed runs differ, and all whose names speak of time."""
    timed = {place for place in one.keys() | other.keys() if any(w in place for w in TIMES)}
    return timed | set(differences(one, other, noise=set()))
