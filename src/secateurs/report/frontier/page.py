"""The page of a study over several networks: the answer, the frontier, and what led to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common import formatting
from secateurs.report.common.canvas import Plot
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import integer, percent, percent_interval, plain, seconds
from secateurs.report.common.machines import machine_words
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.panel import Panel, Table, where
from secateurs.report.common.render import render_page, write_page
from secateurs.report.frontier import figures, summary
from secateurs.report.frontier.int8 import int8_panel
from secateurs.report.frontier.schema import check_frontier
from secateurs.report.insight.mistakes import mistakes_part
from secateurs.report.insight.trust import names_of, trust_panels, trust_words
from secateurs.report.probe.labels import label_part
from secateurs.report.probe.panels import probe_panel
from secateurs.report.study.cautions import leakage_lines
from secateurs.report.study.evaluations import Evaluations
from secateurs.report.study.page import audit_findings, data_of
from secateurs.report.study.panels import data_panel, evaluation_panels
from secateurs.study.frontier.refit_words import measured_before

Record = dict[str, Any]
COLUMNS = (
    *(
        "network",
        "validation accuracy (95% interval)",
        "adjusted",
        "to the best, points",
        "MB",
        "ms",
    ),
    *("parameters, M", "multiply-accumulates, M"),
)


def write_frontier_report(results: Record, study_dir: Path, out: Path | None = None) -> Path:
    """Write the page of `results` to `out` (default `study_dir`/report.html); return its path.

    The file is written whole or not at all and loads nothing from anywhere. Raises InputError when
    the results lack something or the page cannot be written.
    """
    text = render_frontier(check_frontier(results), study_dir)
    return write_page(out if out is not None else study_dir / "report.html", text)


def render_frontier(results: Record, study_dir: Path) -> str:
    """The page as text; `results` must have passed `check_frontier`."""
    results = isolate_names(results)
    trust = _trust(results)
    sure = [] if trust is None else trust_panels(trust, source=where("trust"))
    blocks = {panel.key: panel for panel in [*_panels(results), *sure]}
    return render_page(
        "frontier.html.j2",
        blocks.values(),
        {
            "name": results["data"]["name"],
            "headline": summary.headline(results),
            "standfirst": summary.standfirst(results),
            "tiles": summary.tiles(results),
            "cautions": summary.cautions(results),
            "advice": summary.advice(results),
            "arms": results["arms"],
            "out_of_reach": summary.out_of_reach(results),
            "labels": label_part(results["probe"].get("labels"), study_dir),
            "blocks": blocks,
            "trust": sure,
            "pruned": results["recommended"]["unpruned"] != results["recommended"]["name"],
            "trust_findings": []
            if trust is None
            else [*trust_words(trust), *measured_before(results)],
            "mistakes": None
            if trust is None
            else mistakes_part(trust["mistakes"], names_of(trust), study_dir),
            "data": results["data"],
            "split": results["split"],
            "leakage": leakage_lines(results),
            "findings": audit_findings(results),
            "formatting": formatting,
            "record_groups": _record(results),
            **page_values(next_steps(results, study_dir), results, study_dir),
        },
    )


def _trust(results: Record) -> Record | None:
    """What was measured for trust; nothing in a study of an earlier version."""
    found = results.get("trust")
    if found is None:
        return None
    networks = {when: one for when, one in found["networks"].items() if one is not None}
    return found | {"networks": networks}


def _panels(results: Record) -> list[Panel]:
    test = results["recommended"]["test"]
    return [
        _frontier_panel(results),
        probe_panel(results["probe"], source=where("probe")),
        _depths_panel(results),
        *_pruning_panel(results),
        *int8_panel(results),
        *evaluation_panels(
            Evaluations("test", test, None), results["data"]["classes"], where("recommended")
        ),
        data_panel(results),
    ]


def _frontier_panel(results: Record) -> Panel:
    caption = summary.frontier_caption(results)
    rows = summary.point_rows(results)
    batch = results["latency"]["batch"]
    plots = tuple(
        Plot(
            figures.frontier(results, cost),
            title,
            f"Scatter plot of validation accuracy against {title.lower()}. {caption}",
        )
        for cost, title in (("mb", "Size"), ("ms", f"Time at batch {integer(batch)}"))
    )
    table = Table("Every network", COLUMNS, rows)
    source = where("points", "latency", "answer")
    return Panel(
        "frontier", "Accuracy, size and time", caption, plots, (table,), wide=False, source=source
    )


def _depths_panel(results: Record) -> Panel:
    """What fine-tuning gave at each depth, as a table."""
    rows: list[tuple[str, ...]] = []
    for arm in results["arms"]:
        names = _depth_names(results, arm["backbone"])
        for row in arm["sweep"]:
            name = names.get(row["depth"], f"{row['depth']} layers frozen")
            if not row["pretrained"]:
                name = "all trained from random weights"
            rows.append(
                (
                    f"{arm['backbone'].partition('+')[0]}, {name}",
                    percent_interval(
                        row["val_accuracy_mean"],
                        row.get("val_accuracy_low"),
                        row.get("val_accuracy_high"),
                    ),
                    integer(row["num_runs"]),
                    "kept" if row["pretrained"] and row["depth"] == arm["depth"] else "",
                )
            )
    columns = ("network, frozen", "validation accuracy", "runs", "")
    caption = (
        "Frozen parts keep their published weights; the others are trained, starting from the "
        "probe's classifier as the last layer. Of each network one depth is kept, by validation."
    )
    table = Table("Fine-tuning by depth", columns, tuple(rows))
    return Panel(
        "depths",
        "Fine-tuning by depth",
        caption,
        tables=(table,),
        open_tables=True,
        source=where("arms"),
    )


def _depth_names(results: Record, backbone: str) -> dict[int, str]:
    found = next(one for one in results["probe"]["networks"] if one["backbone"] == backbone)
    return {row["depth"]: row["name"] for row in found["depths"]}


def _pruning_panel(results: Record) -> list[Panel]:
    rows: list[tuple[str, ...]] = []
    for row in results["points"]:
        found = row.get("pruning")
        if not found:
            continue
        kept = sum(group["num_kept"] for group in found["groups"])
        units = sum(group["num_units"] for group in found["groups"])
        tuned = found.get("reconstruction") or {}  # an older version had none
        last = tuned["change"] if tuned.get("used") else found["outcome"]
        change = last["relative"]
        recovery = found["recovery"]
        rows.append(
            (
                row["name"],
                f"{integer(kept)} of {integer(units)}",
                percent(change),
                "none" if not recovery else f"{len(recovery['curve'])} epochs",
                percent(row["val"]["accuracy"]),
            )
        )
    if not rows:
        return []
    columns = (
        *("network", "units kept", "change of the outputs before recovery"),
        *("recovery", "validation accuracy"),
    )
    caption = (
        "Units are removed where they cost the least for what they save, and the weights of the "
        "layers behind them are fitted again. The change of the outputs is relative to their "
        "variance, on validation images. Recovery is a short training after it."
    )
    table = Table("Sizes", columns, tuple(rows))
    return [
        Panel(
            "sizes",
            "Pruning to several sizes",
            caption,
            tables=(table,),
            open_tables=True,
            source=where("points"),
        )
    ]


def next_steps(results: Record, study_dir: Path) -> list[Step]:
    """What to do with the results."""
    study, data = shown_path(study_dir), shown_data(data_of(study_dir))
    beside = study_dir.resolve()
    steps = [
        step("Classify images with the model:", "predict", study, "IMAGE"),
        step(
            "Measure it on labelled images that it has not seen:",
            *("evaluate", study, "NEW_DATA", "--side", "all"),
        ),
        step("Look at its other sizes, with a slider:", "explore", study),
        step(
            "Prune the unpruned network to another size:",
            *("prune", shown_path(study_dir / "unpruned"), data, "--macs", "0.4"),
            *(
                "--recovery-epochs",
                "10",
                "--out",
                shown_path(beside.with_name(f"{beside.name}-40")),
            ),
        ),
    ]
    if results["config"].get("preset") == "quick":
        full = shown_path(beside.with_name(f"{beside.name}-full"))
        more = "depths, runs and sizes"
        if len(results["options"]["backbones"]) != 1:
            more = f"networks, {more}"
        steps.append(
            step(
                f"Repeat the study with more {more} (hours):",
                *("study", data, "--preset", "full", *_asked(results), "--out", full),
            )
        )
    return steps


def _asked(results: Record) -> list[str]:
    """The options that decide what a study compares and asks for, as they were given."""
    options, config = results["options"], results["config"]
    given = {
        "--backbones": ",".join(options["backbones"]) or None,
        "--max-mb": options["max_mb"] and f"{options['max_mb']:g}",
        "--max-ms": options["max_ms"] and f"{options['max_ms']:g}",
        "--group-by": config.get("group_by"),
        "--weights": None if config.get("weights") == "auto" else config.get("weights"),
        "--refit": "train" if options.get("refit") == "train" else None,
    }
    switches = [
        f"--no-{name.replace('_', '-')}"
        for name in ("earlier_depths", "int8")
        if options.get(name) is False
    ]
    words = [word for name, value in given.items() if value for word in (name, f"{value}")]
    return [*words, *switches]


def _record(results: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Configuration, versions, times and files."""
    machines = machine_words(results.get("machines"))
    groups: list[tuple[str, Record]] = [
        (
            "Asked for",
            results["options"] | {"backbones": results["options"]["backbones"] or "auto"},
        ),
        ("Configuration", results["config"]),
        ("Versions", results["versions"]),
        ("Time", {key: seconds(value) for key, value in results["timing"].items()}),
        *([("Where trials ran", machines)] if machines else []),
        ("Files", results["recommended"]["files"]),
    ]
    return [(title, [(k, plain(v)) for k, v in pairs.items()]) for title, pairs in groups]
