"""The command `probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Data, SplitOptions, Strict
from secateurs.cli.options.network import Device, Precision, Resize, Weights
from secateurs.cli.options.output import Overwrite, SessionOptions, StudyOut
from secateurs.cli.options.panels import NETWORK, TRAINING
from secateurs.cli.parsing.session import open_session


def probe(
    context: typer.Context,
    *,
    data: Data,
    out: StudyOut = Path("studies/DATA-probe"),
    backbones: Annotated[
        str,
        typer.Option(
            metavar="auto|A,B,...",
            help="Networks to compare; auto is a short list over sizes, of those whose weights can "
            "be had.",
            rich_help_panel=NETWORK,
        ),
    ] = "auto",
    weights: Weights = "auto",
    depths: Annotated[
        str,
        typer.Option(
            metavar="auto|0-7|5,6",
            help="Numbers of frozen layers; auto is some six of each network, by share of its "
            "parts.",
            rich_help_panel=NETWORK,
        ),
    ] = "auto",
    balanced: Annotated[
        bool,
        typer.Option(
            "--balanced",
            help="Give every class the same total weight in the classifiers.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    resize: Resize = "straight",
    precision: Precision = None,
    device: Device = "auto",
    split: SplitOptions,
    strict: Strict = False,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Measure what each depth of pretrained networks knows about the images, without training.

    A ridge classifier on the features of each depth, with intervals, and which networks and depths
    are worth fine-tuning. Writes probe.json and probe.html.
    """
    from secateurs.nets.candidates import AUTO
    from secateurs.report.probe.page import probe_words, write_probe_page
    from secateurs.study.probe_directory import probe_data
    from secateurs.study.setup.config import from_preset, parse_depths

    names = AUTO if backbones == "auto" else tuple(name.strip() for name in backbones.split(","))
    settings = from_preset(
        "quick",
        backbone=names[0],
        weights=weights,
        **vars(split),
        resize=resize,
        precision=precision,
        device=device,
    )
    session = open_session(session_options, context)
    with session.running(out) as stop:
        found = probe_data(
            data,
            settings,
            names,
            out,
            depths=None if depths == "auto" else parse_depths(depths),
            balanced=balanced,
            strict=strict,
            cache=session.cache,
            overwrite=overwrite,
            stop=stop,
            progress=session.progress,
        )
    record = session.keep(out, "probe.json", found.record, sealed=True)
    page = write_probe_page(record, out, data=data)
    session.answer(record, f"{probe_words(record)}\npage: {page}")
