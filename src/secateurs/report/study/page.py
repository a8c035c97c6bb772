"""The report: one self-contained HTML page made of a study's results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.report.common import formatting
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study import cautions, merged_units, panels, summary
from secateurs.report.study.evaluations import shown_evaluations
from secateurs.report.study.samples import read_samples, samples_absence, samples_sentence
from secateurs.report.study.schema import check_results, load_results

__all__ = ["load_results", "render", "write_report"]

# A list of thousands of file names helps nobody: results.json holds all of them.
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
    found = shown_evaluations(results)
    blocks = _blocks(results)
    samples = read_samples(results, study_dir)
    pictures = merged_units.read_pictures(results, study_dir)
    return render_page(
        "report.html.j2",
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
            "warnings": cautions.warnings(results),
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
            "findings": _findings(results),
            "notes": _notes(results),
            "samples": samples,
            "num_wrong": sum("wrong" in sample.state for sample in samples),
            "num_changed": sum("changed" in sample.state for sample in samples),
            "samples_sentence": samples_sentence(samples),
            "samples_absence": samples_absence(samples),
            "record": _record(results),
            "formatting": formatting,
        },
    )


def _blocks(results: Record) -> dict[str, panels.Panel]:
    """Every figure that these results have, by key."""
    made = [
        panels.sweep_panel(results),
        panels.splits_panel(results),
        panels.curves_panel(results),
        panels.confusion_panel(results),
        panels.scores_panel(results),
        *panels.angle_panels(results),
        panels.cost_panel(results),
        panels.latency_panel(results),
        panels.data_panel(results),
    ]
    return {panel.key: panel for panel in made if panel is not None}


def _findings(results: Record) -> list[tuple[str, list[str], int]]:
    """Each kind of audit finding as (title, files as text, how many more there are)."""
    data = results["data"]
    kinds = (
        ("Unusable files", [_bad(entry) for entry in data["bad"]]),
        ("The same picture more than once", [", ".join(group) for group in data["exact"]]),
        ("Nearly the same picture", [", ".join(group) for group in data["near"]]),
        ("One picture, two labels", [", ".join(group) for group in data["conflicts"]]),
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
    """What made these numbers: configuration, versions, time, files."""
    timing = results["timing"] or {}
    groups = (
        ("Configuration", {key: _plain(value) for key, value in results["config"].items()}),
        ("Versions", {key: _plain(value) for key, value in results["versions"].items()}),
        ("Time", {key: _time(value) for key, value in timing.items()}),
        ("Files", {key: _plain(value) for key, value in (results["files"] or {}).items()}),
    )
    return [(title, list(pairs.items())) for title, pairs in groups if pairs]


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(value: Any) -> str:
    return formatting.seconds(value) if isinstance(value, int | float) else _plain(value)
