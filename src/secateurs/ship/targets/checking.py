"""A written file compared with PyTorch on real images, in its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.ship.export import TOLERANCE, rounding
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
    most = max(TOLERANCE, rounding(network, images))
    # Written so that NaN fails, too.
    if not largest <= most:
        raise RuntimeError(
            f"{path}: its answers differ from PyTorch's by {largest:.3g}, at most {most:.3g} is "
            "allowed; not written"
        )
    return largest


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters.

    >>> first_line(ValueError("one\\ntwo"))
    'one'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
