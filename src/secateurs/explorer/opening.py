"""Which pages `secateurs explore` opens for a study or a saved model."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateurs.explorer.path_app import PathDesk
from secateurs.progress import SILENT, Progress
from secateurs.report.frontier.schema import load_frontier
from secateurs.ship.checkpoint import load
from secateurs.study.pruning.explorer import Explorer, open_explorer
from secateurs.study.pruning.size_path import open_path
from secateurs.study.saved.location import Location
from secateurs.study.setup.defaults import standard_layers

ENDS_S = 120.0  # for the computation to end when the server has; it stops at its next step


def open_pages(
    place: Location,
    layer: str | None,
    *,
    changes: dict[str, Any],
    saved_in: Path,
    cache: Path,
    progress: Progress = SILENT,
) -> tuple[Explorer | None, PathDesk | None]:
    """The layer to explore and, of a study over several networks, the path of its network.

    A network without a hidden layer has a path only. Raises InputError for bad input.
    """
    study = load_frontier(place.directory)
    path = None
    if study is not None:
        path = open_path(place, changes=changes, cache=cache, progress=progress)
    explorer = None
    if study is None or layer is not None or _has_layer(place):
        explorer = open_explorer(place, layer, changes=changes, cache=cache, progress=progress)
    if path is None:
        return explorer, None
    return explorer, PathDesk(path, saved_in, study, layer_page=explorer is not None)


@contextmanager
def computing(desk: PathDesk | None) -> Generator[None]:
    """Compute the sizes of a path in the background meanwhile, and stop at the end."""
    if desk is None:
        yield
        return
    worker = threading.Thread(target=desk.path.work, daemon=True)
    worker.start()
    try:
        yield
    finally:
        desk.path.stop.request()
        worker.join(ENDS_S)


def _has_layer(place: Location) -> bool:
    loaded = load(place.model)
    return bool(standard_layers(loaded.model, loaded.spec.backbone))
