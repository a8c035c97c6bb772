"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import AnyModel, OwnSplitOptions
from secateurs.cli.options.demo import Beside, Html, Runtime
from secateurs.cli.options.int8 import Agreement, Calibration, Int8, Int8Method, Original
from secateurs.cli.options.output import SessionOptions
from secateurs.cli.options.panels import OUTPUT
from secateurs.cli.options.pruning import Macs, RecoveryEpochs
from secateurs.cli.parsing.session import Session, open_session, session_of
from secateurs.errors import InputError
from secateurs.paths import FACES, existing_path, model_path, output_file


def _file(param: typer.CallbackParam, out: Path | None) -> Path | None:
    return out if out == param.default else output_file(out)


def _images(images: Path | None) -> Path | None:
    return images if images is None or str(images) == FACES else existing_path(images)


def export(
    context: typer.Context,
    *,
    model: AnyModel,
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGES",
            help="Image, folder of images or the word faces; the export is compared with the model "
            "on it. [default: the images of the study]",
            callback=_images,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The file to write, for example --out model.onnx; its ending says the kind: "
            ".onnx, .pt2 (PyTorch program), .xml (OpenVINO), .pte (ExecuTorch), .tflite (LiteRT) "
            "or .mlpackage (Core ML).",
            callback=_file,
            rich_help_panel=OUTPUT,
        ),
    ] = Path("models/MODEL.onnx"),
    html: Html = None,
    beside: Beside = None,
    runtime: Runtime = None,
    int8: Int8 = False,
    int8_method: Int8Method = "compensated",
    agreement: Agreement = 0.99,
    calibration: Calibration = 64,
    original: Original = None,
    macs: Macs = None,
    recovery_epochs: RecoveryEpochs = 0,
    split: OwnSplitOptions,
    session_options: SessionOptions,
) -> None:
    """Export a saved model to a file of another format, checked on real images.

    Images that cannot be read are not used for the check. With --int8 the model is quantized on
    the images that it was trained on; with --macs as well it is pruned first, into a directory
    beside the file. --html writes a page instead, which classifies in a visitor's browser.
    """
    if html is not None:
        if int8:
            raise InputError("--html and --int8 are two exports; give the page the int8 file")
        _page(context, model, images, html, beside, runtime, as_json=session_options.as_json)
        return
    if beside is not None or runtime is not None:
        raise InputError("--beside and --runtime are for a page; give --html as well")
    if int8:
        session = open_session(session_options, context)
        from secateurs.ship.int8.quantization import method_of
        from secateurs.stopping import stop_on_interrupt
        from secateurs.study.pruning.shrink_and_quantize import shrink_and_quantize
        from secateurs.study.saved.location import images_of
        from secateurs.study.saved.quantizing import quantized_table

        method = method_of(int8_method)
        if macs is not None and original is not None:
            raise InputError("--original and --macs: with --macs MODEL itself is the original")
        data = None if images is None else str(images)
        with stop_on_interrupt() as stop:
            found = shrink_and_quantize(
                model_path(model),
                images_of(model, data, command="export MODEL"),
                out,
                macs=macs,
                recovery_epochs=recovery_epochs,
                method=method,
                wanted=agreement,
                original=original,
                num_calibration=calibration,
                changes=vars(split),
                cache=session.cache,
                stop=stop,
                progress=session.progress,
            )
        session.answer(found, quantized_table(found))
        return
    if macs is not None or recovery_epochs or original is not None:
        raise InputError(
            "--macs, --recovery-epochs and --original go with --int8; prune with `secateurs prune`"
        )
    from secateurs.study.saved.exporting import export_saved
    from secateurs.wording import counted

    session = session_of(None, as_json=session_options.as_json, quiet=True, context=context)
    answer = export_saved(model, _folder(model, images, session), out)
    difference = answer["max_abs_difference"]
    checked = (
        ""
        if difference is None
        else f", largest difference from PyTorch {difference:.1e} on "
        f"{counted(answer['num_images'], 'image')}"
    )
    lines = [
        f"{out}: {answer['num_bytes'] / 1e6:.2f} MB{checked}",
        *([answer["note"]] if "note" in answer else []),
        *(f"not used for the check: {text}" for text in answer["skipped"]),
    ]
    session.answer(answer, "\n".join(lines))


def _folder(model: Path, images: Path | None, session: Session) -> Path:
    """The images that were given, the embedded ones for the word faces, else those of the study."""
    from secateurs.study.saved.location import images_of
    from secateurs.study.setup.splitting import data_folder

    given = None if images is None else str(images)
    return data_folder(images_of(model, given, command="export MODEL"), cache=session.cache)


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
    if images is not None or saved:
        images = _folder(saved[0] if saved else model, images, session)
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
        f"{html}: {answer['num_bytes'] / 1e6:.2f} MB",
        *(
            f"{row['title']}: largest difference from PyTorch {row['max_abs_difference']:.1e}"
            for row in compared
        ),
        *(f"not used for the check: {text}" for text in answer["skipped"]),
        f"{'If the browser does not allow the camera' if answer['one_file'] else 'To open it'}, "
        f"run  {answer['server']}  and open {answer['address']}",
    ]
    session.answer(answer, "\n".join(lines))
