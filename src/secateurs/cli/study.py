"""The command `study`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from secateurs.cli.options.data import Data, SplitOptions, Strict
from secateurs.cli.options.executors import ExecutionOptions
from secateurs.cli.options.frontier import (
    Backbones,
    Batch,
    EarlierDepths,
    Int8Files,
    MaxMb,
    MaxMs,
    Refit,
)
from secateurs.cli.options.network import (
    Depths,
    NetworkOptions,
    OneBackbone,
)
from secateurs.cli.options.output import (
    LogTo,
    Overwrite,
    SessionOptions,
    StudyOut,
)
from secateurs.cli.options.pruning import (
    Calibration,
    HighDeg,
    Keep,
    KeepFraction,
    Layers,
    LossAllowed,
    LowDeg,
    NormStd,
    OwnCompensation,
    Reconstruction,
    Rule,
)
from secateurs.cli.options.training import (
    PrefixOptions,
    Preset,
    Runs,
    ScratchRuns,
    TrainingOptions,
    ViewOptions,
)
from secateurs.cli.parsing.session import config_of, open_session
from secateurs.errors import InputError

if TYPE_CHECKING:
    from secateurs.study.frontier.options import FrontierOptions


def study(
    context: typer.Context,
    *,
    data: Data,
    out: StudyOut = Path("studies/DATA"),
    preset: Preset = "quick",
    backbones: Backbones = "auto",
    backbone: OneBackbone = None,
    max_mb: MaxMb = None,
    max_ms: MaxMs = None,
    batch: Batch = 1,
    int8: Int8Files = True,
    max_loss: LossAllowed = None,
    earlier_depths: EarlierDepths = True,
    refit: Refit = "all",
    depths: Depths = None,
    runs: Runs = None,
    scratch_runs: ScratchRuns = None,
    split: SplitOptions,
    network: NetworkOptions,
    training: TrainingOptions,
    augmentation: ViewOptions,
    layers: Layers = None,
    low_deg: LowDeg = None,
    high_deg: HighDeg = None,
    norm_std: NormStd = None,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: OwnCompensation = None,
    calibration: Calibration = 256,
    reconstruction: Reconstruction = "blocks",
    strict: Strict = False,
    prefixes: PrefixOptions,
    execution: ExecutionOptions,
    log: LogTo = None,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Find the network to use: probe, fine-tune, prune to several sizes, recommend one, test it.

    With --layers, or another option of layer pruning: fine-tune one network at several depths and
    prune the named layers. The same command again resumes after an interruption.
    """
    from secateurs.study.frontier.run import run_frontier
    from secateurs.study.setup.config import rule_of
    from secateurs.study.study import run_study
    from secateurs.study.tracking.log import open_log

    of_layers = {
        "layers": layers,
        "low_deg": low_deg,
        "high_deg": high_deg,
        "norm_std": norm_std,
        "rule": rule,
        "keep": keep,
        "keep_fraction": keep_fraction,
        "compensation": compensation,
    }
    one_network = any(value is not None for value in of_layers.values())
    shared: dict[str, Any] = {
        "depths": depths,
        "runs": runs,
        "scratch_runs": scratch_runs,
        **vars(split),
        **vars(network),
        **vars(training),
        **vars(augmentation),
    }
    session = open_session(session_options, context)
    crew = execution.open(cache=session.cache, progress=session.progress)
    running: dict[str, Any] = {
        "cache": session.cache,
        "strict": strict,
        "overwrite": overwrite,
        "prefix_cache": prefixes.open(out),
        "progress": session.progress,
        "log": open_log(log, out),
    }
    if not one_network:
        options = frontier_options(
            preset,
            backbones,
            backbone,
            max_mb=max_mb,
            max_ms=max_ms,
            batch=batch,
            loss=max_loss,
            refit=refit,
            scratch_runs=scratch_runs,
            int8=int8,
            earlier_depths=earlier_depths,
            calibration=calibration,
            reconstruction=reconstruction,
        )
        settings = config_of(preset, **shared)
        with session.running(out) as stop, crew as opened:
            running["executor"] = opened
            results = run_frontier(data, settings, options, out, stop=stop, **running)
        results = session.keep(out, "results.json", results)
        session.answer(results, networks_words(results, out))
        return
    refuse_together(
        backbones=backbones != "auto",
        max_mb=max_mb,
        max_ms=max_ms,
        batch=batch != 1,
        refit=refit != "all",
        no_int8=not int8,
        no_earlier_depths=not earlier_depths,
        calibration=calibration != 256,
        reconstruction=reconstruction != "blocks",
    )
    loss = 2.0 if max_loss is None else max_loss
    settings = config_of(
        preset,
        backbone=backbone or "alexnet",
        max_loss=loss,
        **shared,
        **of_layers
        | {
            "compensation": compensation or "merge",
            "rule": rule_of(
                rule,
                search=loss >= 0 or keep is not None or keep_fraction is not None,
                low_deg=low_deg,
                high_deg=high_deg,
                norm_std=norm_std,
            ),
        },
    )
    with session.running(out) as stop, crew as opened:
        running["executor"] = opened
        results = run_study(data, settings, out, stop=stop, **running)
    results = session.keep(out, "results.json", results)
    session.answer(results, layers_words(results, out))


def frontier_options(
    preset: str,
    backbones: str,
    backbone: str | None,
    *,
    max_mb: float | None,
    max_ms: float | None,
    batch: int,
    loss: float | None,
    refit: str,
    scratch_runs: int | None,
    int8: bool = True,
    earlier_depths: bool = True,
    calibration: int = 256,
    reconstruction: str = "blocks",
) -> FrontierOptions:
    """What a study over several networks is asked for, from the command line's options."""
    from secateurs.study.frontier.options import FRONTIER_PRESETS, parse_backbones

    if preset not in FRONTIER_PRESETS:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(FRONTIER_PRESETS)}")
    if backbone is not None and backbones != "auto":
        raise InputError("--backbone and --backbones: give one of them")
    if reconstruction not in ("blocks", "off"):
        raise InputError(f"--reconstruction: expected blocks or off, got {reconstruction!r:.40}")
    base = FRONTIER_PRESETS[preset]
    return replace(
        base,
        backbones=parse_backbones(backbone or backbones),
        max_mb=max_mb,
        max_ms=max_ms,
        batch=batch,
        max_loss=base.max_loss if loss is None else loss,
        refit=refit,
        scratch_runs=base.scratch_runs if scratch_runs is None else scratch_runs,
        int8=int8,
        earlier_depths=earlier_depths,
        calibration=calibration or None,
        reconstruction=None if reconstruction == "off" else "blocks",
    )


def refuse_together(**given: object) -> None:
    """Raise InputError for options that a study of named layers does not have."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise InputError(
            f"{', '.join(names)}: not with --layers and the other options of layer pruning"
        )


def networks_words(results: dict[str, Any], out: Path) -> str:
    """Write the page and the model card of a study over several networks, and say the answer."""
    from secateurs.report.frontier.card import write_frontier_card
    from secateurs.report.frontier.page import write_frontier_report
    from secateurs.report.frontier.schema import check_frontier
    from secateurs.study.frontier.record import headline

    page = write_frontier_report(results, out)
    write_frontier_card(check_frontier(results), out)
    return f"{headline(results)}\nreport: {page}"


def layers_words(results: dict[str, Any], out: Path) -> str:
    """Write the page and the model card of a study of named layers, and say the answer."""
    from secateurs.report.study.card import write_card
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import check_results
    from secateurs.study.study import headline

    page = write_report(results, out)
    if results["pruned"]:
        write_card(check_results(results), out)
    return f"{headline(results)}\nreport: {page}"
