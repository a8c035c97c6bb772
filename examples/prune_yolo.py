"""Prune YOLO networks of ultralytics, which you have installed (AGPL-3.0; no part of Secateurs).

    python examples/prune_yolo.py yolov8n.yaml yolo11n.yaml   # random weights
    python examples/prune_yolo.py yolov8n.pt --images folder  # your weights and your images

Each is pruned to half of its multiply-accumulates, saved, and read back into a network that
ultralytics builds. Train the pruned network on, with your own loop, before you use it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import secateurs


def build(name: str) -> nn.Module:
    """A detector from a configuration (.yaml) or from weights (.pt)."""
    from ultralytics import YOLO

    return YOLO(name).model.float().eval()


def load_images(folder: Path | None, size: int) -> Tensor:
    """Images (samples, 3, size, size) in 0..1; noise where there is no folder."""
    if folder is None:
        return torch.rand(32, 3, size, size)
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return torch.stack(
        [to_tensor(Image.open(p).convert("RGB").resize((size, size))) for p in paths[:256]]
    )


def main() -> None:
    """Prune each, and say what was left and what was not pruned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    loader = load_images(given.images, given.size).split(16)
    for name in given.names:
        torch.manual_seed(0)
        model, started = build(name), time.perf_counter()
        small = secateurs.prune(
            model, loader, secateurs.Budget(macs=0.5), forward=lambda net, images: net(images)
        )
        print(f"{name}: {small} ({time.perf_counter() - started:.0f} s)")
        for left in small.not_pruned:
            print(f"  not pruned: {left.name}: {left.reason}")
        path = Path(f"{Path(name).stem}.safetensors")
        small.save(path)
        again = secateurs.load_weights(build(name), path)
        weights = again.state_dict()
        same = all(torch.equal(v, weights[key]) for key, v in small.model.state_dict().items())
        print(f"  {path}: {'came back bit for bit' if same else 'DIFFERS'}")


if __name__ == "__main__":
    main()
