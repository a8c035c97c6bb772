"""All pairs of units, and sums of outer products, as tasks of an executor.

Rows of the matrix of all pairs are computed in blocks, each a task; the driver puts them one after
the other, which is what one machine computes. Outer products are summed in parts of a fixed size
and in their order, so that the sum is the same wherever the parts were computed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.errors import InputError
from secateurs.progress import SILENT, Progress
from secateurs.prune.similarity.angles import DEVICE_TILE, TILE, SimilarPairs, scan
from secateurs.prune.similarity.normalise import Normalise, directions, outside_norms
from secateurs.prune.similarity.tiles import thresholds
from secateurs.prune.statistics.gram import gram_of
from secateurs.stopping import StopFlag
from secateurs.study.trials.contents import Column, Content, map_arrays, write_arrays
from secateurs.study.trials.task import Answer, Executor, Record, Task, Tensors
from secateurs.study.trials.worker import Host

PART_ROWS = 4096  # samples of one part of a sum


@dataclass(frozen=True)
class Limits:
    """Which pairs are wanted, see `similar_pairs`."""

    low_deg: float
    high_deg: float | None = None
    normalise: Normalise = "minmax"
    norm_std: float | None = None


def pairs_over(
    executor: Executor,
    activations: NDArray[np.float32],
    limits: Limits,
    *,
    folder: Path,
    blocks: int = 8,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> SimilarPairs:
    """What `similar_pairs` gives for activations (samples, units), by tasks of some row blocks.

    A task takes `blocks` blocks of rows: one of the first, which have the longest rows, one of the
    last, and so on, so that all take about as long. The activations are written to `folder`, once.
    """
    limits_ = thresholds(limits.low_deg, limits.high_deg)
    source = directions(torch.from_numpy(activations), normalise=limits.normalise)
    candidates = source.live & outside_norms(source.norm, limits.norm_std)
    num = int(candidates.sum()) if limits_.any else 0
    step = TILE if not executor.resources.gpus else DEVICE_TILE
    tops = list(range(0, num, step)) if num > 1 else []
    file = write_arrays({"activations": Column.of(activations)}, folder)
    number = max(1, -(-len(tops) // blocks))
    shares = [_dealt(tops, at, number) for at in range(number)] if tops else []
    arguments = {"file": file.to_json(), "limits": asdict(limits), "tile": step}
    tasks = [
        _task(f"pairs-{file.sha256[:16]}-{at}", "pair_rows", arguments | {"tops": share}, file)
        for at, share in enumerate(shares)
    ]
    found: dict[int, Tensors] = {}
    for _, tensors in _answers(executor, tasks, "angles of all pairs", stop, progress):
        for name, tensor in tensors.items():
            top, part = name.split(".")
            found.setdefault(int(top), {})[part] = tensor
    parts = [found[top] for top in sorted(found)]
    nothing = torch.empty(0)
    i, j, angle = (
        torch.cat([one[name] for one in parts]) if parts else nothing for name in ("i", "j", "deg")
    )
    return SimilarPairs(
        i=i.long(),
        j=j.long(),
        angle_deg=angle.double(),
        dead=source.dead,
        constant=source.constant,
        candidates=candidates,
        norm=source.norm,
    )


def _dealt(tops: list[int], at: int, number: int) -> list[int]:
    """Every `number`-th block, forwards and backwards in turn."""
    rows = [tops[first : first + number] for first in range(0, len(tops), number)]
    turned = [row if k % 2 == 0 else row[::-1] for k, row in enumerate(rows)]
    return [row[at] for row in turned if at < len(row)]


def pair_rows(arguments: dict[str, Any], host: Host) -> tuple[Record, Tensors]:
    """The task of some blocks of rows: i, j and the angle of the pairs of each."""
    limits = Limits(**arguments["limits"])
    activations = _tensor(arguments["file"], host)
    source = directions(activations, normalise=limits.normalise)
    candidates = source.live & outside_norms(source.norm, limits.norm_std)
    units = candidates.nonzero().flatten()
    tensors: Tensors = {}
    for i, j, cosine in scan(
        source,
        units,
        thresholds(limits.low_deg, limits.high_deg),
        tile=arguments["tile"],
        tops=arguments["tops"],
    ):
        host.stop.check()
        row = int(torch.searchsorted(units, i[0]))
        top = row - row % arguments["tile"]
        parts = {"i": i, "j": j, "deg": cosine.acos_().rad2deg_()}
        tensors |= {f"{top}.{name}": part.contiguous() for name, part in parts.items()}
    return {}, tensors


def gram_over(
    executor: Executor,
    rows: NDArray[np.float64],
    *,
    folder: Path,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Tensor:
    """The sum (inputs, inputs) of the outer products of (samples, inputs) in float64, by tasks.

    With the inputs and, as last columns, the targets of a least-squares problem this is all that
    its normal equations need.
    """
    file = write_arrays({"activations": Column.of(rows.astype("<f8", copy=False))}, folder)
    starts = list(range(0, len(rows), PART_ROWS))
    tasks = [
        _task(
            f"gram-{file.sha256[:16]}-{start}",
            "gram_part",
            {"file": file.to_json(), "rows": [start, start + PART_ROWS]},
            file,
        )
        for start in starts
    ]
    keys = [task.key for task in tasks]
    found = {
        task.key: tensors["gram"]
        for task, tensors in _answers(executor, tasks, "outer products", stop, progress)
    }
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for key in keys:  # sums of floats depend on their order
        total += found[key]
    return total


def gram_part(arguments: dict[str, Any], host: Host) -> tuple[Record, Tensors]:
    """The task of some rows: the sum of their outer products."""
    first, last = arguments["rows"]
    return {}, {"gram": gram_of(_tensor(arguments["file"], host)[first:last])}


def _tensor(file: dict[str, Any], host: Host) -> Tensor:
    array = map_arrays(host.contents.path(Content(**file)))["activations"]
    return torch.from_numpy(np.array(array))  # a copy: what is mapped cannot be written


def _task(key: str, function: str, arguments: dict[str, Any], file: Content) -> Task:
    return Task(key, key, f"secateurs.study.trials.matrices:{function}", arguments, (file,))


def _answers(
    executor: Executor, tasks: list[Task], words: str, stop: StopFlag | None, progress: Progress
) -> Generator[tuple[Task, Tensors]]:
    """The tensors of every task; those that were lost with a machine are computed again."""
    left = tasks
    with progress.task(words, len(tasks)) as advance:
        while left:
            lost: list[Task] = []
            running: Iterator[tuple[Task, Answer]] = executor.run(
                iter(left), stop=stop or StopFlag(), progress=progress
            )
            for task, answer in running:
                tensors = answer.tensors()
                if tensors is None:
                    lost.append(task)
                    continue
                advance(1)
                yield task, tensors
            if len(lost) == len(left):
                raise InputError(f"{words}: all results were lost on their way; run again")
            left = lost
