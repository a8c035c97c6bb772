from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 pictures in three classes, told apart by their stripes; 12 senders."""
    root = tmp_path_factory.mktemp("flags")
    generator = np.random.default_rng(0)
    for label, name in enumerate(("across", "down", "plain")):
        (root / name).mkdir()
        for number in range(16):
            picture = generator.integers(0, 90, (40, 48, 3))
            stripes = (np.arange(48) // 6 % 2) * 150
            if label == 0:
                picture += stripes[None, :, None]
            elif label == 1:
                picture += stripes[:40, None, None]
            file = root / name / f"{number % 12:02d}_{label}{number}.png"
            Image.fromarray(picture.astype(np.uint8)).save(file)
    return root
