"""Orders of images that do not depend on how they lie in the folder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateurs.data.views import counter_uniforms
from secateurs.fit.images import Images

ORDER_DRAW = 2**32 - 2  # a number of no epoch, so that no view shares these draws


def stratified_order(images: Images, *, seed: int) -> NDArray[np.int64]:
    """Rows (n,) of `images` shuffled so that every stretch has its share of each class.

    A pure function of the seed, the content ids and the labels: images listed in another order come
    in the same order. Statistics of batches cut from a folder's own order, class by class, would be
    those of one class each.
    """
    draws = counter_uniforms(seed, ORDER_DRAW, images.ids, 2)  # (n, 2)
    place = np.empty(len(images), dtype=np.float64)
    for label in np.unique(images.labels):
        rows = np.nonzero(images.labels == label)[0]
        rows = rows[np.lexsort((images.ids[rows], draws[rows, 0]))]
        # Evenly spaced in 0..1, a little moved so that classes of one size do not come in blocks.
        place[rows] = (np.arange(len(rows)) + draws[rows, 1]) / len(rows)
    return np.lexsort((images.ids, place))
