from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
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


@pytest.fixture(scope="session")
def browser() -> Generator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None and os.environ.get("SECATEURS_REQUIRE_BROWSER"):
        pytest.fail("chromium is not installed, and SECATEURS_REQUIRE_BROWSER asks for it")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=path,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()
