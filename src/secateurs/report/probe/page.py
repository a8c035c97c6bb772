"""The page of a probe: the heat map, the suggestions, and data tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common.baselines import FEW_IMAGES
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    count,
    integer,
    interval,
    percent,
    plain,
    plural,
    seconds,
)
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.probe.labels import label_part
from secateurs.report.probe.panels import (
    best_row,
    earlier_words,
    place_name,
    probe_panel,
    suggestion_words,
)

NAME = "probe.html"


def write_probe_page(record: Record, directory: Path, *, data: str | None = None) -> Path:
    """Write the page of a probe (what `probe.json` holds) to `directory`/probe.html.

    `data` are the images, for the commands on the page. The file is written whole or not at all
    and loads nothing from anywhere.
    """
    return write_page(directory / NAME, render_probe(record, directory, data=data))


def render_probe(record: Record, directory: Path | None = None, *, data: str | None = None) -> str:
    """The page as text."""
    record = isolate_names(record)
    blocks = {"probe": probe_panel(record, source="In probe.json under networks.")}
    return render_page(
        "probe.html.j2",
        blocks.values(),
        {
            "probe": record,
            "networks_words": plural(len(record["networks"]), "network"),
            "headline": headline(record),
            "standfirst": standfirst(record),
            "tiles": tiles(record),
            "cautions": cautions(record),
            "blocks": blocks,
            "suggestions": [*suggestion_words(record), *earlier_words(record)],
            "labels": label_part(record.get("labels"), directory),
            "record_groups": _record(record),
            **page_values(next_steps(record, data), record, directory),
        },
    )


def headline(record: Record) -> str:
    """The result in one sentence."""
    best = best_network(record)
    row = best_row(best)
    return (
        f"{best['backbone']} classifies {percent(row['accuracy'], digits=0)} of the images "
        "without any training of the network"
    )


def best_network(record: Record) -> Record:
    """The network with the best depth of all."""
    return max(record["networks"], key=lambda network: best_row(network)["accuracy"])


def standfirst(record: Record) -> str:
    """What was probed on which images."""
    data = record["data"]
    groups = f" in {plural(data['num_groups'], 'group')}" if data["num_groups"] else ""
    return (
        f"{plural(len(record['networks']), 'network')} at up to "
        f"{max(len(network['depths']) for network in record['networks'])} depths on "
        f"{plural(data['num_train'], 'training image')} and "
        f"{plural(data['num_val'], 'validation image')}{groups}. The test images were not used."
    )


def tiles(record: Record) -> list[tuple[str, str, str]]:
    """The numbers of the first screen as (title, value, note)."""
    best = best_network(record)
    row = best_row(best)
    majority = record["majority"]
    found = [
        (
            "Best",
            percent(row["accuracy"]),
            f"with {best['backbone']}, {place_name(row)}; 95% interval "
            f"{interval(row['low'], row['high'])}",
        )
    ]
    suggested = record["suggestions"]
    small = next((one for one in suggested if "smallest" in one["reason"]), None)
    if small is not None:
        network = next(n for n in record["networks"] if n["backbone"] == small["backbone"])
        found.append(
            (
                "Smallest that is not significantly worse",
                small["backbone"],
                f"{percent(best_row(network)['accuracy'])} with "
                f"{count(network['num_parameters'])} parameters",
            )
        )
    note = f"always answering {majority['class']}"
    found.append(("Majority-class baseline", percent(majority["accuracy"]), note))
    return found


def cautions(record: Record) -> list[str]:
    """What limits the conclusions."""
    data = record["data"]
    found = [f"{one['backbone']} was left out: {one['reason']}." for one in record["skipped"]]
    if data["num_val"] < FEW_IMAGES:
        found.append(
            f"Only {plural(data['num_val'], 'validation image')}: intervals are wide, and small "
            "differences between networks are not significant."
        )
    if not data["num_groups"]:
        found.append(
            "No groups are known: images of the same person or scene on both sides make the "
            "accuracy too optimistic (see --group-by)."
        )
    if len(record["networks"]) > 1:
        found.append(
            "The best of several networks is chosen on these images, so that its accuracy is "
            "slightly too optimistic."
        )
    return found


def next_steps(record: Record, data: str | None) -> list[Step]:
    """Commands that fine-tune what is suggested."""
    images = shown_data(data)
    steps: list[Step] = []
    for one in record["suggestions"][:2]:
        depths = ",".join(str(depth) for depth in sorted(one["freeze"][:3]))
        out = shown_path(Path("studies") / f"{record['data']['name']}-{one['backbone']}")
        steps.append(
            step(
                f"Fine-tune {one['backbone']} at the suggested depths:",
                *("sweep", images, "--backbone", one["backbone"], "--depths", depths),
                *("--out", out),
            )
        )
    return steps


def probe_words(record: Record) -> str:
    """The answer on a terminal: a table, and what is suggested."""
    lines: list[str] = []
    for network in record["networks"]:
        lines.append(f"{network['backbone']} ({count(network['num_parameters'])} parameters)")
        for row in network["depths"]:
            bounds = interval(row["low"], row["high"])
            lines.append(
                f"  {percent(row['share'], digits=0):>5} frozen  {percent(row['accuracy']):>6} "
                f"({bounds})  {place_name(row)}"
            )
    majority = record["majority"]
    lines.append(f"majority class ({majority['class']}): {percent(majority['accuracy'])}")
    lines += [f"{one['backbone']} was left out: {one['reason']}" for one in record["skipped"]]
    lines += [*suggestion_words(record), *earlier_words(record)]
    labels = record.get("labels")
    if labels is not None:
        lines.append(
            f"labels to check: {labels['num_flagged']} of {plural(labels['num_images'], 'image')} "
            "(labels.csv)"
        )
    return "\n".join(lines)


def _record(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Configuration", {key: plain(value) for key, value in record.get("config", {}).items()}),
        (
            "Weights",
            {network["backbone"]: network["weights"]["sentence"] for network in record["networks"]},
        ),
        ("Versions", {key: plain(value) for key, value in record.get("versions", {}).items()}),
        (
            "Images",
            {
                "training": integer(record["data"]["num_train"]),
                "validation": integer(record["data"]["num_val"]),
            },
        ),
        ("Time", {"total": seconds(record["seconds"])}),
    ]
    return [(title, list(pairs.items())) for title, pairs in groups if pairs]
