"""The command `explore`; registered in `cli`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options import (
    AsJson,
    Cache,
    GroupBy,
    OwnLayer,
    OwnSeed,
    OwnSplit,
    ProgressMode,
    Quiet,
    within,
)
from secateurs.cli.session import session_of
from secateurs.limits import LIMITS
from secateurs.paths import existing_directory, output_directory


def explore(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A study's directory, or a folder with model.json.",
            callback=existing_directory,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Folder with one folder per class, or faces. [default: the study's own]",
        ),
    ] = None,
    layer: OwnLayer = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where cuts are saved. [default: DIR/cuts]",
            callback=output_directory,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(help="Port on 127.0.0.1; 0 is a free one.", callback=within(LIMITS["port"])),
    ] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser.")
    ] = False,
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. [default: as the model was trained]")
    ] = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """A page on this machine on which a layer is cut while you move sliders.

    Angle, norm and number of units; accuracy on validation and size at once; drop an image for both
    networks' answers; save the cut. Only this machine can reach it. Ctrl-C ends it.
    """
    from secateurs.extras import require

    require("explore", "explore")
    from secateurs.serve.app import Desk, make_app
    from secateurs.serve.run import ADDRESS, listen, serve
    from secateurs.study.pruning.explorer import open_explorer
    from secateurs.study.saved.location import find_location

    place = find_location(directory, data)
    listener = listen(port)
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    explorer = open_explorer(
        place,
        layer,
        changes={"split": split, "group_by": group_by, "seed": seed, "device": device},
        cache=session.cache,
        progress=session.progress,
    )
    port = listener.getsockname()[1]
    app = make_app(Desk(explorer, out or directory / "cuts"), port=port)
    address = f"http://{ADDRESS}:{port}/"
    print(
        json.dumps({"address": address, "port": port})
        if as_json
        else f"{address}  (Ctrl-C ends it)",
        flush=True,
    )
    if open_browser:
        import webbrowser

        webbrowser.open(address)
    serve(app, listener)
    if not (as_json or quiet):
        print("stopped", flush=True)
