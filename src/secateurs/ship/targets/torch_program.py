"""`.pt2`, a program of `torch.export`, for PyTorch without the network's source."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.ship.about import parse_about
from secateurs.ship.lacking import first_line
from secateurs.ship.program import EXTRA as EXTRA_FILE
from secateurs.ship.program import export_program
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.checking import on_threads
from secateurs.ship.targets.program_archive import check_archive
from secateurs.ship.targets.target import FileCheck, Images, Logits, OpenedFile

NAME = "PyTorch program"
ENDING = ".pt2"
EXTRA = None


def write(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    card: Mapping[str, Any] | None = None,
) -> FileCheck:
    """Write a model as a program and check it; see `Target.write`."""
    check = export_program(model, spec, path, example, card=card)
    return FileCheck(check.path, check.max_abs_difference, check.num_bytes)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep PyTorch's reader from logging what it raises as well."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def open(path: Path) -> OpenedFile:
    """Open a program that Secateurs wrote, without unpickling or code; see `Target.open`."""
    extra = {EXTRA_FILE: ""}
    check_archive(path)
    try:
        with path.open("rb") as file, _quiet():
            # Guards are texts of the file that would be compiled.
            program: Any = torch.export.load(file, extra_files=extra).module(check_guards=False)
        said = json.loads(extra[EXTRA_FILE])
    except Exception as error:  # what a damaged archive makes the reader raise is not documented
        reason = first_line(error)
        raise InputError(f"{path}: not readable as a program ({reason})") from None
    spec = parse_about(said, where=str(path))

    def run(images: Images) -> Logits:
        with torch.no_grad():
            return program(torch.from_numpy(images)).numpy()

    return OpenedFile(spec, run, on_threads(run))
