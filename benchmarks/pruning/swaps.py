"""What exchanging units after the elimination would gain: local search on each group's own loss.

    python benchmarks/pruning/swaps.py MODEL DATA --json benchmarks/measured/swaps.json

For each group of a saved model whose readers take one input a unit, as 1 x 1 convolutions: the
units that elimination keeps, then exchanged one for one (the best of five additions with the best
removal) for as long as the refitted loss falls by 0.01%. Losses are computed anew in float64 from
the Gram matrices. After the local search of OSSCAR (Meng et al., 2024).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from networks import Row, heading
from secateurs.files import cache_dir, write_json
from secateurs.prune.allocation import survey as surveying
from secateurs.prune.allocation.elimination import Elimination, Reader, eliminate, lift
from secateurs.prune.coupling.groups import find_groups
from secateurs.ship.checkpoint import load
from secateurs.study.pruning.network import views
from secateurs.study.setup.config import from_preset
from secateurs.study.setup.trial_context import open_context

Matrix = NDArray[np.float64]
Sums = list[tuple[Matrix, Matrix]]  # ridged Gram matrix and weights, of each reader
NUM_IMAGES, LARGEST, SHARES = 96, 400, (0.5, 0.25)
ADDITIONS, MOST, LEAST = 5, 200, 1e-4


def sums_of(readers: Sequence[Reader]) -> Sums:
    """What the loss of a group is computed from."""
    found: Sums = []
    for reader in readers:
        rows, gram = reader.rows, reader.gram
        if gram is None:
            assert rows is not None
            gram = rows.double().T @ rows.double() / len(rows)
        gram = gram.double()
        trace, squares = float(gram.trace()), float(gram.square().sum())
        gram = gram + lift(None, trace, squares, reader.num_samples, len(gram)) * torch.eye(
            len(gram), dtype=gram.dtype
        )
        places = reader.columns.flatten()
        found.append((gram[places][:, places].numpy(), reader.weight[places].double().numpy()))
    return found


def left_over(gram: Matrix, stay: NDArray[np.int64], gone: NDArray[np.int64]) -> Matrix:
    """The covariance of units that are gone, given those that stay."""
    across = gram[np.ix_(gone, stay)]
    inside = gram[np.ix_(stay, stay)]
    return gram[np.ix_(gone, gone)] - across @ np.linalg.solve(inside, across.T)


def loss_of(sums: Sums, stay: NDArray[np.int64]) -> float:
    """The loss of a group, refitted, when these units stay."""
    gone = np.setdiff1d(np.arange(len(sums[0][0])), stay)
    return sum(
        float(np.sum((left_over(gram, stay, gone) @ weight[gone]) * weight[gone]))
        for gram, weight in sums
    )


def exchanged(sums: Sums, stay: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The units after exchanges, and how many there were."""
    num, loss = len(sums[0][0]), loss_of(sums, stay)
    for count in range(MOST):
        gone = np.setdiff1d(np.arange(num), stay)
        gain = np.zeros(len(gone))
        for gram, weight in sums:
            rest = left_over(gram, stay, gone)
            gain += np.square(rest @ weight[gone]).sum(1) / np.maximum(np.diag(rest), 1e-30)
        best = (loss * (1 - LEAST), stay)
        for place in np.argsort(-gain)[:ADDITIONS]:
            more = np.append(stay, gone[place])
            without = np.setdiff1d(gone, more)
            cost = np.zeros(len(more))
            for gram, weight in sums:
                inverse = np.linalg.inv(gram[np.ix_(more, more)])
                fitted = weight[more] + inverse @ (gram[np.ix_(more, without)] @ weight[without])
                cost += np.square(fitted).sum(1) / np.diag(inverse)
            least = int(np.argmin(cost))
            now = loss - gain[place] + cost[least]
            if now < best[0]:
                best = (now, np.delete(more, least))
        if best[1] is stay:
            return stay, count
        loss, stay = best
    return stay, MOST


def main() -> None:
    """Print a row for each group and share, and the mean ratio of the losses."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("model", type=Path)
    words.add_argument("data")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    loaded = load(given.model)
    config = from_preset("quick", backbone=loaded.spec.backbone)
    context = open_context(given.data, config, cache=cache_dir())
    train = context.dataset.sides["train"]
    spread = np.linspace(0, len(train) - 1, min(NUM_IMAGES, len(train))).astype(np.int64)
    images = views(train.take(spread), torch.device("cpu"))
    readers: dict[str, Sequence[Reader]] = {}

    def kept(
        groups: Iterable[tuple[str, Sequence[Reader]]], *, done: Callable[[], None] = lambda: None
    ) -> dict[str, Elimination]:
        readers.update(groups)
        return {name: eliminate(those) for name, those in readers.items()}

    model = loaded.model.eval()
    groups = find_groups(model, images[0][:2]).found
    with mock.patch.object(surveying, "eliminate_all", kept):
        found = surveying.survey(model, groups, images)
    rows: list[Row] = []
    for name, those in readers.items():
        num = len(those[0].columns)
        if num > LARGEST or any(reader.columns.shape[1] > 1 for reader in those):
            continue
        sums = sums_of(those)
        for share in SHARES:
            stay = found.eliminations[name].survivors(max(2, int(share * num))).numpy()
            units, count = exchanged(sums, stay)
            ratio = loss_of(sums, units) / loss_of(sums, stay)
            rows.append(
                {"group": name, "units": num, "share": share, "swaps": count, "ratio": ratio}
            )
            print(f"{name}, {num} units, {share:.0%} kept: {count} exchanges, loss x {ratio:.4f}")
    for share in SHARES:
        ratios = [row["ratio"] for row in rows if row["share"] == share]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"{share:.0%} kept: loss x {mean:.4f} (geometric mean), least {min(ratios):.4f}")
    if given.json:
        write_json(given.json, {"machine": heading(), "backbone": config.backbone, "rows": rows})


if __name__ == "__main__":
    main()
