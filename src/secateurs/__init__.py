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
    "make_split": "data.splits.split",
    "leakage": "data.splits.split",
    "write_faces": "data.faces.dataset",
    "views": "data.views",
    "build": "nets.backbones",
    "freeze": "nets.depth",
    "split_at": "nets.depth",
    "load_pretrained": "nets.weights",
    "FitConfig": "fit.train",
    "evaluate": "fit.metrics",
    "inspect": "api.inspecting",
    "PrunedModel": "api.pruning",
    "load_weights": "api.saving",
    "register": "prune.coupling.custom_layers",
    "PassThrough": "prune.coupling.custom_layers",
    "export": "api.exporting",
    "angles": "api.tools",
    "select": "api.tools",
    "compensate": "api.tools",
    "similar_pairs": "prune.similarity.angles",
    "pairwise": "prune.selection.pairwise",
    "prune_layer": "prune.layer",
    "prune_layers": "prune.layer",
    "PruneOptions": "prune.layer",
    "remove_units": "prune.surgery.removal",
    "save": "ship.checkpoint",
    "load": "ship.checkpoint",
    "ModelSpec": "ship.spec",
    "describe": "ship.spec",
    "export_onnx": "ship.export",
    "StudyConfig": "study.setup.config",
    "from_preset": "study.setup.config",
    "parse_depths": "study.setup.config",
    "run_study": "study.study",
    "run_frontier": "study.frontier.run",
    "FrontierOptions": "study.frontier.options",
    "train_model": "study.training",
    "evaluate_saved": "study.saved.evaluate_saved",
    "prune_saved": "study.pruning.saved_layers",
    "Budget": "prune.to_budget",
    "prune_whole": "study.pruning.network",
    "RecoveryOptions": "study.pruning.recovery",
    "shrink_saved": "study.pruning.saved_network",
    "export_saved": "study.saved.exporting",
    "predict_saved": "study.saved.prediction",
    "write_report": "report.study.page",
    "load_results": "report.study.schema",
    "InputError": "errors",
}
__all__ = sorted([*_HOMES, "prune"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "prune":  # the package, which can be called
        return import_module("secateurs.prune")
    if name not in _HOMES:
        raise AttributeError(f"module 'secateurs' has no attribute {name!r}")
    value = getattr(import_module(f"secateurs.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "prune"})
