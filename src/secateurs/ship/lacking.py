"""What a file format cannot hold: the operator and the layer that a converter complains about."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError

_OPERATOR = re.compile(r"\b(?:aten|prims|torchvision)(?:::|\.)(\w+)|\bop '(\w+)'")
_LONGEST = 100_000  # letters of an error that are looked at


def cannot_hold(
    path: Path, form: str, error: BaseException, network: nn.Module, example: Tensor
) -> InputError:
    """The error for a network that a converter refused, with the operator and its layer.

    A module that the converter itself lacks is named as what is missing.

    Where the converter names no operator of the network, its own first line stands instead.
    """
    if isinstance(error, ModuleNotFoundError):
        return InputError(f"{path}: the converter to {form} needs {error.name}, not installed")
    reason = operator_in(error, network, (example,)) or first_line(error)
    return InputError(f"{path}: {form} cannot hold this model ({reason})")


def operator_in(
    error: BaseException,
    network: nn.Module,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any] | None = None,
) -> str:
    """The operator of a network that a converter complains about, and its layer; "" if unknown."""
    named = _named(error)
    found = _layers(network, arguments, keywords) if named else {}
    operator = next((name for name in named if name in found), None)
    return "" if operator is None else f"operator {operator}, in {found[operator]}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters.

    >>> first_line(ValueError("one\\ntwo"))
    'one'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _named(error: BaseException) -> list[str]:
    """Names of operators in an error and its causes, the innermost cause first."""
    said: list[str] = []
    link: BaseException | None = error
    while link is not None and len(said) < 10:
        said.append(str(link)[:_LONGEST])
        link = link.__cause__ or link.__context__
    found = [one or other for text in reversed(said) for one, other in _OPERATOR.findall(text)]
    return list(dict.fromkeys(found))


def _layers(
    network: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any] | None
) -> dict[str, str]:
    """The first layer of each operator, before and after compound ones are taken apart."""
    found: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, arguments, keywords)
            for graph in (program.graph, program.run_decompositions().graph):
                for node in graph.nodes:
                    name = getattr(getattr(node.target, "_schema", None), "name", "")
                    if name:
                        found.setdefault(name.partition("::")[2], _layer(node))
    except Exception:  # a network that cannot be exported: its layers are not known
        return found
    return found


def _layer(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "no layer of its own"
    name, kind = stack[-1]
    kind = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return f"layer {name} ({kind})" if name else f"the network itself ({kind})"
