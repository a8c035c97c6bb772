"""The commands on a saved model: `evaluate`, `prune`, `export`, `predict`; registered in `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options import (
    AsJson,
    Cache,
    Compensation,
    Data,
    GroupBy,
    High,
    Keep,
    KeepFraction,
    Latency,
    LatencyBatch,
    Layers,
    Low,
    Macs,
    MaxLoss,
    Model,
    Out,
    OwnSeed,
    OwnSplit,
    Params,
    ProgressMode,
    Quiet,
    Recover,
    RecoverDistil,
    RecoverLr,
    RoundTo,
    Rule,
    Starts,
    Std,
    within,
)
from secateurs.cli.session import session_of
from secateurs.limits import LIMITS
from secateurs.paths import existing_path, existing_paths, output_file
from secateurs.stopping import stop_on_interrupt


def evaluate(
    model: Model,
    data: Data,
    side: Annotated[str, typer.Option(help="train, val, test, or all it has not seen.")] = "test",
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Accuracy, precision, recall and specificity of a saved model on labelled images.

    Images that the model was trained or chosen on are never counted as test; without --split or
    --group-by its own split is used.
    """
    from secateurs.study.saved.evaluate_saved import evaluate_saved, evaluation_table

    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
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


def prune(
    model: Model,
    data: Data,
    out: Out,
    layers: Layers = None,
    low: Low = None,
    high: High = None,
    std: Std = None,
    max_loss: MaxLoss = 2.0,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: Compensation = "merge",
    params: Params = None,
    macs: Macs = None,
    latency: Latency = None,
    latency_batch: LatencyBatch = 64,
    round_to: RoundTo = 8,
    starts: Starts = 5,
    recover: Recover = 0,
    recover_lr: RecoverLr = None,
    recover_distil: RecoverDistil = 0.5,
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Remove units whose activations point the same way; measured on DATA's training images.

    With --params, --macs or --latency, or with --layers all, the whole network is pruned: units of
    every layer are taken where they cost the least loss for what they save.
    """
    from secateurs.errors import InputError
    from secateurs.report.network.page import write_network_page
    from secateurs.study.pruning.network import Budget
    from secateurs.study.pruning.recovery import RecoveryOptions
    from secateurs.study.pruning.saved_layers import prune_saved, prune_words
    from secateurs.study.pruning.saved_network import shrink_saved, shrink_words
    from secateurs.study.setup.config import parse_keep, rule_of

    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    split_words = {"split": split, "group_by": group_by, "seed": seed}
    asked = any(limit is not None for limit in (params, macs, latency))
    if asked or layers == "all":
        chosen = (low, high, std, rule, keep, keep_fraction)
        if any(word is not None for word in chosen):
            raise InputError(
                "--low, --high, --std, --rule, --keep and --keep-fraction are for named layers; "
                "a whole network goes by --params, --macs, --latency or --max-loss"
            )
        budget = Budget(
            params=params,
            macs=macs,
            latency=latency,
            max_loss=None if asked or max_loss < 0 else max_loss,
            latency_batch=latency_batch,
            round_to=round_to,
            starts=starts,
            recovery=RecoveryOptions(epochs=recover, lr=recover_lr, distil=recover_distil),
        )
        with stop_on_interrupt() as stop:
            answer = shrink_saved(
                model,
                data,
                out,
                budget,
                changes=split_words,
                cache=session.cache,
                stop=stop,
                progress=session.progress,
            )
        page = write_network_page(answer, out)
        session.answer(answer, f"{shrink_words(answer)}\nmodel: {out}\npage: {page}")
        return
    answer = prune_saved(
        model,
        data,
        out,
        changes={
            "layers": None if layers is None else _names(layers),
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
            **split_words,
        },
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(answer, f"{prune_words(answer)}\nmodel: {out}")


def _names(layers: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in layers.split(","))


def export(
    model: Model,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Image or folder; the export is checked on it.",
            callback=existing_path,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The file to write, .onnx or .pt2.",
            callback=output_file,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Export a saved model to ONNX or as a PyTorch program, checked on real images.

    Images that cannot be read are left out of the check.
    """
    from secateurs.study.saved.exporting import export_saved

    answer = export_saved(model, images, out)
    lines = [
        f"{out}: {answer['num_bytes'] / 2**20:.1f} MiB, largest difference from PyTorch "
        f"{answer['max_abs_difference']:.1e} on {answer['num_images']} images",
        *(f"not used for the check: {text}" for text in answer["skipped"]),
    ]
    session_of(None, as_json=as_json, quiet=True).answer(answer, "\n".join(lines))


def predict(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, and folders of them.",
            callback=existing_paths,
        ),
    ],
    top: Annotated[
        int, typer.Option(help="Answers per image.", callback=within(LIMITS["top"]))
    ] = 3,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="text|csv|jsonl|json",
            help="One line per image, CSV, one JSON object per line, or one in all. [default: as "
            "FILE ends, else text]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where answers go. [default: standard output]",
            callback=output_file,
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Class probabilities of images under a saved model, or a study's.

    A file that cannot be used has its error in its place, and the exit code is 1 in the end.
    """
    import sys

    from secateurs.errors import InputError
    from secateurs.files import atomic_path
    from secateurs.study.saved.prediction_output import format_of, write_predictions

    if as_json and kind not in (None, "json"):
        raise InputError(f"--json and --format {kind} ask for two formats; give one of them")
    kind = format_of("json" if as_json else kind, out)
    session = session_of(None, quiet=quiet, progress=progress)

    from secateurs.study.saved.prediction import list_images, load_saved, predictions

    listed = list_images(images)
    for text in listed.notes:
        session.progress.note(text)
    rows = predictions(load_saved(model), listed.files, top=top, progress=session.progress)
    if out is None:
        num_errors = write_predictions(rows, sys.stdout, kind=kind, top=top)
    else:
        with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            num_errors = write_predictions(rows, file, kind=kind, top=top)
        print(out)
    if num_errors:
        session.progress.note(f"{num_errors} of {len(listed.files)} images could not be used")
        raise typer.Exit(1)
