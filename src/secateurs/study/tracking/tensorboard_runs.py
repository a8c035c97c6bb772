"""Entries as TensorBoard runs: one folder per entry, `tensorboard --logdir DIR/tensorboard`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.files import write_text
from secateurs.study.tracking.entry import Entry, one_at_a_time

KEY = "key.txt"


@dataclass(frozen=True)
class TensorBoardLog:
    """Runs under `folder`, one subfolder each with curves, metrics and hyperparameters."""

    folder: Path

    def check(self) -> None:
        """A folder of the study's own needs no check."""

    def write(self, entry: Entry) -> bool:
        """Write an entry beside its place, then move it there; False when it is there already."""
        place = self.folder / entry.name.replace(" ", "-")
        with one_at_a_time(self.folder):
            if (place / KEY).exists() and (place / KEY).read_text(encoding="utf-8") == entry.key:
                return False
            beside = self.folder / f".{place.name}"
            shutil.rmtree(beside, ignore_errors=True)
            _write(entry, beside)
            write_text(beside / KEY, entry.key)
            shutil.rmtree(place, ignore_errors=True)
            beside.rename(place)
        return True


def _write(entry: Entry, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    # A metric that hyperparameters are compared by must not have the name of a curve.
    with SummaryWriter(str(folder)) as writer:
        for name, values in entry.curves.items():
            for epoch, value in enumerate(values, start=1):
                writer.add_scalar(name, value, epoch)
        writer.add_hparams(
            {name: _plain(value) for name, value in entry.parameters.items()},
            dict(entry.metrics),
            run_name=".",
        )


def _plain(value: Any) -> bool | int | float | str:
    # TensorBoard's hyperparameters know nothing of null.
    return value if isinstance(value, bool | int | float | str) else str(value)
