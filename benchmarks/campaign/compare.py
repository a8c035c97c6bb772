"""Whether two output directories hold the same values, but for times."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# What a place in a directory holds: `results.json.best.depth` or `model.safetensors`.
Tree = dict[str, Any]
# Names of values that a clock measures, of checksums of records that hold such values (the rest of
# which is compared), and of sentences that compare times.
CLOCK = re.compile(
    r"timing|seconds|latency|\.json\.sha256$|(cost|cost\.json\.value)\.sentence$|(^|[._])"
    r"(ms|time_ratio|finished|started|date|file_bytes|onnx_bytes)($|[.:\[_])"
)
# What sentences say of times.
SAID = re.compile(
    r"(is slower|is not measurably faster|takes [\d.]+% of the time) \([^)]*\)"
    r"|[\d.]+(?= (ms|s)\b)|[\d.]+%?(?= of the time\b)"
)


def leftovers(*roots: Path) -> list[str]:
    """Temporary files and folders that nobody will ever use."""
    found: list[str] = []
    for root in roots:
        for path in root.rglob("*"):
            name = path.name
            if name.endswith((".part", ".tmp")) or name.startswith((".part-", "tmp", ".tmp")):
                found.append(str(path.relative_to(root)))
    return found


def read_tree(root: Path) -> Tree:
    """What is in a directory: JSON and CSV as values by place, other files as hashes."""
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
            rows = [line.split(",") for line in path.read_text(errors="replace").splitlines()]
            for number, row in enumerate(rows):
                for title, cell in zip(rows[0], row, strict=False):
                    found[f"{name}.{title}.{number}"] = cell
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
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
        found[place] = SAID.sub("some", value) if isinstance(value, str) else value


def differences(one: Tree, other: Tree, *, noise: set[str]) -> list[str]:
    """The places at which two trees differ, those in `noise` left out."""
    return [
        place
        for place in sorted(one.keys() | other.keys())
        if place not in noise and one.get(place, "missing") != other.get(place, "missing")
    ]


def noise_of(one: Tree, other: Tree) -> set[str]:
    """The places at which two undisturbed runs differ, and those that a clock measures."""
    timed = {place for place in one.keys() | other.keys() if CLOCK.search(place)}
    return timed | set(differences(one, other, noise=set()))
