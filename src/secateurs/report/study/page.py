"""The report: one self-contained HTML page made of a study's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.report.common import formatting
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.machines import machine_words
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study import cautions, merged_units, panels, summary
from secateurs.report.study.evaluations import shown_evaluations
from secateurs.report.study.samples import read_samples, samples_absence, samples_sentence
from secateurs.report.study.schema import check_results, load_results

__all__ = ["load_results", "render", "write_report"]

# Longer lists of file names are cut; results.json has all of them.
MAX_LISTED = 40


def write_report(results: dict[str, Any], study_dir: Path, out: Path | None = None) -> Path:
    """Write the page of `results` to `out` (default `study_dir`/report.html) and return its path.

    Thumbnails are read from below `study_dir`; where one is missing the page says so. The file
    is written whole or not at all and loads nothing from anywhere. Raises `InputError` when the
    results lack something or the page cannot be written.
    """
    path = out if out is not None else study_dir / "report.html"
    if path.is_dir():
        raise InputError(f"{path}: is a directory; give the name of the page to write")
    text = render(check_results(results), study_dir)
    return write_page(path, text)


def render(results: Record, study_dir: Path) -> str:
    """The page as text; `results` must have passed `check_results`."""
    results = isolate_names(results)
    found = shown_evaluations(results)
    blocks = _blocks(results)
    samples = read_samples(results, study_dir)
    pictures = merged_units.read_pictures(results, study_dir)
    return render_page(
        "study.html.j2",
        blocks.values(),
        {
            "name": results["data"]["name"],
            "headline": summary.headline(results),
            "standfirst": summary.standfirst(results),
            "tiles": summary.tiles(results),
            "found": found,
            "num_layers": summary.num_layers(results),
            "accuracy": summary.accuracy_lines(found) if found else [],
            "accuracy_note": summary.accuracy_note(found) if found else "",
            "baseline_note": summary.baseline_note(found) if found else "",
            "spans": summary.accuracy_spans(found) if found else [],
            "chosen": results["chosen"],
            "advice": summary.advice(results),
            "ends_with_choice": summary.ends_with_choice(results),
            "cautions": cautions.warnings(results),
            "reassurance": cautions.reassurance(results),
            "leakage": cautions.leakage_lines(results),
            "blocks": blocks,
            "units": panels.tables.units_table(results) if results["pruned"] else None,
            "pruned": results["pruned"],
            "not_pruned": results["not_pruned"],
            "merged_layers": merged_units.layers(results),
            "merged_absence": merged_units.absence(results, pictures),
            "pictures": pictures,
            "held": {picture.number for picture in pictures if picture.source},
            "cost": results["cost"],
            "data": results["data"],
            "split": results["split"],
            "weights": results["weights"],
            "findings": audit_findings(results),
            "notes": _notes(results),
            "samples": samples,
            "num_wrong": sum("wrong" in sample.state for sample in samples),
            "num_changed": sum("changed" in sample.state for sample in samples),
            "samples_sentence": samples_sentence(
                samples, accuracy=(found.after or found.before)["accuracy"] if found else None
            ),
            "samples_absence": samples_absence(samples),
            "record_groups": _record(results),
            "formatting": formatting,
            **page_values(next_steps(results, study_dir), results, study_dir),
        },
    )


def _blocks(results: Record) -> dict[str, panels.Panel]:
    """The panels that these results have, by key."""
    made = [
        panels.sweep_panel(results),
        panels.splits_panel(results),
        panels.curves_panel(results),
        *panels.class_panels(results),
        *panels.angle_panels(results),
        panels.cost_panel(results),
        panels.latency_panel(results),
        panels.data_panel(results),
    ]
    return {panel.key: panel for panel in made if panel is not None}


def audit_findings(results: Record) -> list[tuple[str, list[str], int]]:
    """Each kind of audit finding as (title, files as text, how many more there are)."""
    data = results["data"]
    kinds = (
        ("Files that cannot be used", [_bad(entry) for entry in data["bad"]]),
        ("Exact duplicates", [", ".join(group) for group in data["exact"]]),
        ("Near duplicates", [", ".join(group) for group in data["near"]]),
        ("Duplicates with different labels", [", ".join(group) for group in data["conflicts"]]),
    )
    return [
        (title, lines[:MAX_LISTED], max(0, len(lines) - MAX_LISTED))
        for title, lines in kinds
        if lines
    ]


def _bad(entry: Record) -> str:
    detail = f" ({entry['detail']})" if entry["detail"] else ""
    return f"{entry['name']}: {entry['reason']}{detail}"


def _notes(results: Record) -> list[str]:
    """The evaluations' own remarks, each once."""
    found = shown_evaluations(results)
    shown = [found.before, found.after] if found else []
    return list(dict.fromkeys(note for one in shown if one for note in one["notes"] or []))


def _record(results: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Configuration, versions, times and files of the study."""
    timing = results["timing"] or {}
    groups = (
        (
            "Configuration",
            {key: formatting.plain(value) for key, value in results["config"].items()},
        ),
        ("Versions", {key: formatting.plain(value) for key, value in results["versions"].items()}),
        ("Time", {key: _time(value) for key, value in timing.items()}),
        ("Where trials ran", machine_words(results.get("machines"))),
        (
            "Files",
            {key: formatting.plain(value) for key, value in (results["files"] or {}).items()},
        ),
    )
    return [(title, list(pairs.items())) for title, pairs in groups if pairs]


def next_steps(results: Record, study_dir: Path) -> list[Step]:
    """What to do with the results: use the model, check it, make it smaller, or train more."""
    study, data = shown_path(study_dir), shown_data(data_of(study_dir))
    beside = study_dir.resolve()  # `.` has no name
    if summary.ends_with_choice(results):
        depth = str(results["recommendation"]["depth"])
        out = shown_path(beside.with_name(f"{beside.name}-study"))
        return [
            step(
                f"Prune, export and measure a network with {depth} frozen layers:",
                *("study", data, "--depths", depth, "--out", out),
            ),
            step("Print every trial as a table:", "results", study),
        ]
    if not results["chosen"]:
        return [step("Finish the study:", "study", data, "--out", study)]
    steps = [
        step("Classify images with the model:", "predict", study, "IMAGE"),
        step(
            "Measure it on labelled images that it has not seen:",
            *("evaluate", study, "NEW_DATA", "--side", "all"),
        ),
    ]
    if results["pruned"]:
        steps.append(step("Try other angles and sizes in the browser:", "explore", study))
    smaller = shown_path(beside.with_name(f"{beside.name}-half"))
    steps.append(
        step(
            "Prune every layer of the unpruned network to half of its multiply-accumulates:",
            *("prune", shown_path(study_dir / "unpruned"), data, "--macs", "0.5", "--out", smaller),
        )
    )
    if results["config"].get("preset") == "quick":
        full = shown_path(beside.with_name(f"{beside.name}-full"))
        steps.append(
            step(
                "Repeat the study with more depths, runs and epochs (hours):",
                *("study", data, "--preset", "full", "--out", full),
            )
        )
    return steps


def data_of(study_dir: Path) -> str | None:
    """The images of a study as `study.json` names them; None where it does not."""
    try:
        found = read_json(study_dir / "study.json")
    except (InputError, OSError):
        return None
    data = cast("Record", found).get("data") if isinstance(found, dict) else None
    return data if isinstance(data, str) else None


def _time(value: Any) -> str:
    return formatting.seconds(value) if isinstance(value, int | float) else formatting.plain(value)
