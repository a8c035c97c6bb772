from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

# What the tests of this folder share.
sys.path.insert(0, str(Path(__file__).parent))

from example_results import example_results


@pytest.fixture
def study_dir(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture
def results(study_dir: Path) -> dict[str, Any]:
    study_dir.mkdir()
    return example_results(study_dir)


@pytest.fixture
def without_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave Plotly out of the pages where a test is about other things."""
    monkeypatch.setattr("secateurs.report.common.render.packed_plotly", lambda: "")
