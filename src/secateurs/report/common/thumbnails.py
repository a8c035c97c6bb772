"""Small pictures below a results directory, embedded in a page."""

from __future__ import annotations

import base64
from pathlib import Path

from secateurs.files import read_regular

MAX_BYTES = 1_000_000


def thumbnail(study_dir: Path, name: str | None) -> str:
    """An image below `study_dir` as a data: address; empty when it cannot be shown.

    Only JPEG, PNG and WebP files up to 1 MB that lie below the directory are taken: the name
    comes from a file, and pages are shared.
    """
    if not name:
        return ""
    try:
        path = (study_dir / name).resolve()
        if not path.is_relative_to(study_dir.resolve()) or path.stat().st_size > MAX_BYTES:
            return ""
        content = read_regular(path, max_bytes=MAX_BYTES)
    except (OSError, ValueError):
        return ""
    kind = _kind(content)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}" if kind else ""


def _kind(content: bytes) -> str:
    """The media type by the first bytes, empty for any other content."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ""
