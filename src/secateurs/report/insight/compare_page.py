"""The page of `secateurs compare`: two networks, paired on the same images."""

from __future__ import annotations

from pathlib import Path

from secateurs.report.common.answers import answer_of
from secateurs.report.common.baselines import FEW_IMAGES
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    count,
    integer,
    interval,
    milliseconds,
    percent,
    percent_interval,
    plain,
    plural,
    seconds,
    size,
)
from secateurs.report.common.next_steps import page_values
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.common.thumbnails import thumbnail
from secateurs.report.insight.mistakes import Picture

NAME = "comparison.html"
WHEN = ("first", "second")


def write_compare_page(record: Record, directory: Path) -> Path:
    """Write the page of what `compare_saved` measured to `directory`/comparison.html."""
    return write_page(directory / NAME, render_compare(record, directory))


def render_compare(record: Record, directory: Path | None = None) -> str:
    """The page as text."""
    record = isolate_names(record)
    names = model_names(record)
    blocks = [_costs(record, names), _agreement(record, names), _classes(record, names)]
    num_differ = record["agreement"]["only_first"] + record["agreement"]["only_second"]
    return render_page(
        "compare.html.j2",
        blocks,
        {
            "names": names,
            "side_words": f"{plural(record['num_images'], record['side'] + ' image')} of "
            f"{record['data']['name']}",
            "headline": headline(record),
            "standfirst": standfirst(record),
            "tiles": tiles(record),
            "cautions": cautions(record),
            "blocks": blocks,
            "images": _images(record, names, directory),
            "images_lead": (
                f"{plural(num_differ, 'image')}, the most confident mistakes first"
                + (f"; the first {len(record['images'])} of them." if num_differ else ".")
            ),
            "record_groups": [
                ("Configuration", [(k, plain(v)) for k, v in record["config"].items()]),
                ("Time", [("total", seconds(record["seconds"]))]),
            ],
            **page_values([], record, directory),
        },
    )


def model_names(record: Record) -> dict[str, str]:
    """What the two are called: their folders, and numbered where these are the same."""
    first, second = (Path(record["config"][when]) for when in WHEN)
    if first.name != second.name:
        return {"first": first.name, "second": second.name}
    above = {"first": str(first), "second": str(second)}
    return above if first != second else {"first": f"{first} (1)", "second": f"{second} (2)"}


def is_significant(record: Record) -> bool:
    """Whether the interval of the difference excludes zero."""
    return record["difference"]["low"] > 0 or record["difference"]["high"] < 0


def headline(record: Record) -> str:
    """The result in one sentence."""
    names, found = model_names(record), record["difference"]
    if not is_significant(record):
        return f"{names['first']} and {names['second']} are not significantly different"
    better = "second" if found["difference"] > 0 else "first"
    low, high = sorted(100 * abs(found[bound]) for bound in ("low", "high"))
    return (
        f"{names[better]} is {100 * abs(found['difference']):.1f} points better "
        f"({low:.1f} to {high:.1f})"
    )


def standfirst(record: Record) -> str:
    """What was compared on which images."""
    groups = "" if record["num_groups"] is None else f" in {plural(record['num_groups'], 'group')}"
    text = (
        f"{plural(record['num_images'], record['side'] + ' image')}{groups}, the same for both. "
        "The difference is paired image by image."
    )
    if record["num_left_out"]:
        text += (
            f" {plural(record['num_left_out'], 'image')} left out: on this side for one of the "
            "models only."
        )
    return text


def tiles(record: Record) -> list[tuple[str, str, str]]:
    """The numbers of the first screen as (title, value, note)."""
    names, found = model_names(record), record["difference"]
    tiles = [
        (
            names[when],
            percent(one["accuracy"]),
            f"95% interval {interval(one['low'], one['high'])}; {size(one['file_bytes'])}, "
            f"{milliseconds(record['latency'][when]['median'])}",
        )
        for when, one in record["models"].items()
    ]
    note = f"95% interval {100 * found['low']:+.1f} to {100 * found['high']:+.1f}"
    if not is_significant(record):
        note += ", not significant"
    return [*tiles, ("Difference, points", f"{100 * found['difference']:+.1f}", note)]


def cautions(record: Record) -> list[str]:
    """What limits the conclusions."""
    found: list[str] = []
    if record["num_images"] < FEW_IMAGES:
        found.append(f"Only {integer(record['num_images'])} images: the interval is wide.")
    if record["num_groups"] is None:
        found.append(
            "No groups are known: images of the same person or scene make the interval too narrow "
            "(see --group-by)."
        )
    return found


def compare_words(record: Record) -> str:
    """The answer on a terminal."""
    names, found = model_names(record), record["difference"]
    lines = [
        f"{names[when]}: {percent_interval(one['accuracy'], one['low'], one['high'])}, "
        f"{count(one['num_parameters'])} parameters, {size(one['file_bytes'])}, "
        f"{milliseconds(record['latency'][when]['median'])}"
        for when, one in record["models"].items()
    ]
    lines.append(
        f"difference {100 * found['difference']:+.1f} points ({100 * found['low']:+.1f} to "
        f"{100 * found['high']:+.1f}) on {plural(record['num_images'], 'image')}"
        f"{'' if is_significant(record) else ', not significant'}"
    )
    return "\n".join(lines)


def _costs(record: Record, names: dict[str, str]) -> Panel:
    rows: list[tuple[str, ...]] = []
    for when in WHEN:
        one, time = record["models"][when], record["latency"][when]
        rows.append(
            (
                names[when],
                one["backbone"],
                percent_interval(one["accuracy"], one["low"], one["high"]),
                count(one["num_parameters"]),
                count(one["macs"]),
                size(one["file_bytes"]),
                f"{milliseconds(time['median'])} "
                f"({milliseconds(time['p25']).removesuffix(' ms')}–"
                f"{milliseconds(time['p75']).removesuffix(' ms')})",
            )
        )
    columns = ("model", "backbone", "accuracy", "parameters", "multiply-accumulates", "file")
    table = Table("Accuracy and cost", (*columns, "time of one image"), tuple(rows))
    caption = "Times are medians with quartiles of alternating runs on this machine's processor."
    return Panel("costs", "Accuracy and cost", caption, (), (table,), open_tables=True)


def _agreement(record: Record, names: dict[str, str]) -> Panel:
    found = record["agreement"]
    rows = (
        ("both right", integer(found["both_right"])),
        (f"only {names['first']} right", integer(found["only_first"])),
        (f"only {names['second']} right", integer(found["only_second"])),
        ("both wrong", integer(found["both_wrong"])),
    )
    caption = (
        f"The two give the same answer to {integer(found['same_answer'])} of "
        f"{integer(record['num_images'])} images."
    )
    table = Table("Images by who is right", ("answers", "images"), rows)
    return Panel("agreement", "Agreement", caption, (), (table,), open_tables=True)


def _classes(record: Record, names: dict[str, str]) -> Panel:
    rows = tuple(
        (
            row["class"],
            integer(row["num_images"]),
            *(integer(row[when]) for when in WHEN),
            f"{row['second'] - row['first']:+d}",
        )
        for row in record["per_class"]
    )
    columns = ("class", "images", *(f"correct, {names[when]}" for when in WHEN), "change")
    table = Table("Correct images by class", columns, rows)
    return Panel(
        "classes", "Classes", "Correct images of each class.", (), (table,), open_tables=True
    )


def _images(record: Record, names: dict[str, str], directory: Path | None) -> list[Picture]:
    return [
        Picture(
            row["name"],
            row["label"],
            "" if directory is None else thumbnail(directory, row["thumbnail"]),
            tuple(answer_of(names[when], row[when], row["label"]) for when in WHEN),
        )
        for row in record["images"]
    ]
