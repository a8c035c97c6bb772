"""Heat maps with a text in each cell, readable on light and dark cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import INK, SCALE, SURFACE

# Above this share of the colour scale a cell's text is written in the light colour.
DARK_CELL = 0.6


def add_heat_map(
    figure: go.Figure,
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    *,
    detail: Sequence[Sequence[Any]],
    low: float,
    high: float,
    hover: str = "%{customdata}",
    text_size: float = 12.5,
    row_gap: int = 2,
) -> None:
    """Draw `values` (rows, columns) at positions 0..n-1, coloured from `low` to `high`.

    A cell of value None has no colour; a text "" is not drawn, and `texts` may be empty for none at
    all. `detail` is the custom data of the cells, which the template `hover` may name. `row_gap`
    are pixels between the rows.
    """
    span = max(high - low, 1e-9)
    figure.add_heatmap(
        z=[list(row) for row in values],
        x=list(range(len(values[0]))),
        y=list(range(len(values))),
        customdata=[list(row) for row in detail],
        hovertemplate=f"{hover}<extra></extra>",
        hoverongaps=False,
        zmin=low,
        zmax=low + span,
        colorscale=[[at / 2, colour] for at, colour in enumerate(SCALE)],
        showscale=False,
        xgap=2,
        ygap=row_gap,
    )
    for colour, dark in ((INK, False), (SURFACE, True)) if texts else ():
        cells = [
            (column, row, text)
            for row, line in enumerate(texts)
            for column, text in enumerate(line)
            if text and _is_dark(values[row][column], low, span) == dark
        ]
        figure.add_scatter(
            mode="text",
            x=[column for column, _, _ in cells],
            y=[row for _, row, _ in cells],
            text=[text for _, _, text in cells],
            textfont={"color": colour, "size": text_size},
            hoverinfo="skip",
        )


def _is_dark(value: float | None, low: float, span: float) -> bool:
    return value is not None and (value - low) / span > DARK_CELL
