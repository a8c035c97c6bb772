"""The command `serve`."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from secateurs.cli.options.data import AnyModel
from secateurs.cli.options.output import AsJson, Config, Quiet, Threshold
from secateurs.cli.options.panels import OUTPUT, SERVICE, within
from secateurs.cli.parsing.session import session_of
from secateurs.errors import InputError
from secateurs.limits import LIMITS


def serve(
    context: typer.Context,
    model: AnyModel,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 is every network of this machine.",
            rich_help_panel=OUTPUT,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Port; 0 takes a free one.",
            callback=within(LIMITS["port"]),
            rich_help_panel=OUTPUT,
        ),
    ] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name under which clients use the service, beside localhost; repeat it for "
            "more, * allows all.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    threshold: Threshold = None,
    max_mb: Annotated[
        float,
        typer.Option(
            "--max-mb",
            metavar="MB",
            help="Largest request, in 10^6 bytes.",
            callback=within(LIMITS["max_mb"]),
            rich_help_panel=SERVICE,
        ),
    ] = 20.0,
    max_mp: Annotated[
        float,
        typer.Option(
            "--max-mp",
            metavar="MP",
            help="Largest image, in 10^6 pixels.",
            callback=within(LIMITS["max_mp"]),
            rich_help_panel=SERVICE,
        ),
    ] = 50.0,
    max_images: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Most images of a request.",
            callback=within(LIMITS["max_images"]),
            rich_help_panel=SERVICE,
        ),
    ] = 16,
    max_requests: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Most requests at a time; more are refused with status 503.",
            callback=within(LIMITS["max_requests"]),
            rich_help_panel=SERVICE,
        ),
    ] = 64,
    batch: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Most images that the network classifies at once; the number up to it that is "
            "fastest for each image is measured at the start.",
            callback=within(LIMITS["batch"]),
            rich_help_panel=SERVICE,
        ),
    ] = 32,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Classify images over HTTP, with a saved model, an exported file or the model of a study.

    POST an image to /predict; /card says what the model is, /health whether the service answers,
    /openapi.json how it is used. By default only this machine can reach it. Ctrl-C and SIGTERM end
    it after the requests under way.
    """
    from secateurs.extras import require

    require("serve", "serve")
    from secateurs.serve.guard import ANY, HOSTS
    from secateurs.serve.run import in_address, is_every_network, is_loopback, listen
    from secateurs.serve.run import serve as run
    from secateurs.serve.service import Service, ServiceLimits, make_service
    from secateurs.study.saved.prediction_model import card_of, open_classifier

    names = tuple(allow_host or ())
    for name in names:
        bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name.replace(":", "/")
        if name != ANY and (not bare or set(bare) & set("/@ ")):
            raise InputError(f"--allow-host: expected a host name without a port, got {name!r:.80}")
    if not is_every_network(host):  # a name made to point here is never that address itself
        names = (*names, in_address(host))
    session = session_of(None, as_json=as_json, quiet=quiet, context=context)
    listener = listen(port, host)
    limits = ServiceLimits(
        max_mb=max_mb,
        max_mp=max_mp,
        max_images=max_images,
        max_requests=max_requests,
        batch=batch,
        decoders=min(8, max(2, os.cpu_count() or 2)),
    )
    try:
        classifier = open_classifier(model, threshold=threshold)
    except BaseException:
        listener.close()
        raise
    port = listener.getsockname()[1]
    address = f"http://{in_address(host)}:{port}/"
    if not is_loopback(host):
        session.progress.note("every machine that reaches this address can use the service")
        if not names:
            session.progress.note("only requests to localhost are answered; see --allow-host")
    with Service(classifier, limits) as service:
        app = make_service(service, card_of(classifier), (*HOSTS, *names))
        print(
            json.dumps(session.with_config({"address": address, "port": port}))
            if as_json
            else f"{address}  {classifier.form}, {len(classifier.spec.classes)} classes  "
            "(Ctrl-C ends it)",
            flush=True,
        )
        run(app, listener)
    if not (as_json or quiet):
        print("stopped", flush=True)
