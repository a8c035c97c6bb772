"""What an exported file says of its model: classes, preprocessing, threshold and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import read_json, sha256_file, write_json
from secateurs.ship.spec import ModelSpec, parse_spec

CONFIDENCE = "confidence"  # in a recipe's `extra`: temperature and threshold
CARD = "card"
SHA256 = "sha256"  # of the file with the weights, where the description is in another one
KEYS = ("classes", "preprocessing", "backbone")
_FACTS = ("data", "weights", "depth", "secateurs")


def about(spec: ModelSpec, card: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain data for a file that is to be used without Secateurs.

    `classes` in the order of the outputs, `preprocessing` as `ImageInput.to_json` has it,
    `backbone`, `confidence` (softmax(logits / `temperature`) are the probabilities; below
    `threshold`, where it is not None, the answer is "don't know") and `card`: what the network was
    made from, with what is given in `card`, such as accuracies.

    >>> from secateurs.ship.spec import ImageInput
    >>> about(ModelSpec("alexnet", ("a", "b"), ImageInput.of("alexnet")))["confidence"]
    {'temperature': 1.0, 'threshold': None}
    """
    described = spec.to_json()
    known: dict[str, Any] = {"temperature": 1.0, "threshold": None}
    given = spec.extra.get(CONFIDENCE)
    known |= given if isinstance(given, dict) else {}
    facts: dict[str, Any] = {key: spec.extra[key] for key in _FACTS if key in spec.extra}
    facts["pruned"] = bool(spec.widths)
    return {key: described[key] for key in KEYS} | {
        CONFIDENCE: known,
        CARD: facts | dict(card or {}),
    }


def parse_about(data: Any, *, where: str) -> ModelSpec:
    """The recipe, without tensors, that `about` gave; files of 0.1.0 have no confidence and card.

    Raises InputError that names `where` and the field for what is damaged or not of Secateurs.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: not a file of Secateurs (it names no classes)")
    extra = {key: data[key] for key in (CONFIDENCE, CARD) if data.get(key) is not None}
    plain = {key: data.get(key) for key in KEYS}
    return parse_spec(plain | {"widths": {}, "kept": {}, "extra": extra}, where=where)


def beside(path: Path) -> Path:
    """The JSON file beside a file that cannot carry what `about` says.

    >>> beside(Path("photos.tflite")).name
    'photos.tflite.json'
    """
    return path.with_name(f"{path.name}.json")


def write_beside(path: Path, said: Mapping[str, Any], *, sha256: str) -> None:
    """Write what `about` gave beside a file with that digest, whole or not at all."""
    write_json(beside(path), {**said, SHA256: sha256})


def read_beside(path: Path) -> ModelSpec:
    """The recipe beside a file; InputError when it is missing or damaged, or of another file."""
    file = beside(path)
    if not file.exists():
        raise InputError(f"{file}: no such file; {path.name} has its classes in it")
    said = read_json(file)
    spec = parse_about(said, where=str(file))
    check_digest(path, said)
    return spec


def check_digest(path: Path, said: Mapping[str, Any]) -> None:
    """Raise InputError unless a file has the digest that its description names, if it names one.

    A byte that changed is found before a runtime reads the file, which may end the process.
    """
    known = said.get(SHA256)
    if known is not None and known != sha256_file(path):
        raise InputError(f"{path}: damaged or of another export (its SHA-256 is not {known!s:.64})")
