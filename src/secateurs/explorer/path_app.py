"""The requests of the page of a whole network's path, and their answers, as JSON."""

from __future__ import annotations

import re
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from secateurs.data.images.decode import MAX_PIXELS, DecodeError
from secateurs.errors import InputError
from secateurs.explorer.answering import answer, check_name
from secateurs.explorer.path_page import render_path_page
from secateurs.serve.bodies import check_kind, read_body
from secateurs.study.pruning.size_path import SizePath

if TYPE_CHECKING:
    import torch

MAX_IMAGE_BYTES = 32 * 10**6
Record = dict[str, Any]


@dataclass
class PathDesk:
    """The path, the study's networks, the folder for saved ones, and the last image shown.

    `study` is what `path_facts` keeps of a study's results, None for a model that has none.
    """

    path: SizePath
    saved_in: Path
    study: Record | None = None
    layer_page: bool = False
    max_image_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = MAX_PIXELS
    lock: threading.Lock = field(default_factory=threading.Lock)
    shown: tuple[int, torch.Tensor] | None = None

    def state(self) -> Record:
        """What is known of every size by now."""
        return self.path.state()

    def answers(self, share: str) -> Record:
        """Both networks' predictions for the image shown."""
        wanted = self._share(share)
        with self.lock:
            if self.shown is None:
                raise InputError("picture: none has been shown yet")
            number, view = self.shown
            return {"number": number, **self.path.answers(view, wanted)}

    def picture(self, share: str, data: bytes) -> Record:
        """Both networks' predictions for an image file, kept in memory until the next one."""
        wanted = self._share(share)
        with self.lock, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture"
            file.write_bytes(data)
            try:
                view, seen = self.path.view_of(file, max_pixels=self.max_pixels)
            except DecodeError as error:
                raise InputError(f"picture: {error.reason} ({error.detail})") from None
            number = 1 if self.shown is None else self.shown[0] + 1
            found = self.path.answers(view, wanted)
            self.shown = number, view
        return {"number": number, "seen": seen, **found}

    def save(self, share: str, name: str) -> Record:
        """Save the network of a size under a plain name."""
        wanted = self._share(share)
        with self.lock:
            return self.path.save(wanted, self.saved_in / check_name(name))

    @staticmethod
    def _share(text: str) -> float:
        if not re.fullmatch(r"[01](\.\d{1,4})?", text):
            raise InputError(f"share: expected a number of 0..1, got {text!r:.40}")
        return float(text)


def path_routes(desk: PathDesk) -> list[Route]:
    """The routes of the page; it is at `/`."""
    page = render_path_page(desk.path, desk.study, desk.saved_in, layer_page=desk.layer_page)

    async def index(request: Request) -> Response:
        return HTMLResponse(page)

    async def do_state(request: Request) -> Response:
        return await answer(desk.state)

    async def do_answers(request: Request) -> Response:
        return await answer(desk.answers, request.query_params.get("share", ""))

    async def do_picture(request: Request) -> Response:
        check_kind(request, "application/octet-stream")
        body = await read_body(request, desk.max_image_bytes)
        return await answer(desk.picture, request.query_params.get("share", ""), body)

    async def do_save(request: Request) -> Response:
        query = request.query_params
        check_kind(request, "application/json")
        await read_body(request, 0)
        return await answer(desk.save, query.get("share", ""), query.get("name", ""))

    return [
        Route("/", index),
        Route("/path/state", do_state),
        Route("/path/answers", do_answers),
        Route("/path/picture", do_picture, methods=["POST"]),
        Route("/path/save", do_save, methods=["POST"]),
    ]
