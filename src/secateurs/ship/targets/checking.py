"""A written file compared with PyTorch on real images, in its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.ship.export import TOLERANCE, allowed
from secateurs.ship.targets.target import Images, Logits


def cpu_images(example: Tensor) -> Tensor:
    """Example images as every runtime takes them: float32 on the CPU."""
    return example.detach().cpu().float()


def checked(
    run: Callable[[Images], Logits],
    network: nn.Module,
    images: Tensor,
    path: Path,
    *,
    batches: tuple[int, ...] | None = None,
) -> float:
    """The largest difference of a logit from the network's, at batch sizes 1 and all.

    Raises RuntimeError when it is more than 1e-4, or than rounding where logits are large.
    """
    largest = 0.0
    for batch in batches or tuple(dict.fromkeys((len(images), 1))):
        for part in images.split(batch):
            with torch.no_grad():
                expected = network(part).numpy()
            # np.maximum, unlike max, keeps NaN.
            largest = float(np.maximum(largest, np.abs(run(part.numpy()) - expected).max()))
    most = allowed(network, images, largest, TOLERANCE)
    # Written so that NaN fails, too.
    if not largest <= most:
        raise RuntimeError(
            f"{path}: its answers differ from PyTorch's by {largest:.3g}, at most {most:.3g} is "
            "allowed; not written"
        )
    return largest


def on_threads(run: Callable[[Images], Logits]) -> Callable[[Images, int], Logits]:
    """What runs a PyTorch program on so many threads; each calling thread has its own number."""

    def run_on(images: Images, threads: int) -> Logits:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return run(images)
        finally:
            torch.set_num_threads(before)

    return run_on
