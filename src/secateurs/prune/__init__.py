"""Pruning: activations, angles, selection, compensation, removal.

The package itself can be called: `secateurs.prune(model, loader, budget)` is
`secateurs.api.pruning.prune`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """The package, which the library's entry point for pruning shares its name with."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("secateurs.api.pruning").prune(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """What `inspect.signature` and `help` show."""
        return import_module("secateurs.api.pruning").prune


sys.modules[__name__].__class__ = _Package
