"""The command `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Cache, Data, GroupBy, Seed, SplitRule
from secateurs.cli.options.network import Backbone, Resize
from secateurs.cli.options.output import Config, ProgressMode, Quiet, StudyOut
from secateurs.cli.options.panels import OUTPUT, within
from secateurs.cli.options.training import Augment, MinScale, Preset, RotationDeg
from secateurs.cli.parsing.session import config_of, session_of
from secateurs.limits import LIMITS


def show(
    context: typer.Context,
    data: Data,
    out: StudyOut = Path("studies/DATA-show"),
    backbone: Backbone = "mobilenet_v2",
    preset: Preset = "quick",
    num_images: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Images, spread over the classes.",
            callback=within(LIMITS["num_images"]),
            rich_help_panel=OUTPUT,
        ),
    ] = 12,
    num_views: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Training views of each.",
            callback=within(LIMITS["num_views"]),
            rich_help_panel=OUTPUT,
        ),
    ] = 5,
    augment: Augment = True,
    rotation_deg: RotationDeg = None,
    min_scale: MinScale = None,
    resize: Resize = "straight",
    split: SplitRule = "auto",
    group_by: GroupBy = None,
    seed: Seed = 0,
    cache: Cache = None,
    config: Config = None,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Show training images as a network sees them: the augmented views, on one page.

    Writes show.html.
    """
    from dataclasses import asdict

    from secateurs.report.insight.show_page import write_show_page
    from secateurs.study.insight.views import show_views

    settings = config_of(
        preset,
        backbone=backbone,
        weights="none",
        augment=augment,
        rotation_deg=rotation_deg,
        min_scale=min_scale,
        resize=resize,
        split=split,
        group_by=group_by,
        seed=seed,
    )
    session = session_of(cache, quiet=quiet, progress=progress, context=context)
    shown = show_views(
        data,
        settings,
        out,
        num_images=num_images,
        num_views=num_views,
        cache=session.cache,
        progress=session.progress,
    )
    session.save_config(out)
    names = ("backbone", "resize", "augment", "rotation_deg", "min_scale", "seed", "split")
    plain = settings.to_json()
    page = write_show_page(asdict(shown), {name: plain[name] for name in names}, out, data=data)
    print(page)
