"""Where a study keeps its trials, and who may work on which of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from secateurs.errors import InputError
from secateurs.files import atomic_path
from secateurs.fit.tensors import DamagedError, read_checked, write_checked
from secateurs.leases import leased
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.records.checksummed import read_sealed
from secateurs.study.records.kinds import is_trial
from secateurs.study.records.waiting import WAIT_S as WAIT_S
from secateurs.study.records.waiting import held


@dataclass(frozen=True)
class Store:
    """Where a study keeps its trials: `trials/KEY.json`, weights and unfinished states beside."""

    root: Path

    def record(self, key: str) -> Path:
        """The file of a finished trial."""
        return self.root / "trials" / f"{key}.json"

    def state(self, key: str) -> Path:
        """The state of an unfinished one."""
        return self.root / "trials" / f"{key}.state.safetensors"

    def weights(self, key: str) -> Path:
        """The trained network of a trial that leads its depth."""
        return self.root / "trials" / f"{key}.weights.safetensors"

    def has_weights(self, key: str) -> bool:
        """Whether the trained network of a trial is there; removes it when it is damaged."""
        try:
            read_checked(self.weights(key))
        except DamagedError:
            self.weights(key).unlink(missing_ok=True)
            return False
        except OSError:
            return False
        return True

    def lease(self, key: str) -> Path:
        """The file by which other machines see that a trial is being computed."""
        return self.root / "trials" / f"{key}.lease"

    def log(self, key: str) -> Path:
        """What a trial that ran elsewhere said, and each of its attempts."""
        return self.root / "trials" / f"{key}.log"

    @contextmanager
    def claim(self, name: str) -> Generator[bool]:
        """Hold `name` (a trial's key) for this process; gives False when another one has it.

        On one machine the system frees it when its holder ends in whatever way, so that nothing
        stays claimed; between machines a lease does, which its holder renews. The files go when the
        work is done; whoever has opened them meanwhile finds the work done too.
        """
        lock = FileLock(self.root / "trials" / f"{name}.lock")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            with leased(self.lease(name)) as mine:
                yield mine
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                Path(lock.lock_file).unlink()
        finally:
            lock.release()

    def tidy(self) -> None:
        """Remove the locks and unfinished states of trials that a killed process had finished."""
        for kind in (".lock", ".lease", ".state.safetensors"):
            for path in (self.root / "trials").glob(f"*{kind}"):
                if self.read(path.name.removesuffix(kind)) is not None:
                    with contextlib.suppress(OSError):
                        path.unlink()

    @contextmanager
    def wait_for(
        self, name: str, stop: StopFlag, *, progress: Progress = SILENT
    ) -> Generator[None]:
        """Hold `name` for this process as soon as no other does; StopRequested when asked to."""
        lock = self.root / "trials" / f"{name}.lock"
        with held(lock, name, stop=stop, progress=progress):
            while True:  # between machines a lease decides
                with leased(self.lease(name)) as mine:
                    if mine:
                        yield
                        return
                stop.check()
                time.sleep(WAIT_S)

    def read(self, key: str) -> dict[str, Any] | None:
        """A finished trial's record; None when there is none, or it is damaged."""
        record = read_sealed(self.record(key))
        return record if record and record.get("key") == key and is_trial(record) else None


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a network's state, whole or not at all."""
    _write(_state_on_cpu(model), path)


def _state_on_cpu(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _write(state: dict[str, torch.Tensor], path: Path) -> None:
    with atomic_path(path) as temporary:
        write_checked(state, temporary)


class WeightsWriter:
    """Networks beside the records of a store, written while the next trial is on a graphics card.

    One at a time, so that at most one is held in memory. A CPU is busy with the next trial: there
    each is written at once. Leaving the block waits for the last; an error of writing, such as a
    full disk, is raised by the next call or on leaving.
    """

    def __init__(self, store: Store, *, writes_at_once_on: tuple[str, ...] = ("cpu",)) -> None:
        self._store, self._at_once = store, writes_at_once_on
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="secateurs-weights")
        self._pending: tuple[str, Future[None]] | None = None

    def __enter__(self) -> WeightsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown()

    def wait(self) -> None:
        """Return when everything is written."""
        if self._pending is not None:
            (_, writing), self._pending = self._pending, None
            writing.result()

    def save(self, model: torch.nn.Module, key: str) -> None:
        """Write a trial's network; it may be changed as soon as this returns."""
        self.wait()
        path = self._store.weights(key)
        device = next((p.device.type for p in model.parameters()), "cpu")
        if device in self._at_once:
            save_weights(model, path)
            return
        state = _state_on_cpu(model)
        if device == "cpu":  # else it is a copy
            state = {name: tensor.clone() for name, tensor in state.items()}
        self._pending = key, self._pool.submit(_write, state, path)

    def remove(self, key: str) -> None:
        """Delete a trial's network, should there be one."""
        if self._pending is not None and self._pending[0] == key:
            self.wait()
        self._store.weights(key).unlink(missing_ok=True)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Read a network's state back into a model of the same shape."""
    try:
        model.load_state_dict(read_checked(path)[0])
    except (DamagedError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: not this network's weights ({error}); delete it") from None
