"""One block of evidence on a page: figures, their caption and the data behind them."""

from __future__ import annotations

from dataclasses import dataclass

from secateurs.report.common.canvas import Plot
from secateurs.report.common.tables import Table
from secateurs.report.common.words import listed


@dataclass(frozen=True)
class Panel:
    """One block of evidence: drawings side by side, a sentence, and the numbers behind them."""

    key: str
    title: str
    caption: str
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    open_tables: bool = False  # the tables are part of the evidence, not folded away
    switch: str = ""  # label of the switch that shows the traces marked "other"
    wide: bool = True  # False: drawings of which several fit side by side
    source: str = ""  # a sentence on where else the numbers are


def where(*parts: str) -> str:
    """Where the numbers of a panel are in the study's results.

    >>> where("sweep", "trials")
    'In results.json under sweep and trials.'
    """
    return f"In results.json under {listed(parts)}."
