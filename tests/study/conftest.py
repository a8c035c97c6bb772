from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# What the tests of this folder share.
sys.path.insert(0, str(Path(__file__).parent))

from searching import CONFIG, Trainings

from secateurs.study.search.run import run_search
from secateurs.study.setup.config import StudyConfig
from secateurs.study.trials import engine


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    fake = Trainings()
    monkeypatch.setattr(engine, "run_trial", fake)
    return fake


@pytest.fixture
def go(flags: Path, cache: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(plan: Any, config: StudyConfig = CONFIG, out: str = "out", **options: Any):
        return run_search(str(flags), config, plan, tmp_path / out, cache=cache, **options)

    return run
