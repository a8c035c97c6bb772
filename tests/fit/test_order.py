from __future__ import annotations

import numpy as np

from secateurs.fit.images import Images
from secateurs.fit.order import stratified_order


def folder(labels: list[int], seed: int = 0) -> Images:
    num = len(labels)
    ids = np.random.default_rng(seed).integers(0, 2**63, num).astype(np.uint64)
    pixels = np.zeros((num, 2, 2, 3), dtype=np.uint8)
    sizes = np.ones((num, 2), dtype=np.int64)
    return Images(pixels, pixels, ids, sizes, np.array(labels), (0.0,) * 3, (1.0,) * 3)


def test_every_stretch_has_its_share_of_each_class():
    images = folder([0] * 60 + [1] * 30 + [2] * 10)
    order = stratified_order(images, seed=0)
    assert sorted(order.tolist()) == list(range(100))
    for first in range(0, 100, 20):
        counts = np.bincount(images.labels[order[first : first + 20]], minlength=3)
        assert np.abs(counts - [12, 6, 2]).max() <= 2


def test_the_order_does_not_depend_on_the_order_of_the_folder():
    images = folder([0] * 20 + [1] * 13)
    shuffled = images.take(np.random.default_rng(1).permutation(33))
    one, other = stratified_order(images, seed=3), stratified_order(shuffled, seed=3)
    assert np.array_equal(images.ids[one], shuffled.ids[other])
    assert not np.array_equal(one, stratified_order(images, seed=4))


def test_a_class_of_one_image_and_a_single_class_are_no_error():
    assert stratified_order(folder([0, 0, 0, 1]), seed=0).shape == (4,)
    assert stratified_order(folder([0]), seed=0).tolist() == [0]
