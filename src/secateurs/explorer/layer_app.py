"""The requests of the page of `secateurs explore` and their answers, as JSON."""

from __future__ import annotations

import re
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from secateurs.data.images.decode import MAX_PIXELS, DecodeError
from secateurs.errors import InputError
from secateurs.explorer.answering import answer, check_name
from secateurs.explorer.layer_page import policy_of, render_page
from secateurs.explorer.path_app import PathDesk, path_routes
from secateurs.explorer.path_page import path_script
from secateurs.serve.bodies import check_kind, read_body, refusal
from secateurs.serve.guard import Guard
from secateurs.study.pruning.explorer import (
    Explorer,
    answers,
    cut,
    facts,
    look_at,
    read_picture,
    save_model,
    unit,
)
from secateurs.study.pruning.slider_request import SliderRequest, parse_request

if TYPE_CHECKING:
    import torch

MAX_REQUEST_BYTES = 4096
MAX_IMAGE_BYTES = 32 * 10**6
MAX_PICTURES = 4  # read at the same time

Record = dict[str, Any]


@dataclass
class Desk:
    """The explorer, the folder for saved networks, and the last image shown."""

    explorer: Explorer
    saved_in: Path
    max_image_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = MAX_PIXELS
    # One at a time: a move uses both cores, and the number of threads belongs to the process.
    lock: threading.Lock = field(default_factory=threading.Lock)
    # One picture at a time is decoded, which bounds the memory.
    decoding: threading.Lock = field(default_factory=threading.Lock)
    shown: tuple[int, torch.Tensor] | None = None

    def settings(self, text: Any) -> SliderRequest:
        """A position of the sliders, checked."""
        return parse_request(text, num_units=self.explorer.num_units)

    def cut(self, text: bytes) -> Record:
        """The pruned network at a position, with the predictions for the image shown, if any."""
        settings = self.settings(text)
        with self.lock:
            found = cut(self.explorer, settings)
            if self.shown is not None:
                number, outputs = self.shown
                found["picture"] = {"number": number, **answers(self.explorer, outputs, settings)}
        return found

    def unit(self, text: str, index: str) -> Record:
        """The state of one unit at a position."""
        settings = self.settings(text)
        if not re.fullmatch(r"\d{1,9}", index):
            raise InputError(f"unit: expected a number, got {index!r:.40}")
        with self.lock:
            return unit(self.explorer, settings, int(index))

    def picture(self, text: str, data: bytes) -> Record:
        """Both networks' predictions for an image file, kept in memory until the next one."""
        settings = self.settings(text)
        # Decoding may take seconds; requests of other tabs do not wait for it.
        with self.decoding, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(data)
            try:
                pixels = read_picture(self.explorer, path, max_pixels=self.max_pixels)
            except DecodeError as error:
                raise InputError(f"picture: {error.reason} ({error.detail})") from None
        with self.lock:
            outputs, seen = look_at(self.explorer, pixels)
            number = 1 if self.shown is None else self.shown[0] + 1
            found = answers(self.explorer, outputs, settings)
            self.shown = number, outputs
        return {"number": number, "seen": seen, **found}

    def save(self, text: str, name: str) -> Record:
        """Save the pruned network at a position under a plain name."""
        settings = self.settings(text)
        out = self.saved_in / check_name(name)
        with self.lock:
            done = save_model(self.explorer, settings, out)
        return {
            "folder": str(out),
            "num_kept": done["layers"][0]["num_kept"],
            "num_parameters": done["num_parameters"]["after"],
            "accuracy": done["after"]["accuracy"],
            "parity": done["parity"],
            "bytes": (out / "model.safetensors").stat().st_size,
        }


def make_app(desk: Desk | None, *, port: int, path: PathDesk | None = None) -> Starlette:
    """The application for a server on 127.0.0.1 at `port`; all else is refused, see `Guard`.

    With a `path` the page at `/` is that of the whole network, and that of the layer, where there
    is one, at `/layer`.
    """

    async def nothing(request: Request) -> Response:
        return Response(status_code=204)

    routes = [Route("/favicon.ico", nothing)]
    scripts: list[str] = []
    if path is not None:
        routes += path_routes(path)
        scripts.append(path_script())
    if desk is not None:
        routes += layer_routes(desk, "/" if path is None else "/layer")
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, port=port, policy=policy_of(*scripts))],
        exception_handlers={HTTPException: refusal},
    )


def layer_routes(desk: Desk, address: str) -> list[Route]:
    """The routes of the page of one layer, which is at `address`."""
    first = desk.cut(b'{"low_deg": 15}')
    page = render_page(facts(desk.explorer), first, desk.saved_in, desk.max_image_bytes)

    async def index(request: Request) -> Response:
        return HTMLResponse(page)

    async def do_cut(request: Request) -> Response:
        check_kind(request, "application/json")
        body = await read_body(request, MAX_REQUEST_BYTES)
        return await answer(desk.cut, body)

    async def do_unit(request: Request) -> Response:
        query = request.query_params
        return await answer(desk.unit, query.get("settings", ""), query.get("index", ""))

    pictures: set[Request] = set()

    async def do_picture(request: Request) -> Response:
        if len(pictures) >= MAX_PICTURES:
            raise HTTPException(429, "picture: too many images are being read; try again")
        pictures.add(request)
        try:
            check_kind(request, "application/octet-stream")
            body = await read_body(request, desk.max_image_bytes)
            return await answer(desk.picture, request.query_params.get("settings", ""), body)
        finally:
            pictures.discard(request)

    async def do_save(request: Request) -> Response:
        query = request.query_params
        check_kind(request, "application/json")
        await read_body(request, 0)
        return await answer(desk.save, query.get("settings", ""), query.get("name", ""))

    return [
        Route(address, index),
        Route("/cut", do_cut, methods=["POST"]),
        Route("/unit", do_unit),
        Route("/picture", do_picture, methods=["POST"]),
        Route("/save", do_save, methods=["POST"]),
    ]
