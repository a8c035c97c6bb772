"""The commands on a saved model: `evaluate`, `prune`, `export`, `predict`; registered in `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli_options import (
    AsJson,
    Cache,
    Compensation,
    Data,
    GroupBy,
    High,
    Keep,
    KeepFraction,
    Layers,
    Low,
    MaxLoss,
    Model,
    Out,
    OwnSeed,
    OwnSplit,
    Quiet,
    Rule,
    Std,
)
from secateurs.cli_session import session_of


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

    session = session_of(cache, as_json=as_json, quiet=quiet)
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

    session = session_of(cache, as_json=as_json, quiet=quiet)
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
    session_of(None, as_json=as_json, quiet=True).answer(
        answer,
        f"{out}: {answer['num_bytes'] / 2**20:.1f} MiB, largest difference from PyTorch "
        f"{answer['max_abs_difference']:.1e} on {answer['num_images']} images",
    )


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
    session_of(None, as_json=as_json, quiet=True).answer(answer, "\n".join(lines))
