"""Which options each command shows first, under Basics, and an example of each command."""

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

# What follows `secateurs` on a command line; `photos` is a folder of images.
EXAMPLES: Mapping[str, str] = {
    "study": "study photos --out studies/photos --max-mb 5",
    "sweep": "sweep photos --backbone mobilenet_v2 --depths 4,8,12",
    "search": "search photos --method halving --trials 12",
    "train": "train photos --backbone mobilenet_v2 --epochs 10",
    "prune": "prune studies/photos/unpruned photos --macs 0.5 --recovery-epochs 10",
    "grid": "grid models/photos photos --angles-deg 10,15,20",
    "evaluate": "evaluate studies/photos photos --side test",
    "explore": "explore studies/photos --open",
    "export": "export studies/photos photos --out photos.onnx",
    "probe": "probe photos --backbones squeezenet1_1,mobilenet_v2",
    "show": "show photos --rotation-deg 10 --num-images 6",
    "compare": "compare models/photos models/half photos",
    "trust": "trust studies/photos photos --target 0.9",
    "predict": "predict studies/photos photos --top 1 --out answers.csv",
    "serve": "serve studies/photos --port 8080",
    "paper": "paper photos --no-search --runs 2",
    "audit": "audit photos --group-by '^(\\d+)_'",
    "faces": "faces --out images/faces",
    "report": "report studies/photos",
    "results": "results studies/photos --table trials --format csv",
}
