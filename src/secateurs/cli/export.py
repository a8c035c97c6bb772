"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import AnyModel
from secateurs.cli.options.demo import Beside, Html, Runtime
from secateurs.cli.options.output import AsJson, Config
from secateurs.cli.options.panels import OUTPUT
from secateurs.cli.parsing.session import Session, session_of
from secateurs.errors import InputError
from secateurs.paths import existing_path, output_file


def _file(param: typer.CallbackParam, out: Path | None) -> Path | None:
    return out if out == param.default else output_file(out)


def _images(images: Path | None) -> Path | None:
    return None if images is None else existing_path(images)


def export(
    context: typer.Context,
    model: AnyModel,
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
    html: Html = None,
    beside: Beside = None,
    runtime: Runtime = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Export a saved model to ONNX or to a PyTorch program, checked on real images.

    Images that cannot be read are not used for the check. --html writes a page instead, which
    classifies in a visitor's browser.
    """
    if html is not None:
        _page(context, model, images, html, beside, runtime, as_json=as_json)
        return
    if beside is not None or runtime is not None:
        raise InputError("--beside and --runtime are for a page; give --html as well")
    from secateurs.study.saved.exporting import export_saved
    from secateurs.wording import counted

    session = session_of(None, as_json=as_json, quiet=True, context=context)
    answer = export_saved(model, images or _of_study(model, session), out)
    lines = [
        f"{out}: {answer['num_bytes'] / 2**20:.1f} MiB, largest difference from PyTorch "
        f"{answer['max_abs_difference']:.1e} on {counted(answer['num_images'], 'image')}",
        *(f"not used for the check: {text}" for text in answer["skipped"]),
    ]
    session.answer(answer, "\n".join(lines))


def _of_study(model: Path, session: Session) -> Path:
    from secateurs.study.saved.location import images_of
    from secateurs.study.setup.splitting import data_folder

    return data_folder(images_of(model, None, command="export MODEL"), cache=session.cache)


def _page(
    context: typer.Context,
    model: Path,
    images: Path | None,
    html: Path,
    beside: Path | None,
    runtime: Path | None,
    *,
    as_json: bool,
) -> None:
    source = context.get_parameter_source("out")
    if source is not None and source.name == "COMMANDLINE":
        raise InputError("--html and --out are two exports; run the command once for each")
    from secateurs.demo.export_demo import export_demo, is_exported

    session = session_of(None, as_json=as_json, context=context)
    saved = [path for path in (model, beside) if path is not None and not is_exported(path)]
    if images is None and saved:
        images = _of_study(saved[0], session)
    answer = export_demo(
        model,
        images,
        html,
        beside=beside,
        runtime=runtime,
        cache=session.cache,
        progress=session.progress,
    )
    compared = [row for row in answer["models"] if row["max_abs_difference"] is not None]
    lines = [
        f"{html}: {answer['num_bytes'] / 2**20:.1f} MiB",
        *(
            f"{row['title']}: largest difference from PyTorch {row['max_abs_difference']:.1e}"
            for row in compared
        ),
        *(f"not used for the check: {text}" for text in answer["skipped"]),
        f"{'if a browser forbids it the camera' if answer['one_file'] else 'to open it'}: "
        f"{answer['server']}  then {answer['address']}",
    ]
    session.answer(answer, "\n".join(lines))
