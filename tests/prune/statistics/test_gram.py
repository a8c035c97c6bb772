from __future__ import annotations

import numpy as np
import pytest
import torch

from secateurs.prune.statistics import gram
from secateurs.prune.statistics.gram import add_products, gram_of, mirror


@pytest.mark.parametrize("inputs", [1, 3, 4, 9, 12])
def test_products_in_tiles_are_those_of_numpy(inputs: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gram, "TILE", 4)
    rows = torch.randn(20, inputs, generator=torch.Generator().manual_seed(0))
    expected = rows.double().numpy().T @ rows.double().numpy()
    found = gram_of(rows)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(found, found.T)


def test_sums_of_several_parts_are_those_of_all_rows():
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.zeros(7, 7, dtype=torch.float64)
    for part in rows.split(13):
        add_products(found, part)
    torch.testing.assert_close(mirror(found), rows.T @ rows)
