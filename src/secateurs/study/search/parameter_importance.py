"""How much each parameter mattered: analysis of variance, functional ANOVA, rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.extras import installed
from secateurs.study.search.methods import distributions, quiet
from secateurs.study.search.space import Dimension

Record = dict[str, Any]

LEAST_TRIALS = 8  # a forest grown on fewer says nothing
TREES = 64


def two_way_shares(table: NDArray[np.float64]) -> tuple[float, float, float]:
    """Shares of a table's variance explained by its rows, its columns, and both together.

    Two-way analysis of variance with one value a cell: sums of squares of the row means, of the
    column means and of what remains, over the total; they add to 1. Expects (rows, columns) from
    2 x 2 on, not all equal.

    >>> two_way_shares(np.array([[0.0, 1.0], [1.0, 2.0]]))
    (0.5, 0.5, 0.0)
    """
    centred = table - table.mean()
    rows, columns = centred.mean(1, keepdims=True), centred.mean(0, keepdims=True)
    total = float(np.square(centred).sum())
    assert total > 0
    parts = (rows + 0 * centred, columns + 0 * centred, centred - rows - columns)
    by_row, by_column, rest = (float(np.square(part).sum()) / total for part in parts)
    return by_row, by_column, rest


def grid_importance(cells: Sequence[Record], lrs: Sequence[float]) -> Record:
    """What a grid's accuracies depend on; learning rates with an empty cell are left out."""
    rows = [[cell["val_accuracy_mean"] for cell in cells if cell["lr"] == lr] for lr in lrs]
    whole = [row for row in rows if None not in row]
    found = _answer("two-way analysis of variance over cells", sum(map(len, whole)))
    found["num_left_out"] = len(rows) - len(whole)
    table = np.array(whole, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        return found | {"reason": "it takes two learning rates and two numbers of epochs"}
    if table.max() - table.min() < 1e-12:
        return found | {"reason": "every cell has the same accuracy"}
    names = ("lr", "epochs", "interaction")
    shares = zip(names, two_way_shares(table), strict=True)
    return found | {"parts": [{"name": name, "share": share} for name, share in shares]}


def trial_importance(trials: Sequence[Record], space: Sequence[Dimension], *, seed: int) -> Record:
    """How much of the accuracy's variance over trials of equal length each parameter explains.

    By functional ANOVA on a random forest (Hutter et al. 2014) where Optuna is installed, whose
    shares add to 1; otherwise by the squared rank correlation of each parameter alone. Trials
    that diverged are left out.
    """
    good = [row for row in trials if row["val_accuracy_mean"] is not None]
    forest = installed("search")
    method = "fANOVA" if forest else "rank correlation"
    found = _answer(method, len(good)) | {"num_left_out": len(trials) - len(good)}
    values = np.array([row["val_accuracy_mean"] for row in good], dtype=np.float64)
    if len(good) < LEAST_TRIALS:
        return found | {"reason": f"fewer than {LEAST_TRIALS} trials say nothing of it"}
    if len(space) < 2:
        return found | {"reason": "only one parameter was searched"}
    if values.max() - values.min() < 1e-12:
        return found | {"reason": "every trial has the same accuracy"}
    rows = [row["parameters"] for row in good]
    shares = _fanova(rows, values, space, seed) if forest else rank_shares(rows, values)
    order = sorted(shares, key=lambda name: -shares[name])
    return found | {"parts": [{"name": name, "share": shares[name]} for name in order]}


def _answer(method: str, number: int) -> Record:
    return {"method": method, "num_values": number, "num_left_out": 0, "parts": [], "reason": None}


def rank_shares(rows: Sequence[Record], values: NDArray[np.float64]) -> dict[str, float]:
    """Spearman's correlation of each parameter with the values, squared; 0 for a constant one."""
    from scipy.stats import rankdata  # a second to import

    ranks = rankdata(values)
    found: dict[str, float] = {}
    for name in rows[0]:
        mine = rankdata([row[name] for row in rows])
        flat = float(mine.std()) == 0
        found[name] = 0.0 if flat else float(np.corrcoef(mine, ranks)[0, 1]) ** 2
    return found


def _fanova(
    rows: Sequence[Record],
    values: NDArray[np.float64],
    space: Sequence[Dimension],
    seed: int,
) -> dict[str, float]:
    import optuna

    with quiet(optuna):
        study = optuna.create_study(direction="maximize")
        wanted = distributions(optuna, space)
        for row, value in zip(rows, values, strict=True):
            # A decay of 0 stands for the range below the smallest one that does anything.
            params = {
                one.name: row[one.name] if one.choices else max(one.low, row[one.name])
                for one in space
            }
            trial = optuna.trial.create_trial(
                params=params, distributions=wanted, value=float(value)
            )
            study.add_trial(trial)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
