"""Ranges of activations from calibration images, by ONNX Runtime's calibrators."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.ship.int8.operators import operator_types
from secateurs.ship.int8.quiet import quiet

BATCH = 8


@dataclass(frozen=True)
class Calibrator:
    """A rule for the range of an activation: a method of ONNX Runtime with its options."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)


# A percentile cuts off single large values; a moving average of the batches' extremes, milder.
CALIBRATORS = (
    Calibrator("min-max", "MinMax"),
    Calibrator("mean min-max", "MinMax", {"moving_average": True, "averaging_constant": 0.25}),
    Calibrator("percentile 99.99", "Percentile", {"percentile": 99.99, "symmetric": False}),
    Calibrator("percentile 99.9", "Percentile", {"percentile": 99.9, "symmetric": False}),
    Calibrator("entropy", "Entropy"),
)


def activation_ranges(
    model: Any,
    images: NDArray[np.float32],
    calibrator: Calibrator,
    *,
    scratch: Path | None = None,
) -> Any:
    """Ranges of all activations of an ONNX model on images (n, 3, h, w), by their names.

    The images are run in small batches, since the calibrators keep every activation of a batch in
    memory. They read files: those are written to `scratch` and removed, else the system's folder.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory(dir=scratch) as folder, quiet():
        source = Path(folder) / "float32.onnx"
        onnx.save(model, source)
        collector: Any = create_calibrator(
            source,
            operator_types(),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=getattr(CalibrationMethod, calibrator.method),
            extra_options=dict(calibrator.options),
        )
        name = model.graph.input[0].name
        for first in range(0, len(images), BATCH):
            collector.collect_data(_Reader(name, [images[first : first + BATCH]]))
        return collector.compute_data()


class _Reader:
    """What ONNX Runtime's calibrators read batches from."""

    def __init__(self, name: str, batches: Sequence[NDArray[np.float32]]) -> None:
        self._left = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, or None at the end."""
        return next(self._left, None)
