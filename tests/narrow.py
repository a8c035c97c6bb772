"""AlexNet with few units per layer: studies and the paper's experiments in seconds."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torchvision import models

from secateurs.fit.cache import PrefixCache
from secateurs.nets import backbones, stock
from secateurs.ship import checkpoint, spec
from secateurs.stopping import StopFlag
from secateurs.study.setup.config import from_json
from secateurs.study.setup.trial_context import open_context
from secateurs.study.sweep.sweep import run_sweep
from secateurs.study.trials.store import Store

sys.path.append(str(Path(__file__).parent.parent / "benchmarks" / "campaign"))

from narrow_alexnet import LINEAR as LINEAR
from narrow_alexnet import narrow_alexnet

# First lines of a program for another process in which every AlexNet is narrow.
IN_ANOTHER_PROCESS = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    "from narrow import narrow_alexnet\n"
    "from torchvision import models\n"
    "models.get_model = narrow_alexnet\n"
)


@contextmanager
def narrowed() -> Generator[None]:
    """Every AlexNet is a narrow one meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "get_model", narrow_alexnet)
        patch.setattr(stock, "_TRACES", {})
        _forget()
        yield
    _forget()


def _forget() -> None:
    """The next network without values is built anew."""
    backbones.bare.cache_clear()
    stock.bare_stock.cache_clear()
    spec._bare_opened.cache_clear()
    checkpoint._known_to_run.clear()


def sweep_narrow(data: str, config: dict[str, Any], out: Path, cache: Path, finished: Path) -> None:
    """A sweep in this process; the key of each trial that it ends is a line of `finished`."""
    with narrowed(), finished.open("w", buffering=1) as log:
        run_sweep(
            open_context(data, from_json(config), cache=cache),
            Store(out),
            prefix_cache=PrefixCache(),
            stop=StopFlag(),
            on_trial=lambda record: print(record["key"], file=log),
        )
