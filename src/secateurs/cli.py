"""The command line: words to functions. Heavy imports wait until a command runs.

Long because typer reads a command's options off its signature: each stands there once a command.
"""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateurs.cli_grid import grid
from secateurs.cli_options import (
    AsJson,
    Augment,
    Backbone,
    BatchSize,
    Cache,
    CacheBudget,
    CacheIn,
    Compensation,
    Data,
    Depths,
    Device,
    Dropout,
    Epochs,
    GroupBy,
    High,
    Keep,
    KeepFraction,
    LabelSmoothing,
    Layers,
    LearningRate,
    Low,
    MaxLoss,
    MinScale,
    Model,
    Out,
    OwnSeed,
    OwnSplit,
    Patience,
    Precision,
    Preset,
    Quiet,
    Resize,
    Rotation,
    Rule,
    Runs,
    Schedule,
    ScratchRuns,
    Seed,
    SplitRule,
    Std,
    Strict,
    Views,
    WeightDecay,
    Weights,
)
from secateurs.cli_sweep import sweep
from secateurs.errors import InputError
from secateurs.progress import SILENT, Console, Progress
from secateurs.stopping import StopRequested, stop_on_interrupt

if TYPE_CHECKING:
    from secateurs.study.config import StudyConfig

app = typer.Typer(
    name="secateurs",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Find how many layers of a pretrained network to fine-tune on your images, remove the "
    "neurons that say the same as others, and ship a small, measured classifier.",
)


@dataclass(frozen=True)
class Session:
    """What a command needs beside its own words."""

    progress: Progress
    cache: Path
    as_json: bool

    def answer(self, value: dict[str, Any], text: str) -> None:
        """Print the answer on stdout, for machines or for people."""
        print(json.dumps(value, ensure_ascii=False, allow_nan=False) if self.as_json else text)


def _session(cache: Path | None, *, as_json: bool = False, quiet: bool = False) -> Session:
    from secateurs.files import cache_dir

    return Session(SILENT if quiet else Console(), cache or cache_dir(), as_json)


def _config(preset: str = "quick", **words: Any) -> StudyConfig:
    from secateurs.study.config import from_preset, parse_depths, parse_keep

    if words.get("depths") is not None:
        words["depths"] = parse_depths(words["depths"])
    if words.get("keep") is not None:
        words["keep"] = parse_keep(words["keep"])
    if words.get("layers") is not None:
        words["layers"] = tuple(part.strip() for part in words["layers"].split(","))
    return from_preset(preset, **words)


@app.command()
def study(
    data: Data,
    out: Out,
    preset: Preset = "quick",
    backbone: Backbone = "alexnet",
    weights: Weights = "auto",
    split: SplitRule = "random",
    group_by: GroupBy = None,
    depths: Depths = None,
    runs: Runs = None,
    scratch_runs: ScratchRuns = None,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    weight_decay: WeightDecay = 0.0,
    label_smoothing: LabelSmoothing = 0.0,
    dropout: Dropout = "on",
    patience: Patience = None,
    views: Views = None,
    augment: Augment = True,
    rotation: Rotation = None,
    min_scale: MinScale = None,
    schedule: Schedule = None,
    resize: Resize = "straight",
    precision: Precision = None,
    layers: Layers = "fc7",
    low: Low = None,
    high: High = None,
    std: Std = None,
    max_loss: MaxLoss = 2.0,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: Compensation = "merge",
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    cache_budget: CacheBudget = 2.0,
    cache_in: CacheIn = "memory",
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Sweep the depths, choose on validation, prune, export, measure, and write a report.

    Run again with the same words, it does only what is missing.
    """
    from secateurs.report.card import write_card
    from secateurs.report.page import write_report
    from secateurs.report.schema import check_results
    from secateurs.study.config import rule_of
    from secateurs.study.study import headline, run_study
    from secateurs.study.trials import prefix_cache

    config = _config(
        preset,
        backbone=backbone,
        weights=weights,
        split=split,
        group_by=group_by,
        depths=depths,
        runs=runs,
        scratch_runs=scratch_runs,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        dropout=dropout,
        patience=patience,
        views=views,
        augment=augment,
        rotation_deg=rotation,
        min_scale=min_scale,
        schedule=schedule,
        resize=resize,
        precision=precision,
        layers=layers,
        low_deg=low,
        high_deg=high,
        norm_std=std,
        max_loss=max_loss,
        rule=rule_of(
            rule,
            search=max_loss >= 0 or keep is not None or keep_fraction is not None,
            low=low,
            high=high,
            std=std,
        ),
        keep=keep,
        keep_fraction=keep_fraction,
        compensation=compensation,
        device=device,
        seed=seed,
    )
    session = _session(cache, as_json=as_json, quiet=quiet)
    with stop_on_interrupt() as stop:
        results = run_study(
            data,
            config,
            out,
            cache=session.cache,
            strict=strict,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
        )
    page = write_report(results, out)
    write_card(check_results(results), out)
    session.answer(results, f"{headline(results)}\nreport: {page}")


@app.command()
def audit(
    data: Data,
    split: Annotated[
        str | None, typer.Option("--split", help="Also split: random, ungrouped, paper or folders.")
    ] = None,
    group_by: GroupBy = None,
    seed: Seed = 0,
    strict: Strict = False,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check a folder of images: unusable files, duplicates, labels that disagree, leakage."""
    from secateurs.study.checks import audit_data, audit_words

    session = _session(cache, as_json=as_json, quiet=quiet)
    found = audit_data(
        data,
        split=split,
        group_by=group_by,
        seed=seed,
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(found, audit_words(found))
    if strict and found["findings"]:
        raise InputError(f"{data}: the audit has findings, and --strict makes them an error")


@app.command()
def faces(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write the embedded set of 675 rendered faces as an ordinary folder of images."""
    from secateurs.data.faces import write_faces

    print(write_faces(out, seed=seed, progress=_session(None, quiet=quiet).progress))


@app.command()
def train(
    data: Data,
    out: Out,
    depth: Annotated[int, typer.Option(help="Frozen weighted layers, counted from the input.")] = 5,
    backbone: Backbone = "alexnet",
    weights: Weights = "auto",
    split: SplitRule = "random",
    group_by: GroupBy = None,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    weight_decay: WeightDecay = 0.0,
    label_smoothing: LabelSmoothing = 0.0,
    dropout: Dropout = "on",
    patience: Patience = None,
    views: Views = None,
    augment: Augment = True,
    rotation: Rotation = None,
    min_scale: MinScale = None,
    schedule: Schedule = None,
    resize: Resize = "straight",
    precision: Precision = None,
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    cache_budget: CacheBudget = 2.0,
    cache_in: CacheIn = "memory",
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune one network with DEPTH frozen layers and save it in DIR."""
    from secateurs.study.single import evaluation_words, train_model
    from secateurs.study.trials import prefix_cache

    config = _config(
        depths=str(depth),
        runs=1,
        scratch_runs=0,
        backbone=backbone,
        weights=weights,
        split=split,
        group_by=group_by,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        dropout=dropout,
        patience=patience,
        views=views,
        augment=augment,
        rotation_deg=rotation,
        min_scale=min_scale,
        schedule=schedule,
        resize=resize,
        precision=precision,
        device=device,
        seed=seed,
    )
    session = _session(cache, as_json=as_json, quiet=quiet)
    with stop_on_interrupt() as stop:
        answer = train_model(
            data,
            config,
            out,
            cache=session.cache,
            strict=strict,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
        )
    session.answer(answer, f"{evaluation_words(answer['val'], 'validation')}\nmodel: {out}")


@app.command()
def evaluate(
    model: Model,
    data: Data,
    side: Annotated[str, typer.Option(help="train, val, test, or all images.")] = "test",
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy, precision, recall and specificity of a saved model on labelled images.

    Without --split or --group-by the model's own split is used.
    """
    from secateurs.study.single import evaluate_saved, evaluation_table

    session = _session(cache, as_json=as_json, quiet=quiet)
    answer = evaluate_saved(
        model,
        data,
        side=side,
        split=split,
        group_by=group_by,
        seed=seed,
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(answer, evaluation_table(answer, side))


@app.command()
def prune(
    model: Model,
    data: Data,
    out: Out,
    layers: Layers = "fc7",
    low: Low = None,
    high: High = None,
    std: Std = None,
    max_loss: MaxLoss = 2.0,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: Compensation = "merge",
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove units whose activations point the same way; measured on DATA's training images."""
    from secateurs.study.config import parse_keep, rule_of
    from secateurs.study.single import prune_saved, prune_words

    session = _session(cache, as_json=as_json, quiet=quiet)
    answer = prune_saved(
        model,
        data,
        out,
        changes={
            "layers": tuple(part.strip() for part in layers.split(",")),
            "low_deg": 15.0 if low is None else low,
            "high_deg": 165.0 if high is None else high,
            "norm_std": std,
            "max_loss": max_loss,
            "rule": rule_of(
                rule,
                search=max_loss >= 0 or keep is not None or keep_fraction is not None,
                low=low,
                high=high,
                std=std,
            ),
            "keep": None if keep is None else parse_keep(keep),
            "keep_fraction": keep_fraction,
            "compensation": compensation,
            "split": split,
            "group_by": group_by,
            "seed": seed,
        },
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(answer, f"{prune_words(answer)}\nmodel: {out}")


app.command()(sweep)
app.command()(grid)


@app.command()
def export(
    model: Model,
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Image or folder; the export is checked on it.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The file to write, .onnx or .pt2.")
    ],
    as_json: AsJson = False,
) -> None:
    """Export a saved model to ONNX or as a PyTorch program, checked on real images."""
    from secateurs.study.single import export_saved

    answer = export_saved(model, images, out)
    _session(None, as_json=as_json, quiet=True).answer(
        answer,
        f"{out}: {answer['num_bytes'] / 2**20:.1f} MiB, largest difference from PyTorch "
        f"{answer['max_abs_difference']:.1e} on {answer['num_images']} images",
    )


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(help="Answers an image.", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Class probabilities of images under a saved model."""
    from secateurs.study.single import predict_saved

    answer = predict_saved(model, images, top=top)
    lines = [
        f"{row['name']}: "
        + ", ".join(f"{a['label']} {a['probability']:.1%}" for a in row["answers"])
        for row in answer["predictions"]
    ]
    _session(None, as_json=as_json, quiet=True).answer(answer, "\n".join(lines))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study's directory.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="[default: DIR/report.html]")
    ] = None,
) -> None:
    """Write a study's report, and its model's card, again from its results.json."""
    from secateurs.report.card import write_card
    from secateurs.report.page import write_report
    from secateurs.report.schema import load_results

    results = load_results(directory)
    if results["pruned"]:
        write_card(results, directory)
    print(write_report(results, directory, out))


def main() -> None:
    """Run the command line: one line and exit code 2 for bad input, 130 when stopped."""
    try:
        words = sys.argv[1:] or ["--help"]
        code = app(words, prog_name="secateurs", standalone_mode=False)
    except (InputError, typer.TyperException) as error:
        text = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"error: the disk is full{where}; what was finished is kept: make room and run the "
            "same command again",
            file=sys.stderr,
        )
        sys.exit(2)
    except StopRequested:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
