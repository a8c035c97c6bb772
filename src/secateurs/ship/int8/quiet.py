"""ONNX Runtime's quantizer without its prints and remarks."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Generator


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the prints and remarks of ONNX Runtime's quantizer off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
