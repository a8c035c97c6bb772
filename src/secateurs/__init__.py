"""Secateurs: fine-tune the right number of layers, prune by angles, ship a measured classifier.

>>> import secateurs
>>> secateurs.parse_depths("0-2")
(0, 1, 2)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where each public name lives; importing the package alone loads none of it.
_HOMES = {
    "audit": "data.audit",
    "scan": "data.scan",
    "make_split": "data.splits",
    "leakage": "data.splits",
    "write_faces": "data.faces",
    "views": "data.views",
    "build": "nets.backbones",
    "freeze": "nets.depth",
    "split_at": "nets.depth",
    "load_pretrained": "nets.weights",
    "FitConfig": "fit.train",
    "evaluate": "fit.metrics",
    "similar_pairs": "prune.angles",
    "pairwise": "prune.selection",
    "prune_layer": "prune.pipeline",
    "prune_layers": "prune.pipeline",
    "PruneOptions": "prune.pipeline",
    "remove_units": "prune.removal",
    "save": "ship.checkpoint",
    "load": "ship.checkpoint",
    "ModelSpec": "ship.spec",
    "describe": "ship.spec",
    "export_onnx": "ship.export",
    "StudyConfig": "study.config",
    "from_preset": "study.config",
    "parse_depths": "study.config",
    "run_study": "study.study",
    "train_model": "study.single",
    "evaluate_saved": "study.evaluate",
    "prune_saved": "study.single",
    "Budget": "study.whole",
    "prune_whole": "study.whole",
    "RecoveryOptions": "study.recovery",
    "shrink_saved": "study.shrink",
    "export_saved": "study.single",
    "predict_saved": "study.predict",
    "write_report": "report.page",
    "load_results": "report.schema",
    "InputError": "errors",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
    value = getattr(import_module(f"secateurs.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
