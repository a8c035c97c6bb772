from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _large_steps(large_steps: None) -> None:
    pass
