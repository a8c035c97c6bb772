"""Ways to find all pairs of neurons beyond an angle, and the data they are compared on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from secateurs.prune.selection.pairwise import pairwise
from secateurs.prune.similarity.angles import angle_histogram, similar_pairs

HIGH_DEG = 165.0
LOOP_PAIRS = 20_000
BLOCK = 1024


def make(kind: str, samples: int, units: int, device: str = "cpu") -> torch.Tensor:
    """Activations (samples, units) of one kind, the same for the same sizes and device."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    if kind == "centred":
        x = normal(samples, units)
        copies = torch.arange(20, units, 20)
        x[:, copies] = x[:, copies - 10] + 0.1 * normal(samples, len(copies))
        return x
    x = normal(samples, 64) @ normal(64, units) / 8
    x += 0.6 * normal(samples, units) + 0.4 * normal(units) - 1
    x = x.clamp_(min=0)
    x[:, ::8] = 0
    return x


def low_threshold(kind: str, x: torch.Tensor) -> float:
    """Degrees: 15, or for sparse activations what one live pair in ten thousand is below.

    In very large layers fewer, about a million pairs in all.
    """
    if kind == "centred":
        return 15.0
    fraction = min(1e-4, 1e6 / (x.shape[1] ** 2 / 2))
    max_units = 1024 if fraction == 1e-4 else 4096
    histogram = angle_histogram(x, bins=18_000, max_units=max_units)
    below = histogram.counts.cumsum(0) / histogram.counts.sum()
    return float(histogram.edges[int((below < fraction).sum()) + 1])


def unit_vectors(kind: str, x: torch.Tensor) -> torch.Tensor:
    """Normalised rows (units, samples) for the other ways, dead units left out, in float32."""
    x = x[:, x.amax(0) > x.amin(0)]
    x = x - x.mean(0) if kind == "centred" else (x - x.min()) / (x.max() - x.min()) - 0.5
    return (x / torch.linalg.vector_norm(x, dim=0)).T.contiguous()


# Kind, activations, lower angle, and how many rows of the matrix of pairs to go through (None: all)
Way = Callable[[str, torch.Tensor, float, int | None], int]


def double_loop(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """Plain Python and NumPy, one pair at a time: `LOOP_PAIRS` of them, extrapolated by main."""
    columns = unit_vectors(kind, x).numpy()
    found = done = 0
    for i in range(len(columns)):
        for j in range(i + 1, len(columns)):
            cosine = columns[i] @ columns[j]
            cosine /= np.linalg.norm(columns[i]) * np.linalg.norm(columns[j])
            angle = math.degrees(math.acos(max(-1.0, min(1.0, float(cosine)))))
            found += angle < low_deg or angle > HIGH_DEG
            done += 1
            if done == LOOP_PAIRS:
                return found
    return found


def _cosines(low_deg: float) -> tuple[float, float]:
    return math.cos(math.radians(low_deg)), math.cos(math.radians(HIGH_DEG))


def scikit_learn(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """cosine_similarity of everything with everything."""
    from sklearn.metrics.pairwise import cosine_similarity

    above, below = _cosines(low_deg)
    cosine = cosine_similarity(unit_vectors(kind, x).numpy())
    i, j = np.nonzero(np.triu((cosine > above) | (cosine < below), 1))
    np.degrees(np.arccos(np.clip(cosine[i, j], -1, 1)))
    return len(i)


def numpy_full(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """One NumPy product, cosine thresholds."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x).numpy()
    cosine = u @ u.T
    i, j = np.nonzero(np.triu((cosine > above) | (cosine < below), 1))
    np.degrees(np.arccos(np.clip(cosine[i, j], -1, 1)))
    return len(i)


def numpy_blocked(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """NumPy products of blocks of rows with everything."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x).numpy()
    found = 0
    for top in range(0, rows or len(u), BLOCK):
        for left in range(0, len(u), BLOCK):
            cosine = u[top : top + BLOCK] @ u[left : left + BLOCK].T
            i, j = np.nonzero((cosine > above) | (cosine < below))
            keep = i + top < j + left
            np.degrees(np.arccos(np.clip(cosine[i[keep], j[keep]], -1, 1)))
            found += int(keep.sum())
    return found


def torch_full(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """One PyTorch product, cosine thresholds."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x)
    cosine = u @ u.T
    i, j = ((cosine > above) | (cosine < below)).triu_(1).nonzero(as_tuple=True)
    cosine[i, j].clamp_(-1, 1).acos_().rad2deg_()
    return len(i)


def torch_blocked(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """PyTorch products of square blocks, cosine thresholds: what ours is compared with."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x)
    parts: list[tuple[torch.Tensor, ...]] = []
    # The same memory for every block: else small results between large ones keep 2 to 4 GiB of
    # the heap from being used again at 32768 neurons.
    cosine = torch.empty(BLOCK, BLOCK)
    similar, opposite = (torch.empty(BLOCK, BLOCK, dtype=torch.bool) for _ in range(2))
    for top in range(0, rows or len(u), BLOCK):
        for left in range(0, len(u), BLOCK):
            upper, columns = u[top : top + BLOCK], u[left : left + BLOCK]
            if (len(upper), len(columns)) != cosine.shape:
                cosine = torch.empty(len(upper), len(columns))
                similar, opposite = (torch.empty_like(cosine, dtype=torch.bool) for _ in range(2))
            torch.mm(upper, columns.T, out=cosine)
            torch.gt(cosine, above, out=similar)
            torch.lt(cosine, below, out=opposite)
            i, j = similar.logical_or_(opposite).nonzero(as_tuple=True)
            keep = i + top < j + left
            i, j = i[keep], j[keep]
            parts.append((i + top, j + left, cosine[i, j].clamp_(-1, 1).acos_().rad2deg_()))
    return len(torch.cat([part[0] for part in parts]))


def faiss_range(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """Faiss's flat inner-product index, both signs."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x).numpy()
    index = faiss.IndexFlatIP(u.shape[1])
    index.add(u)
    found = 0
    for sign, radius in ((1, above), (-1, -below)):
        limits, _, ids = index.range_search(sign * u[:rows], radius)
        first = np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64))
        found += int((first < ids).sum())
    return found


def ours(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """secateurs.prune.similarity.angles.similar_pairs."""
    normalise = "centre" if kind == "centred" else "minmax"
    return len(similar_pairs(x, low_deg, HIGH_DEG, normalise=normalise))


def greedy(kind: str, x: torch.Tensor, low_deg: float, rows: int | None = None) -> int:
    """Greedy pairwise selection at 15 degrees: survivors, without a list of pairs."""
    normalise = "centre" if kind == "centred" else "minmax"
    return len(pairwise(x, low_deg=15.0, high_deg=HIGH_DEG, normalise=normalise).survivors)


WAYS: dict[str, Way] = {
    "torch blocked": torch_blocked,
    "ours": ours,
    "torch full": torch_full,
    "numpy blocked": numpy_blocked,
    "numpy full": numpy_full,
    "scikit-learn": scikit_learn,
    "faiss": faiss_range,
    "double loop": double_loop,
    "greedy": greedy,
}
IN_PART = ("torch blocked", "numpy blocked", "faiss")  # can go through some of the rows
FULL = {"scikit-learn": 3, "numpy full": 2, "torch full": 2}  # times the matrix of all cosines
