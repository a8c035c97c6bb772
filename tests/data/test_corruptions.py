"""Corruptions at fixed strengths: deterministic, of the image alone, and of the stated size."""

from __future__ import annotations

import re

import numpy as np
import pytest

from secateurs.data.corruptions import CORRUPTIONS, NOISE_STD, corrupt
from secateurs.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3)).astype(np.uint8)
IDS = np.array([5, 2**63 + 1, 9], dtype=np.uint64)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_wherever_it_stands(name: str):
    found = corrupt(PIXELS, IDS, name)
    assert found.shape == PIXELS.shape
    assert found.dtype == np.uint8
    assert not np.array_equal(found, PIXELS)
    turned = corrupt(PIXELS[::-1], IDS[::-1], name)
    assert np.array_equal(turned[::-1], found)


def test_each_does_what_its_name_says():
    flat = np.full((1, 60, 60, 3), 120, dtype=np.uint8)
    one = IDS[:1]
    assert abs(float(corrupt(flat, one, "noise").std()) / NOISE_STD - 1) < 0.05
    assert set(corrupt(flat, one, "dark").flat) == {60}
    assert set(corrupt(flat, one, "bright").flat) == {192}
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, None, :, None], (1, 60, 60, 3))
    cropped = corrupt(np.ascontiguousarray(ramp), one, "crop")[0, 30, :, 0]
    assert 8 <= cropped[0] <= 10
    assert 49 <= cropped[-1] <= 51
    assert corrupt(PIXELS[:1], one, "blur").std() < PIXELS[:1].std()


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=re.escape("unknown corruption 'fog'; known are blur")):
        corrupt(PIXELS, IDS, "fog")
