"""The images of a request: its whole body, or the files of a form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from secateurs.serve.bodies import kind_of, read_body

FORM = "multipart/form-data"
BYTES = "application/octet-stream"


@dataclass(frozen=True)
class Upload:
    """The bytes of an image file and the name that its sender gave, empty for a whole body."""

    name: str
    data: bytes


async def read_uploads(request: Request, *, max_bytes: int, max_images: int) -> list[Upload]:
    """All images of a request.

    A body of the type image/... or application/octet-stream is one image, and multipart/form-data
    holds one in each file, whatever the fields are called. Raises HTTPException: 415 for another
    type, 413 for too many bytes or images, 408 for a slow body, 400 for a broken or an empty form.
    """
    kind = kind_of(request)
    if kind != FORM:
        if kind != BYTES and not kind.startswith("image/"):
            raise HTTPException(415, f"content-type: expected image/..., {BYTES} or {FORM}")
        return [Upload("", await read_body(request, max_bytes))]
    body = await read_body(request, max_bytes)

    async def stream() -> AsyncGenerator[bytes]:
        yield body

    parser = MultiPartParser(
        request.headers, stream(), max_files=max_images + 1, max_fields=max_images + 1
    )
    parser.spool_max_size = max_bytes + 1  # in memory: the body is there already
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise HTTPException(413, _too_many(max_images)) from None
        raise HTTPException(400, f"form: {error.message}") from None
    # The parser of the form raises what it meets in a header that is none.
    except (ValueError, KeyError, LookupError) as error:
        raise HTTPException(400, f"form: damaged ({type(error).__name__})") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "form: no file in it; send one as image=@FILE")
        if len(files) > max_images:
            raise HTTPException(413, _too_many(max_images))
        return [Upload(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()


def _too_many(max_images: int) -> str:
    return f"form: more than the limit of {max_images} images"
