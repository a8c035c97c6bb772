"""Options of the page for a visitor's browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.panels import OUTPUT
from secateurs.paths import existing_path, model_path, output_directory, output_file


def _page(out: Path | None) -> Path | None:
    is_file = out is not None and out.suffix.lower() in (".html", ".htm")
    return output_file(out) if is_file else output_directory(out)


Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="PAGE",
        help="Write a page that classifies in a browser, for example demo.html, or a folder with "
        "its parts.",
        callback=_page,
        rich_help_panel=OUTPUT,
    ),
]
Beside = Annotated[
    Path | None,
    typer.Option(
        "--beside",
        metavar="MODEL",
        help="A second model for the page, for example the unpruned one.",
        callback=lambda path: None if path is None else model_path(path),
        rich_help_panel=OUTPUT,
    ),
]
Runtime = Annotated[
    Path | None,
    typer.Option(
        "--runtime",
        metavar="PATH",
        help="ONNX Runtime Web for the page: the archive of the npm package onnxruntime-web, or "
        "its folder. [default: fetched once with npm]",
        callback=lambda path: None if path is None else existing_path(path),
        rich_help_panel=OUTPUT,
    ),
]
