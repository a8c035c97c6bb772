"""The command `explore`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import OwnSplitOptions
from secateurs.cli.options.network import OwnDevice
from secateurs.cli.options.output import SessionOptions
from secateurs.cli.options.panels import OUTPUT, within
from secateurs.cli.options.pruning import OwnLayer
from secateurs.cli.parsing.destinations import check_outside
from secateurs.cli.parsing.session import open_session
from secateurs.limits import LIMITS
from secateurs.paths import FACES, existing_directory, output_directory


def explore(
    context: typer.Context,
    *,
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Directory of a study, or a folder with model.json.",
            callback=existing_directory,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Folder with one folder per class, or faces. [default: the images of the study]",
        ),
    ] = None,
    layer: OwnLayer = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where pruned models are saved, for example --out models/explored. "
            "[default: DIR/cuts]",
            callback=output_directory,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Port on 127.0.0.1; 0 takes a free one.",
            callback=within(LIMITS["port"]),
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
    open_browser: Annotated[
        bool,
        typer.Option("--open", help="Open the page in a browser.", rich_help_panel=OUTPUT),
    ] = False,
    split: OwnSplitOptions,
    device: OwnDevice = None,
    session_options: SessionOptions,
) -> None:
    """Prune a network interactively, on a page that runs on this machine.

    A study over several networks opens on its frontier, with a slider along the sizes of its
    network; they are computed in the background. Where a hidden layer can be pruned, sliders for
    angle, norm and number of units show validation accuracy and size at once. Drop an image to
    compare the answers of both networks, and save the pruned model. Only this machine can reach the
    page. Ctrl-C ends it.
    """
    from secateurs.extras import require

    require("explore", "explore")
    from secateurs.explorer.layer_app import Desk, make_app
    from secateurs.explorer.opening import computing, open_pages
    from secateurs.serve.run import ADDRESS, listen, serve
    from secateurs.study.saved.location import find_location

    place = find_location(directory, data)
    images = [] if place.data == FACES else [Path(place.data)]
    check_outside(out or directory / "cuts", images)
    listener = listen(port)
    session = open_session(session_options, context)
    explorer, path = open_pages(
        place,
        layer,
        changes=vars(split) | {"device": device},
        saved_in=out or directory / "cuts",
        cache=session.cache,
        progress=session.progress,
    )
    port = listener.getsockname()[1]
    desk = None if explorer is None else Desk(explorer, out or directory / "cuts")
    app = make_app(desk, port=port, path=path)
    address = f"http://{ADDRESS}:{port}/"
    print(
        json.dumps(session.with_config({"address": address, "port": port}))
        if session_options.as_json
        else f"{address}  (Ctrl-C ends it)",
        flush=True,
    )
    if open_browser:
        import webbrowser

        webbrowser.open(address)
    with computing(path):
        serve(app, listener)
    saved = out or directory / "cuts"
    if saved.is_dir():  # a pruned model was saved
        session.save_config(saved)
    if not (session_options.as_json or session_options.quiet):
        print("stopped", flush=True)
