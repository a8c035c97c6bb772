"""The study that the tests of this folder share, in words for Python and for a shell."""

from __future__ import annotations

from typing import Any

from secateurs.study.setup.config import StudyConfig

# A narrow one (see `narrow`); random weights, because tests have no others.
BACKBONE = "alexnet"
CONFIG = StudyConfig(
    backbone=BACKBONE,
    weights="none",
    group_by=r"^(\d+)_",
    depths=(5, 7),
    runs=2,
    epochs=2,
    views=1,
    batch_size=8,
    lr=1e-3,
    precision="float32",
    image_size=64,
    layers=("fc6",),
    rule="pairwise",
    low_deg=8.0,
)
WORDS = [
    *("--backbone", BACKBONE, "--weights", "none", "--group-by", r"^(\d+)_"),
    *("--depths", "5,7", "--runs", "2", "--epochs", "2", "--views", "1"),
    *("--batch-size", "8", "--lr", "0.001", "--precision", "float32", "--image-size", "64"),
    *("--layers", "fc6", "--low-deg", "8"),
]


def without_clock(results: Any) -> Any:
    """Results less what is measured with a clock, as `docs/results.md` says."""
    if isinstance(results, dict):
        return {
            key: without_clock(value)
            for key, value in results.items()
            if key not in ("timing", "latency", "sentence")
        }
    if isinstance(results, list):
        return [without_clock(value) for value in results]
    return results
