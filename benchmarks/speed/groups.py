"""Groups of a layer's units by angle: our k-means by pairs and by vectors, and scikit-learn's.

    python benchmarks/speed/groups.py [MODEL DATA [--group-by REGEX]] [--layer fc7] [--threads 2]

Without arguments the layer is drawn: rectified mixtures of 300 directions, 4096 units and 810
samples. Each way is run in turn, in one process; of ours the least of the times is taken. Cohesion
is the mean cosine of a unit to the direction of its group, weighted by what each contributes.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from secateurs.files import cache_dir
from secateurs.prune.selection.cluster import ROUNDS, Members, cluster_members, prepare
from secateurs.prune.selection.pairwise import Selection
from secateurs.study.pruning.explorer import open_explorer
from secateurs.study.saved.location import find_location

Labels = NDArray[np.int64]


def drawn(units: int = 4096, samples: int = 810) -> tuple[Tensor, Tensor | None]:
    """Activations (samples, units) around 300 directions, at many scales; no outgoing weights."""
    torch.manual_seed(0)
    mixed = torch.randn(samples, 300)[:, torch.randint(300, (units,))] * torch.rand(units)
    return (mixed + 0.5 * torch.randn(samples, units)).relu(), None


def labels(members: Members, chosen: Selection) -> Labels:
    """The survivor that each member belongs to."""
    found = torch.arange(chosen.num_units)
    found[chosen.removed] = chosen.parent
    return found[members.units].numpy()


def cohesion(members: Members, found: Labels) -> float:
    """Weighted mean cosine of the members to the direction of their group, in 0..1."""
    share = members.share.double()
    vectors = members.vectors.double() * share[:, None]
    place = torch.from_numpy(np.unique(found, return_inverse=True)[1])
    total = vectors.new_zeros(int(place.max()) + 1, vectors.shape[1])
    total.index_add_(0, place, vectors)
    return float(torch.linalg.vector_norm(total, dim=1).sum() / share.sum())


def library(members: Members, keep: int) -> Labels:
    """scikit-learn's k-means of the same unit vectors with the same weights, its own start."""
    means = KMeans(keep, n_init=1, max_iter=ROUNDS, random_state=0)
    with warnings.catch_warnings():
        # Equal vectors make fewer groups than asked for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return means.fit(members.vectors.numpy(), sample_weight=members.share.numpy()).labels_


def timed(call: Callable[[], Labels]) -> tuple[float, Labels]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("model", nargs="?", type=Path)
    words.add_argument("data", nargs="?")
    words.add_argument("--group-by")
    words.add_argument("--layer", default="fc7")
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--repeats", type=int, default=3)
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    if given.model is None:
        activations, weight = drawn()
    else:
        place, changes = find_location(given.model, given.data), {"group_by": given.group_by}
        explorer = open_explorer(place, given.layer, changes=changes, cache=cache_dir())
        activations, weight = explorer.view.train, explorer.view.weight
    started = time.perf_counter()
    bare = prepare(activations, weight=weight, num_groups=1)
    opened = time.perf_counter() - started
    started = time.perf_counter()
    cosine = bare.vectors @ bare.vectors.T
    pairs = time.perf_counter() - started
    held = replace(bare, cosine=cosine)
    print(
        f"{datetime.date.today().isoformat()}, {given.threads} threads, {platform.machine()}, "
        f"torch {torch.__version__}; {len(bare.units)} units, {len(activations)} samples; "
        f"directions {opened:.2f} s, all pairs {pairs:.2f} s\n\n"
        "| groups | by pairs, s | by vectors, s | times | same | scikit-learn, s | times "
        "| cohesion, ours | scikit-learn's |\n" + "|---" * 9 + "|"
    )
    for keep in (16, 64, 256, 1024, 2048):
        seconds, theirs = timed(lambda keep=keep: library(bare, keep))
        least, found = np.full(2, np.inf), [theirs, theirs]
        for _ in range(given.repeats):
            for way, members in enumerate((held, bare)):
                took, found[way] = timed(
                    lambda members=members, keep=keep: labels(
                        members, cluster_members(members, keep=keep)
                    )
                )
                least[way] = min(least[way], took)
        print(
            f"| {keep} | {least[0]:.3f} | {least[1]:.3f} | {least[1] / least[0]:.1f} "
            f"| {float((found[0] == found[1]).mean()):.1%} | {seconds:.2f} "
            f"| {seconds / least[0]:.0f} | {cohesion(bare, found[0]):.4f} "
            f"| {cohesion(bare, theirs):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
