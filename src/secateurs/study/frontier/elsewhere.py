"""Sizes of a frontier as tasks of an executor: a network goes there, pruned networks come back."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateurs.files import atomic_path, fingerprint, write_text
from secateurs.leftovers import SUFFIX, sweep, temporary_prefix
from secateurs.progress import SILENT, Progress
from secateurs.prune.request import Budget
from secateurs.stopping import StopFlag
from secateurs.study.frontier.points import Place, Record
from secateurs.study.frontier.shrink import Shrinking, Size
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.trials.contents import Content, content_of
from secateurs.study.trials.engine import on_cards
from secateurs.study.trials.package import Packer
from secateurs.study.trials.task import Executor, Task, Tensors
from secateurs.study.trials.worker import Host

UNPRUNED = "unpruned"


@dataclass(frozen=True)
class PrunedSize:
    """A network to prune to a size: all that decides the numbers of the point in `place`."""

    context: TrialContext
    unpruned: Place
    place: Place
    size: Size
    recovery: RecoveryOptions
    calibration: int | None
    reconstruction: str | None

    @property
    def name(self) -> str:
        """What progress calls it."""
        return f"{self.context.config.backbone} to {self.size.short}"

    @property
    def state(self) -> Path:
        """Where an interrupted recovery leaves its state."""
        return self.place.root / "stages" / f"{self.place.name}.recovery.state.safetensors"


def prune_over(
    executor: Executor,
    wanted: Sequence[PrunedSize],
    *,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> Generator[tuple[PrunedSize, Record]]:
    """The row of each size as `Shrinking.to` gives it, its network on disk; as each one ends.

    A network that is lost on its way is left out. Raises StopRequested when asked to stop, and
    InputError when a task is lost too often.
    """
    if not wanted:
        return
    packer = Packer(wanted[0].context.cache / "contents")
    by_key = {one.place.name: one for one in wanted}
    tasks = (_task(one, executor, packer) for one in wanted)
    with closing(executor.run(tasks, stop=stop, progress=progress)) as running:
        for task, answer in running:
            one, row = by_key[task.key], answer.record["row"]
            write_text(one.state.with_name(f"{one.place.name}.log"), "\n".join(answer.log) + "\n")
            tensors = answer.tensors()
            if "reason" not in row:
                if not tensors:
                    continue
                for path in one.place.files:
                    with atomic_path(path) as temporary:
                        temporary.write_bytes(tensors[path.name].numpy().tobytes())
            one.state.unlink(missing_ok=True)
            row["timing"] = {"seconds": answer.record["seconds"], **answer.place.to_json()}
            yield one, row


def _task(one: PrunedSize, executor: Executor, packer: Packer) -> Task:
    package = packer.pack(on_cards(one.context, executor))
    files = {path.name: content_of(path) for path in one.unpruned.files}
    arguments: dict[str, Any] = {
        "package": package.plain,
        "network": {name: file.to_json() for name, file in files.items()},
        "point": one.place.name,
        "size": asdict(one.size),
        "recovery": asdict(one.recovery),
        "calibration": one.calibration,
        "reconstruction": one.reconstruction,
        "state": str(one.state),
    }
    function = f"{__name__}:prune_there"
    return Task(one.place.name, one.name, function, arguments, (*package.files, *files.values()))


def prune_there(arguments: dict[str, Any], host: Host) -> tuple[Record, Tensors]:
    """The task of one size: its row, and the bytes of both files of the network."""
    started = time.perf_counter()
    setting = host.setting(arguments["package"])
    size = Size(**arguments["size"] | {"budget": Budget(**arguments["size"]["budget"])})
    host.cache.mkdir(parents=True, exist_ok=True)
    sweep(host.cache, deep=False, unnamed=False)
    with tempfile.TemporaryDirectory(
        prefix=temporary_prefix("size"), suffix=SUFFIX, dir=host.cache
    ) as folder:
        root = Path(folder)
        (root / UNPRUNED).mkdir()
        for name, file in arguments["network"].items():
            shutil.copyfile(host.contents.path(Content(**file)), root / UNPRUNED / name)
        place = Place(root, arguments["point"])
        with host.progress.task(f"{setting.config.backbone} to {size.short}", 1) as advance:
            network = Shrinking(
                setting,
                root / UNPRUNED,
                num_images=arguments["calibration"],
                reconstruction=arguments["reconstruction"],
                stop=host.stop,
                progress=host.progress,
            )
            state = Path(arguments["state"])
            if host.states is not None:  # there it lies beside those of other studies
                decides = {name: value for name, value in arguments.items() if name != "state"}
                state = host.state(Path(f"{fingerprint(decides)}.state.safetensors"))
            host.unfinished = None  # what is left of a recovery stays on its node
            recovery = RecoveryOptions(**arguments["recovery"])
            row = network.to(size, place, recovery, state_file=state)
            advance(1)
        kept = () if "reason" in row else place.files
        tensors = {path.name: torch.from_numpy(np.fromfile(path, np.uint8)) for path in kept}
    return {"row": row, "seconds": time.perf_counter() - started}, tensors
