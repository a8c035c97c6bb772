"""Which options each command shows first, under Basics."""

from __future__ import annotations

from collections.abc import Mapping

USUAL: Mapping[str, tuple[str, ...]] = {
    "study": (
        *("out", "preset", "backbones", "max_mb", "max_ms", "max_loss", "group_by", "config"),
    ),
    "sweep": ("out", "preset", "backbone", "group_by", "depths", "runs", "epochs", "config"),
    "search": ("out", "method", "backbone", "group_by", "depth", "lr", "epochs", "config"),
    "train": ("out", "backbone", "group_by", "depth", "epochs", "lr", "config"),
    "prune": ("out", "macs", "params", "max_loss", "layers", "keep", "recovery_epochs", "config"),
    "grid": ("out", "layer", "angles_deg", "norm_stds", "rule", "config"),
    "evaluate": ("side", "split", "group_by", "config"),
    "explore": ("layer", "port", "open_browser", "config"),
    "export": ("out", "int8", "macs", "html", "config"),
    "probe": ("out", "backbones", "depths", "group_by", "config"),
    "show": ("out", "backbone", "num_images", "num_views", "rotation_deg", "min_scale", "config"),
    "compare": ("out", "side", "group_by", "config"),
    "trust": ("out", "against", "target", "save_threshold", "config"),
    "predict": ("top", "kind", "out", "config"),
    "serve": ("port", "host", "allow_host", "threshold", "config"),
    "paper": ("out", "depths", "runs", "epochs", "search", "config"),
    "audit": ("split", "group_by", "strict", "config"),
    "faces": ("out", "seed", "config"),
    "report": ("out", "config"),
    "results": ("table", "kind", "out", "config"),
}
