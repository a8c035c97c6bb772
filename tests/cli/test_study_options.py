"""What the options of `study` become."""

from __future__ import annotations

import pytest

from secateurs.cli.study import frontier_options
from secateurs.errors import InputError
from secateurs.study.frontier.options import FrontierOptions


def options_with(calibration: int, reconstruction: str) -> FrontierOptions:
    return frontier_options(
        "quick",
        "auto",
        None,
        max_mb=None,
        max_ms=None,
        batch=1,
        loss=None,
        refit="all",
        scratch_runs=None,
        calibration=calibration,
        reconstruction=reconstruction,
    )


def test_what_pruning_measures_and_tunes():
    made = options_with(128, "blocks")
    assert (made.calibration, made.reconstruction) == (128, "blocks")
    every = options_with(0, "off")
    assert (every.calibration, every.reconstruction) == (None, None)
    assert options_with(256, "blocks") == FrontierOptions()


def test_another_reconstruction_is_refused():
    with pytest.raises(InputError, match="--reconstruction: expected blocks or off, got 'layers'"):
        options_with(256, "layers")
