"""The page of `secateurs trust`."""

from __future__ import annotations

from pathlib import Path

from secateurs.report.common.baselines import FEW_IMAGES
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import integer, interval, percent, plain, plural, seconds
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.insight.mistakes import mistakes_part
from secateurs.report.insight.trust import names_of, trust_panels, trust_words, worst_change

NAME = "trust.html"


def write_trust_page(
    record: Record, directory: Path, *, model: Path | None = None, data: str | None = None
) -> Path:
    """Write the page of what `trust_saved` measured to `directory`/trust.html."""
    text = render_trust(record, directory, model=model, data=data)
    return write_page(directory / NAME, text)


def render_trust(
    record: Record,
    directory: Path | None = None,
    *,
    model: Path | None = None,
    data: str | None = None,
) -> str:
    """The page as text."""
    record = isolate_names(record)
    blocks = trust_panels(record, source="In trust.json.")
    return render_page(
        "trust.html.j2",
        blocks,
        {
            "name": record["data"]["name"],
            "side_words": f"{plural(record['num_images'], record['side'] + ' image')}",
            "headline": headline(record),
            "standfirst": standfirst(record),
            "tiles": tiles(record),
            "cautions": cautions(record),
            "blocks": blocks,
            "findings": trust_words(record),
            "mistakes": mistakes_part(record.get("mistakes"), names_of(record), directory),
            "record_groups": [
                ("Configuration", [(k, plain(v)) for k, v in record["config"].items()]),
                ("Time", [("total", seconds(record["seconds"]))]),
            ],
            **page_values(_next_steps(model, data), record, directory),
        },
    )


def headline(record: Record) -> str:
    """The result in one sentence."""
    worst = worst_change(record)
    if worst is None:
        row = min(record["corruptions"], key=lambda row: row["before"]["accuracy"])
        return (
            f"{percent(record['clean']['before']['accuracy'], digits=0)} on clean images, "
            f"{percent(row['before']['accuracy'], digits=0)} under {row['name']}"
        )
    name, found, significant = worst
    if not significant:
        return "Pruning changes no part of the accuracy significantly"
    return f"Pruning costs {100 * abs(found['mean']):.0f} points on {name}"


def standfirst(record: Record) -> str:
    """What was measured on which images."""
    groups = "" if record["num_groups"] is None else f" in {plural(record['num_groups'], 'group')}"
    return (
        f"{plural(record['num_images'], record['side'] + ' image')}{groups}: calibration, accuracy "
        "when only confident answers count, accuracy under common corruptions, of rare classes "
        "and by group. Temperature and threshold come from the validation images."
    )


def tiles(record: Record) -> list[tuple[str, str, str]]:
    """The numbers of the first screen as (title, value, note)."""
    last = list(names_of(record))[-1]
    own, clean = record["networks"][last], record["clean"][last]
    name = names_of(record)[last]
    found = [
        (
            "Accuracy",
            percent(clean["accuracy"]),
            f"{name}; 95% interval {interval(clean['low'], clean['high'])}",
        ),
        (
            "Calibration error",
            percent(own["calibrated"]["error"]),
            f"with temperature {own['confidence']['temperature']:.2f}; "
            f"{percent(own['uncalibrated']['error'])} without",
        ),
    ]
    answered = own["answered"]
    if answered is not None and own["confidence"]["threshold"] > 0:
        found.append(
            (
                "Answered when confident",
                percent(answered["coverage"], digits=0),
                f"{percent(answered['accuracy'])} of them correct, from "
                f"{percent(own['confidence']['threshold'], digits=0)} confidence",
            )
        )
    return found


def cautions(record: Record) -> list[str]:
    """What limits the conclusions."""
    found: list[str] = []
    if record["num_images"] < FEW_IMAGES:
        found.append(f"Only {integer(record['num_images'])} images: intervals are wide.")
    if record["side"] == "val":
        found.append(
            "Temperature, threshold and the model were chosen on these images: calibration and "
            "accuracy are too optimistic."
        )
    return found


def _next_steps(model: Path | None, data: str | None) -> list[Step]:
    place = "MODEL" if model is None else shown_path(model)
    return [
        step(
            "Keep temperature and threshold with the model:",
            *("trust", place, shown_data(data), "--save-threshold"),
        ),
        step("Classify images; the model may then not know:", "predict", place, "IMAGE"),
    ]
