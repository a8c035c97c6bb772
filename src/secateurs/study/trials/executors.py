"""Executors by the words of `--executor`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.limits import whole_number
from secateurs.progress import SILENT, Progress
from secateurs.study.trials.task import Executor, Resources

KINDS = ("inline", "processes", "ray", "slurm")


@dataclass(frozen=True)
class ExecutorWords:
    """Where trials run: `kind`, and what stands behind its colon."""

    kind: str
    detail: str = ""


def parse_executor(text: str) -> ExecutorWords:
    """Words such as `inline`, `processes:4`, `ray` or `ray:10.0.0.1:6379`.

    >>> parse_executor("ray:10.0.0.1:6379")
    ExecutorWords(kind='ray', detail='10.0.0.1:6379')
    """
    kind, colon, detail = text.strip().partition(":")
    if kind not in KINDS or (colon and not detail) or (kind == "inline" and detail):
        raise InputError(
            "executor: expected inline, processes[:N], ray[:HOST:PORT] or slurm[:PARTITION], "
            f"got {text!r}"
        )
    if kind == "processes" and detail and not whole_number(detail):
        raise InputError(f"executor: processes needs a number of 1 or more, got {detail!r}")
    return ExecutorWords(kind, detail)


@contextmanager
def open_executor(
    text: str,
    resources: Resources | None = None,
    *,
    cache: Path,
    progress: Progress = SILENT,
) -> Generator[Executor | None]:
    """The executor of some words, for as long as the block runs; None for `inline`.

    With `resources` an inline trial computes with as many threads as elsewhere. Raises InputError
    for other words, for an extra that is not installed, for an address that does not answer, and
    for more than any machine has.
    """
    words = parse_executor(text)
    given = resources or Resources()
    if words.kind == "inline":
        with _threads(resources):
            yield None
    elif words.kind == "processes":
        from secateurs.study.trials.processes import open_processes

        number = int(words.detail) if words.detail else None
        with open_processes(number, given, cache) as crew:
            yield crew
    elif words.kind == "ray":
        require("ray", "executor ray")
        from secateurs.study.trials.ray.connection import open_ray

        with open_ray(words.detail, given, cache=cache, progress=progress) as crew:
            yield crew
    else:
        from secateurs.study.trials.slurm import open_slurm

        with open_slurm(words.detail, given, cache) as crew:
            yield crew


@contextmanager
def _threads(resources: Resources | None) -> Generator[None]:
    """Compute with as many threads as a trial elsewhere does: sums then have the same order."""
    if resources is None:
        yield
        return
    if resources.gpus:
        raise InputError("trial-gpus: inline takes what there is; give --executor processes or ray")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(resources.cpus)
    try:
        yield
    finally:
        torch.set_num_threads(before)
