"""How far the answers of one network are from another's on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax


@dataclass(frozen=True)
class Agreement:
    """Logits compared with a reference's.

    `share` of images with the same answer, 0..1; `divergence`, the mean Kullback-Leibler divergence
    from the reference's probabilities, in nats; `largest`, the largest difference of a logit.
    """

    share: float
    divergence: float
    largest: float


def agreement(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> Agreement:
    """Compare logits (images, classes) with those of a reference; not finite counts as infinite.

    >>> same = np.array([[2.0, 1.0]], np.float32)
    >>> agreement(same, same)
    Agreement(share=1.0, divergence=0.0, largest=0.0)
    """
    if not np.isfinite(logits).all():
        return Agreement(0.0, float("inf"), float("inf"))
    own, wanted = (log_softmax(one.astype(np.float64), axis=1) for one in (logits, reference))
    divergence = (np.exp(wanted) * (wanted - own)).sum(1).mean()
    return Agreement(
        float((logits.argmax(1) == reference.argmax(1)).mean()),
        max(0.0, float(divergence)),
        float(np.abs(logits.astype(np.float64) - reference).max()),
    )
