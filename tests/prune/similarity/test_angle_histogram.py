from __future__ import annotations

import numpy as np
import pytest
import torch

from secateurs.prune.similarity.angles import angle_histogram


def layer(seed: int) -> torch.Tensor:
    """Non-negative sparse activations with a few dead units."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 8, generator=generator) @ torch.randn(8, 70, generator=generator)
    x = torch.relu(x - 0.5)
    x[:, ::17] = 0
    return x


def angles_of(vectors: np.ndarray) -> np.ndarray:
    """The angles in degrees between all pairs of columns, in float64."""
    vectors = vectors.astype(np.float64)
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    i, j = np.triu_indices(vectors.shape[1], 1)
    return np.degrees(np.arccos(np.clip((vectors.T @ vectors)[i, j], -1, 1)))


def test_histogram_counts_every_pair_of_live_units():
    x = layer(2)
    histogram = angle_histogram(x, bins=18)
    live = x[:, x.amax(0) > x.amin(0)].numpy()
    angles = angles_of((live - x.numpy().min()) / np.ptp(x.numpy()) - 0.5)
    counts, edges = np.histogram(angles, bins=18, range=(0, 180))
    assert histogram.counts.tolist() == counts.tolist()
    np.testing.assert_allclose(histogram.edges, edges)
    assert histogram.p50 == pytest.approx(np.quantile(angles, 0.5, method="nearest"), abs=1e-6)
    assert histogram.num_live == 65


def test_histogram_of_a_sample_is_the_same_for_the_same_seed():
    x = layer(2)
    first = angle_histogram(x, max_units=20, seed=4)
    assert first.counts.sum() == 190 and first.num_units == 20
    assert torch.equal(first.counts, angle_histogram(x, max_units=20, seed=4).counts)


def test_histogram_without_a_pair():
    histogram = angle_histogram(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert histogram.p50 is None and int(histogram.counts.sum()) == 0


@pytest.mark.parametrize("normalise", ["centre", "minmax"])
def test_histogram_is_of_all_pairs_of_more_than_a_thousand_units(normalise: str):
    x = torch.rand(6, 1500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    histogram = angle_histogram(x, normalise=normalise)  # type: ignore[arg-type]
    vectors = x.numpy() - (x.numpy().mean(0) if normalise == "centre" else 0)
    if normalise == "minmax":
        vectors = (vectors - x.numpy().min()) / np.ptp(x.numpy()) - 0.5
    angles = angles_of(vectors)
    counts, _ = np.histogram(angles, bins=36, range=(0, 180))
    assert histogram.counts.tolist() == counts.tolist()
    for q, found in ((0.01, histogram.p01), (0.5, histogram.p50), (0.99, histogram.p99)):
        assert found == pytest.approx(np.quantile(angles, q, method="nearest"), abs=1e-4)
    assert (histogram.num_units, histogram.num_live) == (1500, 1500)
    assert histogram.normalise == normalise
