"""A classifier as an HTTP service: images in, answers out, within limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from secateurs.data.images.decode import DecodeError
from secateurs.errors import InputError
from secateurs.limits import LIMITS, check_fields, check_number, whole_number
from secateurs.serve.batching import Batches, best_size
from secateurs.serve.bodies import refusal
from secateurs.serve.guard import HOSTS, Guard
from secateurs.serve.openapi import document
from secateurs.serve.uploads import Upload, read_uploads
from secateurs.study.saved.prediction_model import Classifier, read_pixels_of

POLICY = "default-src 'none'; frame-ancestors 'none'"
RETRY_S = 1  # seconds after which a client that was refused may ask again
DEFAULT_TOP = 3

Record = dict[str, Any]


@dataclass(frozen=True)
class ServiceLimits:
    """What a service takes at most.

    `max_mb` megabytes and `max_images` images in a request, `max_mp` million pixels in an image,
    `max_requests` requests at a time, the others being refused; at most `batch` images run together
    and `decoders` are read at the same time.
    """

    max_mb: float = 20.0
    max_mp: float = 50.0
    max_images: int = 16
    max_requests: int = 64
    batch: int = 32
    decoders: int = 2

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def max_bytes(self) -> int:
        """Bytes of a request."""
        return int(self.max_mb * 10**6)

    @property
    def max_pixels(self) -> int:
        """Pixels of an image."""
        return int(self.max_mp * 10**6)


@dataclass
class Service:
    """A classifier with the threads that read images and run it; used within `with`.

    `batch` is the number of images that it runs together, measured when this is made.
    """

    classifier: Classifier
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    num_busy: int = 0
    num_answered: int = 0

    def __post_init__(self) -> None:
        self._decoders = ThreadPoolExecutor(self.limits.decoders, thread_name_prefix="decode")
        # Several batches on one thread each make better use of the processor than one batch on
        # many threads, which wait for each other at every layer.
        self._threads = torch.get_num_threads()
        workers = self._threads if self.classifier.run_on is not None else 1
        self.batch = best_size(self._seconds, self.limits.batch)
        self._batches: Batches[NDArray[np.uint8], NDArray[np.float64]] = Batches(
            self._run, largest=self.batch, workers=workers
        )

    def __enter__(self) -> Service:
        self._batches.__enter__()
        return self

    def __exit__(self, *given: Any) -> None:
        """Finish what was begun."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._batches.__exit__(*given)

    def _seconds(self, number: int) -> float:
        size = self.classifier.spec.preprocessing.size
        pixels = [np.zeros((size, size, 3), np.uint8)] * number
        found: list[float] = []
        for _ in range(3):  # the first also sets memory up
            start = time.perf_counter()
            self.classifier.probabilities(pixels, threads=1)
            found.append(time.perf_counter() - start)
        return min(found)

    def _run(self, pixels: Sequence[NDArray[np.uint8]], sharing: int) -> list[NDArray[np.float64]]:
        threads = max(1, self._threads // sharing)
        return list(self.classifier.probabilities(pixels, threads=threads))

    def _begin(self, upload: Upload) -> Future[NDArray[np.float64]]:
        """Read an image and hand it on to the network, without a detour by the event loop."""
        pixels = read_pixels_of(
            self.classifier.spec, upload.data, max_pixels=self.limits.max_pixels
        )
        return self._batches.submit(pixels)

    async def _answer(self, upload: Upload, top: int) -> tuple[Record, DecodeError | None]:
        loop = asyncio.get_running_loop()
        try:
            begun = await loop.run_in_executor(self._decoders, self._begin, upload)
        except DecodeError as error:
            refused = self.classifier.refused(f"{error.reason} ({error.detail})")
            return {"name": upload.name, **refused}, error
        row = await asyncio.wrap_future(begun)
        return {"name": upload.name, **self.classifier.answer(row, top=top)}, None

    async def predict(self, uploads: Sequence[Upload], top: int) -> Record:
        """The answers for the images of a request, in their order.

        A single image that cannot be used is refused: 413 when it has too many pixels, 400
        otherwise. Of several the others are answered, and its own record says what is wrong.
        """
        found = await asyncio.gather(*(self._answer(upload, top) for upload in uploads))
        if len(found) == 1 and found[0][1] is not None:
            record, error = found[0]
            status = 413 if error is not None and error.reason == "oversized" else 400
            raise HTTPException(status, f"image: {record['error']}")
        self.num_answered += len(found)
        return {"predictions": [record for record, _ in found]}


def make_service(service: Service, card: Record, hosts: Sequence[str] = HOSTS) -> Starlette:
    """The application: POST /predict, GET /health, /card and /openapi.json.

    `hosts` are the names under which it may be asked, see `Guard`.
    """
    limits = service.limits
    described = document(service.classifier.spec.classes, limits.max_bytes, limits.max_images)

    async def predict(request: Request) -> Response:
        if service.num_busy >= limits.max_requests:
            raise HTTPException(
                503,
                f"busy: more than {limits.max_requests} requests at a time; try again",
                {"Retry-After": str(RETRY_S)},
            )
        service.num_busy += 1
        try:
            top = _top(request.query_params.get("top"), len(service.classifier.spec.classes))
            uploads = await read_uploads(
                request, max_bytes=limits.max_bytes, max_images=limits.max_images
            )
            return JSONResponse(await service.predict(uploads, top))
        except asyncio.CancelledError:  # by a server that ends and has waited long enough
            raise HTTPException(503, "stopping: the server ends") from None
        finally:
            service.num_busy -= 1

    async def health(request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "requests": service.num_busy,
                "answered": service.num_answered,
                "max_requests": limits.max_requests,
                "batch": service.batch,
            }
        )

    async def show_card(request: Request) -> Response:
        return JSONResponse(card)

    async def openapi(request: Request) -> Response:
        return JSONResponse(described)

    async def index(request: Request) -> Response:
        return JSONResponse(
            {"predict": "POST /predict", "links": ["/health", "/card", "/openapi.json"]}
        )

    return Starlette(
        routes=[
            Route("/", index),
            Route("/predict", predict, methods=["POST"]),
            Route("/health", health),
            Route("/card", show_card),
            Route("/openapi.json", openapi),
        ],
        middleware=[Middleware(Guard, policy=POLICY, hosts=tuple(hosts))],
        exception_handlers={HTTPException: refusal, Exception: _failure},
    )


def _top(given: str | None, num_classes: int) -> int:
    if given is None:
        return min(DEFAULT_TOP, num_classes)
    number = whole_number(given)
    if number is None:
        raise HTTPException(400, f"top: expected a whole number from 1, got {given!r:.40}")
    try:
        check_number("top", number, LIMITS["top"])
    except InputError as error:
        raise HTTPException(400, str(error)) from None
    return min(number, num_classes)


async def _failure(request: Request, error: Exception) -> Response:
    # Starlette prints the traceback, after this is sent; it is nobody's business outside.
    return JSONResponse({"error": "the server failed; its log says why"}, status_code=500)
