"""A block of a page: figures, their caption and the data tables behind them."""

from __future__ import annotations

from dataclasses import dataclass

from secateurs.report.common.canvas import Plot
from secateurs.report.common.formatting import listed


@dataclass(frozen=True)
class Table:
    """A table of text: the first column of a row names it, the others hold numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Panel:
    """Figures side by side, a caption, and the data tables behind them."""

    key: str
    title: str
    caption: str
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    open_tables: bool = False  # the tables are shown, not collapsed
    switch: str = ""  # label of the check box that shows the traces marked "other"
    wide: bool = True  # False: several figures fit side by side
    source: str = ""  # where in the results file the numbers are


def where(*parts: str) -> str:
    """Where the numbers of a panel are in the study's results.

    >>> where("sweep", "trials")
    'In results.json under sweep and trials.'
    """
    return f"In results.json under {listed(parts)}."
