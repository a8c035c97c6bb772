from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The helpers of browser tests are those of the report's.
sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", autouse=True)
def _large_steps(large_steps: None) -> None:
    pass
