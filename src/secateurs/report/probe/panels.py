"""What each depth of each network knows about the images: heat map and data tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import plotly.graph_objects as go

from secateurs.report.common.canvas import INK, Plot, base, safe
from secateurs.report.common.formatting import (
    count,
    integer,
    interval,
    listed,
    percent,
    percent_interval,
    plural,
    shorten,
    size,
)
from secateurs.report.common.heat_map import add_heat_map
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.sweep_rows import Record

ROW_PX, LABEL_PX = 66, 24  # of a network's row and label, and of the label alone
NAME_CHARS = 34
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Grid:
    """Rows of the networks laid out by share of the network that is frozen; None is no depth."""

    shares: tuple[float, ...]
    cells: tuple[tuple[Record | None, ...], ...]


def grid_of(networks: Sequence[Record]) -> Grid:
    """The depths of the networks in common columns.

    Networks with the same number of depths have them in order; those with fewer have each in the
    column nearest to its share, and none twice.

    >>> one = {"depths": [{"share": 0.0}, {"share": 0.4}, {"share": 1.0}]}
    >>> grid_of([one, {"depths": [{"share": 0.9}]}]).cells[1]
    (None, None, {'share': 0.9})
    """
    width = max(len(network["depths"]) for network in networks)
    cells: list[tuple[Record | None, ...]] = []
    for network in networks:
        rows: list[Record] = network["depths"]
        line: list[Record | None] = [None] * width
        for place, row in enumerate(rows):
            nearest = round(row["share"] * (width - 1))
            free = [c for c in range(width) if place <= c <= width - len(rows) + place]
            taken = max((c for c in range(width) if line[c] is not None), default=-1)
            free = [c for c in free if c > taken]
            line[min(free, key=lambda c: abs(c - nearest))] = row
        cells.append(tuple(line))
    columns = zip(*cells, strict=True)
    shares = tuple(median(row["share"] for row in column if row) for column in columns)
    return Grid(shares, tuple(cells))


def probe_panel(record: Record, *, source: str = "") -> Panel:
    """The heat map of a probe (what `run_probe` records), with its data tables."""
    networks: list[Record] = record["networks"]
    caption = probe_caption(record)
    return Panel(
        "probe",
        "What each depth of each network knows about your images",
        caption,
        (Plot(heat_map(record), "", f"{probe_label(record)} {caption}"),),
        (depths_table(networks), networks_table(record)),
        source=source,
    )


def heat_map(record: Record) -> go.Figure:
    """Accuracy on images that were left out, of every depth; the scale begins at the majority."""
    networks: list[Record] = record["networks"]
    grid = grid_of(networks)
    figure = base(62 + ROW_PX * len(networks), x_title="frozen part of the network")
    highest = max(row["accuracy"] for line in grid.cells for row in line if row)
    add_heat_map(
        figure,
        [[row["accuracy"] if row else None for row in line] for line in grid.cells],
        [[_cell_text(row) for row in line] for line in grid.cells],
        detail=[
            [_hover(network, row) for row in line]
            for network, line in zip(networks, grid.cells, strict=True)
        ],
        low=min(record["majority"]["accuracy"], highest - 0.1),
        high=highest,
        row_gap=LABEL_PX,
    )
    figure.update_xaxes(
        tickvals=list(range(len(grid.shares))),
        ticktext=[f"{100 * share:.0f}%" for share in grid.shares],
        range=[-0.5, len(grid.shares) - 0.5],
        showgrid=False,
        tickfont={"color": INK},
    )
    # Labels above the rows, not beside them: on a phone the cells need the width.
    figure.update_yaxes(visible=False, range=[len(networks) - 0.5, -0.62])
    for place, network in enumerate(networks):
        name = safe(shorten(_short_name(network["backbone"]), NAME_CHARS))
        figure.add_annotation(
            text=f"{name}, {size(_bytes(network))}",
            x=0,
            xref="paper",
            xanchor="left",
            align="left",
            y=place - 0.5,
            yanchor="middle",
            yshift=0,
            showarrow=False,
            font={"color": INK, "size": 13},
        )
    return figure


def _short_name(backbone: str) -> str:
    """A network's name with the number of the earlier depths that its head reads."""
    stock, *earlier = backbone.split("+")
    return f"{stock} + {plural(len(earlier), 'earlier depth')}" if earlier else stock


def _bytes(network: Record) -> int:
    return FLOAT_BYTES * network["num_parameters"]


def _cell_text(row: Record | None) -> str:
    if row is None:
        return ""
    bounds = interval(row["low"], row["high"])
    return f'{100 * row["accuracy"]:.0f}%<br><span style="font-size:10px">{bounds}</span>'


def _hover(network: Record, row: Record | None) -> str:
    if row is None:
        return ""
    frozen = f"<br>random weights: {safe(', '.join(row['random_frozen'][:3]))}"
    return (
        f"{safe(network['backbone'])}, {safe(place_name(row))}<br>"
        f"{percent_interval(row['accuracy'], row['low'], row['high'])}"
        f"{frozen if row['random_frozen'] else ''}"
    )


def place_name(row: Record) -> str:
    """Where the features of a depth are taken; nothing is frozen at depth 0, it has the pixels."""
    return row["name"] if row["depth"] else "pixels"


def freeze_words(network: Record, depth: int) -> str:
    """What fine-tuning at a depth means.

    >>> network = {"depths": [{"depth": 3, "name": "up to stage 1 block 1"}]}
    >>> freeze_words(network, 3), freeze_words(network, 0)
    ('freeze up to stage 1 block 1', 'train all')
    """
    name = next((row["name"] for row in network["depths"] if row["depth"] == depth), "")
    if depth == 0:
        return "train all"
    return "train the head only" if name == "head only" else f"freeze {name}"


def best_row(network: Record) -> Record:
    """The depth of a network with the best accuracy; of several the deepest."""
    return max(network["depths"], key=lambda row: (row["accuracy"], row["depth"]))


def probe_label(record: Record) -> str:
    """The heat map in words, for people who do not see it."""
    parts: list[str] = []
    for network in record["networks"]:
        first, best = network["depths"][0], best_row(network)
        parts.append(
            f"{network['backbone']}: {percent(first['accuracy'], digits=0)} at "
            f"{place_name(first)}, best {percent(best['accuracy'], digits=0)} at {place_name(best)}"
        )
    return f"Heat map of accuracy; rows are networks, columns depths. {'; '.join(parts)}."


def probe_caption(record: Record) -> str:
    """How the accuracies were found, and what they are compared with."""
    data = record["data"]
    num = data["num_train"] + data["num_val"]
    left_out = "group" if data["num_groups"] else "image"
    majority = record["majority"]
    text = (
        f"Accuracy of a ridge classifier on the features behind the frozen part, without training "
        f"the network, with 95% intervals, on {plural(num, 'image')}: training images classified "
        f"with their {left_out} left out, and validation images. The largest class is "
        f"{percent(majority['accuracy'])} of the validation images."
    )
    if any("+" in network["backbone"] for network in record["networks"]):
        text += (
            " The heads of some networks also read earlier depths: the last cell of such a row is "
            "of these and the last features together."
        )
    if any(row["random_frozen"] for network in record["networks"] for row in network["depths"]):
        text += (
            " Some of the frozen layers have random weights, since no pretrained weights were "
            "found for them: those cells say nothing about pretrained ones."
        )
    return text


def depths_table(networks: Sequence[Record]) -> Table:
    """Every cell of the heat map, with both parts of its accuracy."""
    rows = [
        (
            f"{network['backbone']}, {place_name(row)}",
            integer(row["depth"]),
            percent(row["share"], digits=0),
            percent_interval(row["accuracy"], row["low"], row["high"]),
            percent_interval(row["train_accuracy"], row["train_low"], row["train_high"]),
            percent_interval(row["val_accuracy"], row["val_low"], row["val_high"]),
            integer(row["num_features"]),
            f"{row['ridge']:.3g}",
        )
        for network in networks
        for row in network["depths"]
    ]
    columns = ("network and depth", "frozen layers", "share", "accuracy", "training, left out")
    return Table("Every depth", (*columns, "validation", "features", "ridge"), tuple(rows))


def networks_table(record: Record) -> Table:
    """The networks, their sizes, and what the probe says of them."""
    suggested = {one["backbone"]: one for one in record["suggestions"]}
    rows: list[tuple[str, ...]] = []
    for network in record["networks"]:
        one, best = suggested.get(network["backbone"]), best_row(network)
        rows.append(
            (
                network["backbone"],
                count(network["num_parameters"]),
                size(_bytes(network)),
                percent_interval(best["accuracy"], best["low"], best["high"]),
                place_name(best),
                one["reason"] if one else "not among the suggestions",
                freeze_words(network, one["freeze"][0]) if one else "",
                f"{network['seconds']:.0f} s",
            )
        )
    columns = ("network", "parameters", "size in float32", "best accuracy", "at", "compared")
    return Table("The networks", (*columns, "fine-tune first", "time"), tuple(rows))


def suggestion_words(record: Record) -> list[str]:
    """What to fine-tune, one sentence a network, best first."""
    sentences: list[str] = []
    networks = {network["backbone"]: network for network in record["networks"]}
    for one in record["suggestions"]:
        network = networks[one["backbone"]]
        best = best_row(network)
        text = (
            f"{one['backbone']}: {one['reason']}, "
            f"{percent_interval(best['accuracy'], best['low'], best['high'])} at {place_name(best)}"
        )
        if one["difference"]:
            text += (
                f"; {100 * one['difference']:+.1f} points against the best, 95% "
                f"{100 * one['low']:+.1f} to {100 * one['high']:+.1f}"
            )
        sentences.append(f"{text}. To fine-tune first: {freeze_words(network, one['freeze'][0])}.")
    return sentences


def earlier_words(record: Record) -> list[str]:
    """What a head gains that reads earlier depths too, one sentence a network that does."""
    sentences: list[str] = []
    for network in record["networks"]:
        earlier = network.get("earlier")
        if earlier is None:
            continue
        gain = earlier["gain"]
        sentences.append(
            f"{network['backbone'].partition('+')[0]}: a head that also reads "
            f"{listed(earlier['paths'])} changes the accuracy on training images by "
            f"{100 * gain['difference']:+.1f} points (95% {100 * gain['low']:+.1f} to "
            f"{100 * gain['high']:+.1f}), and is right on "
            f"{percent_interval(earlier['accuracy'], earlier['low'], earlier['high'])} of all "
            "images. A study uses it."
        )
    return sentences
