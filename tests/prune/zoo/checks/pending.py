"""Modules of the zoo that do not pass yet, by what is missing."""

from __future__ import annotations

_BY_CAUSE = {
    "channels of units of two axes at once": "outer_product",
}

PENDING = {name: cause for cause, names in _BY_CAUSE.items() for name in names.split()}
