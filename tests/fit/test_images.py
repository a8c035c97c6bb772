from __future__ import annotations

import numpy as np
import pytest
import torch

from secateurs.data.views import Augmentation
from secateurs.fit import images as images_module
from secateurs.fit.images import Images

CPU = torch.device("cpu")


def some(num=6, side=9, size=8):
    rng = np.random.default_rng(0)
    return Images(
        pixels=rng.integers(0, 256, (num, side, side, 3), dtype=np.uint8),
        eval_pixels=rng.integers(0, 256, (num, size, size, 3), dtype=np.uint8),
        ids=np.arange(num, dtype=np.uint64),
        sizes=np.full((num, 2), 20),
        labels=np.arange(num) % 2,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )


@pytest.mark.parametrize("rows", [np.array([4, 0, 5]), slice(2, 5), slice(None)])
@pytest.mark.parametrize(
    "augmentation", [None, Augmentation(), Augmentation(rotation_deg=0, scale=(1, 1))]
)
def test_views_of_pixels_that_stay_on_a_device_are_the_same(rows, augmentation, monkeypatch):
    words = {"seed": 0, "epoch": 3, "augmentation": augmentation, "device": CPU}
    expected = some().train_views(rows, **words)
    monkeypatch.setattr(images_module, "keeps_pixels", lambda device, num_bytes: True)
    kept = some()
    assert torch.equal(kept.train_views(rows, **words), expected)
    kept.pixels[:], kept.eval_pixels[:] = 0, 0  # not looked at again, on a graphics card
    held = {name: tensor.clone() for (name, _), tensor in kept._held.items()}
    assert set(held) == {"pixels" if augmentation and not augmentation.whole else "eval_pixels"}
    assert kept.take(np.array([1]))._held == {}


def test_pixels_stay_on_a_card_unless_there_are_too_many(monkeypatch):
    card = torch.device("cuda:0")
    assert images_module.keeps_pixels(card, 2**20)
    assert not images_module.keeps_pixels(card, images_module.HELD_BYTES + 1)
    assert not images_module.keeps_pixels(CPU, 1)
