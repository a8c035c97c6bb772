"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Model
from secateurs.cli.options.output import AsJson, Config
from secateurs.cli.options.panels import OUTPUT
from secateurs.cli.parsing.session import session_of
from secateurs.paths import existing_path, output_file


def _file(param: typer.CallbackParam, out: Path | None) -> Path | None:
    return out if out == param.default else output_file(out)


def _images(images: Path | None) -> Path | None:
    return None if images is None else existing_path(images)


def export(
    context: typer.Context,
    model: Model,
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="[IMAGES]",
            help="Image or folder of images; the export is compared with the model on it. "
            "[default: the images of the study]",
            callback=_images,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The file to write, .onnx or .pt2, for example --out photos.onnx.",
            callback=_file,
            rich_help_panel=OUTPUT,
        ),
    ] = Path("models/MODEL.onnx"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Export a saved model to ONNX or to a PyTorch program, checked on real images.

    Images that cannot be read are not used for the check.
    """
    from secateurs.study.saved.exporting import export_saved
    from secateurs.study.saved.location import images_of
    from secateurs.study.setup.splitting import data_folder
    from secateurs.wording import counted

    session = session_of(None, as_json=as_json, quiet=True, context=context)
    if images is None:
        known = images_of(model, None, command="export MODEL")
        images = data_folder(known, cache=session.cache)
    answer = export_saved(model, images, out)
    lines = [
        f"{out}: {answer['num_bytes'] / 2**20:.1f} MiB, largest difference from PyTorch "
        f"{answer['max_abs_difference']:.1e} on {counted(answer['num_images'], 'image')}",
        *(f"not used for the check: {text}" for text in answer["skipped"]),
    ]
    session.answer(answer, "\n".join(lines))
