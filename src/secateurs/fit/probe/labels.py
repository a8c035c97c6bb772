"""Labels that are improbable by classifiers that were fitted without the image's group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError


@dataclass(frozen=True)
class LabelScan:
    """Images by how probable their label is.

    `own` (images,) is the probability of the given label, `suggested` (images,) the most probable
    class and `suggested_probability` its probability. `order` has all images, the least probable
    label first, and the first `num_flagged` of them are flagged. `thresholds` (classes,) are the
    mean probabilities of each class over the images that have it; NaN for a class without images.
    """

    own: NDArray[np.float64]
    suggested: NDArray[np.int64]
    suggested_probability: NDArray[np.float64]
    order: NDArray[np.int64]
    num_flagged: int
    thresholds: NDArray[np.float64]

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Which images (images,) are flagged."""
        found = np.zeros(len(self.own), dtype=bool)
        found[self.order[: self.num_flagged]] = True
        return found


def scan_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> LabelScan:
    """Rank images by the probability of their label, and flag as many as confident learning finds.

    `probabilities` (images, classes) must be out of sample. Confident learning (Northcutt et al.
    2021, equation 1) counts an image as of the most probable class among those whose probability
    reaches the class's threshold, the mean over the images labelled so; the images that it counts
    under another class than their label are the estimate of the number of label errors. Which
    images are flagged is decided by the probability of the label alone, which finds more of the
    errors than the counted images themselves. Raises InputError for shapes that do not agree.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
    >>> found = scan_labels(p, np.array([0, 0, 1, 1, 1]))
    >>> found.order[: found.num_flagged].tolist(), found.suggested[4].item()
    ([4], 0)
    """
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or len(labels) == 0:
        raise InputError(
            f"probabilities must be ({len(labels)} images, classes), got {probabilities.shape}"
        )
    num, num_classes = probabilities.shape
    own = probabilities[np.arange(num), labels]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    thresholds = np.full(num_classes, np.nan)
    np.divide(sums, counts, out=thresholds, where=counts > 0)
    reached = probabilities >= np.where(counts > 0, thresholds, np.inf)
    confident = np.where(reached, probabilities, -1).argmax(1)
    num_flagged = int((reached.any(1) & (confident != labels)).sum())
    suggested = probabilities.argmax(1)
    return LabelScan(
        own=own,
        suggested=suggested,
        suggested_probability=probabilities[np.arange(num), suggested],
        order=np.lexsort((np.arange(num), own)),
        num_flagged=num_flagged,
        thresholds=thresholds,
    )
