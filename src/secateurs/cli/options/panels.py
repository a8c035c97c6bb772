"""The panels of `--help`, and how an option is declared in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from secateurs.limits import Range, check_number

BASICS = "Basics"
DATA = "Data"
NETWORK = "Network"
TRAINING = "Training"
PRUNING = "Pruning"
QUANTIZATION = "Quantization"
EXECUTION = "Execution"
SERVICE = "Limits of the service"
OUTPUT = "Output"
PANELS = (BASICS, DATA, NETWORK, TRAINING, PRUNING, QUANTIZATION, EXECUTION, SERVICE, OUTPUT)


def within(limits: Range) -> Callable[[typer.CallbackParam, Any], Any]:
    """A check of an option's number while the command line is read; None was not given."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None:
            check_number(max(param.opts, key=len), value, limits)
        return value

    return check


def suggest(*values: str) -> Callable[[str], list[str]]:
    """The completions of an option that takes one of a few values."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete
