"""Which depths can be distinguished, and the one to recommend, by rules that are written down.

1. The best depth has the highest mean validation accuracy over runs; of equals the deepest.
2. A depth is indistinguishable from the best when its difference, paired by run, is not significant
   at 5% after Holm's correction for the number of depths. The deviation is pooled over all depths
   (runs are the blocks of a two-way layout), since two or three runs of one depth say little about
   it. With one run a depth, when its accuracy lies in the Wilson interval of the best.
3. Recommended is the deepest that is indistinguishable from the best, inside its interval and at
   most `MARGIN` below it: it trains fewer parameters, faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes a second to import

from secateurs.errors import InputError
from secateurs.fit.metrics import wilson_interval
from secateurs.study.sweep.statistics import summarise
from secateurs.wording import counted

ALPHA = 0.05
MOST_TIMES = 6  # other depths whose times are named
MARGIN = 0.01  # of accuracy: a smaller gain is not worth a deeper fine-tuning


@dataclass(frozen=True)
class Comparison:
    """One depth against the best, over the runs that both have; fractions of one.

    `low` and `high` bound the difference with 95%, `p_value` is two-sided and corrected by Holm;
    None for the best itself and where there is a single run.
    """

    depth: int
    num_runs: int
    mean: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    indistinguishable: bool
    is_best: bool


@dataclass(frozen=True)
class Recommendation:
    """The depth to use, the best on validation, and in words why and what would change it."""

    depth: int
    best: int
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...]
    cost: str  # what a training takes in time, apart since it differs from run to run


def compare_depths(
    accuracies: Mapping[int, Mapping[int, float]], *, num_images: int
) -> tuple[Comparison, ...]:
    """Compare each depth with the best one, in ascending order of depth.

    `accuracies` maps depth to run to validation accuracy on `num_images` images. Raises InputError
    when there is no accuracy.

    >>> rows = compare_depths({3: {0: 0.80, 1: 0.82}, 5: {0: 0.80, 1: 0.81}}, num_images=100)
    >>> [(row.depth, round(row.difference, 3), row.indistinguishable) for row in rows]
    [(3, 0.0, True), (5, -0.005, True)]
    """
    found = {depth: dict(runs) for depth, runs in sorted(accuracies.items()) if runs}
    if not found:
        raise InputError("no trial ended with a finite loss; try a smaller --lr")
    means = {depth: float(np.mean(list(runs.values()))) for depth, runs in found.items()}
    best = max(means, key=lambda depth: (means[depth], depth))
    shared = [run for run in found[best] if all(run in runs for runs in found.values())]
    if len(shared) < 2:
        return _single(found, means, best, num_images)
    table = np.array([[runs[run] for run in shared] for runs in found.values()])
    error, freedom = _residual(table)
    half_scale = error * math.sqrt(2 / len(shared))
    others = [depth for depth in found if depth != best]
    differences = {
        depth: float(np.mean([found[depth][run] - found[best][run] for run in shared]))
        for depth in others
    }
    p_values = {depth: _p_value(differences[depth], half_scale, freedom) for depth in others}
    corrected = dict(zip(others, holm([p_values[depth] for depth in others]), strict=True))
    reach = float(stdtrit(freedom, 1 - ALPHA / 2)) * half_scale if others else 0.0
    rows: list[Comparison] = []
    for depth, runs in found.items():
        if depth == best:
            rows.append(
                Comparison(depth, len(runs), means[depth], 0.0, None, None, None, True, True)
            )
            continue
        gap = differences[depth]
        rows.append(
            Comparison(
                depth=depth,
                num_runs=len(runs),
                mean=means[depth],
                difference=gap,
                low=gap - reach,
                high=gap + reach,
                p_value=corrected[depth],
                indistinguishable=corrected[depth] >= ALPHA,
                is_best=False,
            )
        )
    return tuple(rows)


def recommend(
    accuracies: Mapping[int, Mapping[int, float]],
    seconds: Mapping[int, float],
    *,
    num_images: int,
    random_frozen: Mapping[int, Sequence[str]] | None = None,
) -> Recommendation:
    """The depth to use by the rules at the head of this file; `seconds` a trial by depth.

    `random_frozen` are the layers that a depth freezes with random weights, which is said.

    >>> runs = {3: {0: 0.80, 1: 0.82}, 5: {0: 0.80, 1: 0.81}}
    >>> recommend(runs, {3: 20.0, 5: 10.0}, num_images=100).depth
    5
    """
    rows = compare_depths(accuracies, num_images=num_images)
    best = next(row for row in rows if row.is_best)
    interval = summarise(list(accuracies[best.depth].values()))
    floor = best.mean - MARGIN
    if interval.low is not None:
        floor = max(floor, interval.low)
    good = [row for row in rows if row.indistinguishable and row.mean >= floor]
    chosen = max([*good, best], key=lambda row: row.depth)
    sentences = _sentences(rows, best, chosen, accuracies, num_images)
    caution = random_frozen_words(random_frozen or {})
    if caution:
        sentences = (*sentences[:-1], caution, sentences[-1])
    return Recommendation(chosen.depth, best.depth, rows, sentences, _cost(seconds, chosen.depth))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979), in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    result = [0.0] * len(p_values)
    reached = 0.0
    for rank, k in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[k]))
        result[k] = reached
    return result


def _single(
    found: dict[int, dict[int, float]], means: dict[int, float], best: int, num_images: int
) -> tuple[Comparison, ...]:
    low, _ = wilson_interval(round(means[best] * num_images), num_images)
    return tuple(
        Comparison(
            depth=depth,
            num_runs=len(runs),
            mean=means[depth],
            difference=means[depth] - means[best],
            low=None,
            high=None,
            p_value=None,
            indistinguishable=depth == best or means[depth] >= low,
            is_best=depth == best,
        )
        for depth, runs in found.items()
    )


def _residual(table: np.ndarray) -> tuple[float, int]:
    """Deviation of a (depths, runs) table from depth and run effects, and degrees of freedom."""
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    freedom = max(1, (table.shape[0] - 1) * (table.shape[1] - 1))
    return float(np.sqrt(np.square(rest).sum() / freedom)), freedom


def _p_value(difference: float, scale: float, freedom: int) -> float:
    if scale < 1e-12:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * stdtr(freedom, -abs(difference) / scale))


def _points(value: float) -> str:
    return f"{100 * abs(value):.1f} {'point' if round(100 * abs(value), 1) == 1 else 'points'}"


def _sentences(
    rows: Sequence[Comparison],
    best: Comparison,
    chosen: Comparison,
    accuracies: Mapping[int, Mapping[int, float]],
    num_images: int,
) -> tuple[str, ...]:
    runs = len(accuracies[chosen.depth])
    summary = summarise(list(accuracies[chosen.depth].values()))
    if summary.low is None or summary.high is None:
        low, high = wilson_interval(round(chosen.mean * num_images), num_images)
        spread = f"95% {low:.1%} to {high:.1%} by Wilson, one run"
    else:
        spread = f"95% {summary.low:.1%} to {summary.high:.1%} over {runs} runs"
    lines = [
        f"Freeze {counted(chosen.depth, 'layer')}: {chosen.mean:.1%} mean validation accuracy "
        f"({spread})."
    ]
    if chosen.depth != best.depth:
        lines.append(
            f"Depth {best.depth} has the best mean, {best.mean:.1%}; the difference of "
            f"{_points(chosen.difference)} is not significant, and more frozen layers train less."
        )
    others = [row.depth for row in rows if row.indistinguishable and row.depth != chosen.depth]
    worse = [row.depth for row in rows if not row.indistinguishable]
    if others:
        lines.append(
            "Not significantly different from the best: depths "
            f"{_list(sorted({*others, chosen.depth}))}."
        )
    if worse:
        depths = "depth" if len(worse) == 1 else "depths"
        lines.append(f"Significantly worse than the best: {depths} {_list(worse)}.")
    lines.append(_what_would_change(rows, best, chosen))
    return tuple(lines)


def random_frozen_words(random_frozen: Mapping[int, Sequence[str]]) -> str:
    """That depths freeze layers with random weights, and what that means; empty for none.

    >>> random_frozen_words({5: (), 6: ("fc6",)})
    'Depth 6 freezes fc6 with random weights, since no pretrained weights were loaded for it: its \
accuracy says nothing about that depth with pretrained weights.'
    """
    found = {depth: names for depth, names in sorted(random_frozen.items()) if names}
    if not found:
        return ""
    names = list(dict.fromkeys(name for group in found.values() for name in group))
    shown = names if len(names) <= 6 else [*names[:3], "...", names[-1]]
    verb, its, that = ("freezes", "its", "that depth")
    if len(found) > 1:
        verb, its, that = ("freeze", "their", "those depths")
    return (
        f"Depth {_list(list(found))} {verb} {_list(shown)} with random weights, since no "
        f"pretrained weights were loaded for {'it' if len(names) == 1 else 'them'}: {its} accuracy "
        f"says nothing about {that} with pretrained weights."
    )


def _cost(seconds: Mapping[int, float], depth: int) -> str:
    # Of many depths only the ones that take the least and the most.
    others = [d for d in sorted(seconds) if d != depth]
    if len(others) > MOST_TIMES:
        others = sorted(
            {min(others, key=seconds.__getitem__), max(others, key=seconds.__getitem__)}
        )
    text = f"A training at depth {depth} takes {_seconds(seconds[depth])}"
    return f"{'; '.join([text, *_at(seconds, others)])}."


def _at(seconds: Mapping[int, float], depths: Sequence[int]) -> list[str]:
    """The times of some depths as one part of a sentence, if there are any."""
    return [", ".join(f"{_seconds(seconds[d])} at {d}" for d in depths)] if depths else []


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def _list(depths: Sequence[object]) -> str:
    words = [str(depth) for depth in depths]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _what_would_change(rows: Sequence[Comparison], best: Comparison, chosen: Comparison) -> str:
    if len(rows) == 1:
        return "Only one depth was tried: other depths may be better."
    if all(row.low is None for row in rows):
        return "One run per depth shows no spread: more runs may change this."
    close = [row for row in rows if row.indistinguishable and row.depth != best.depth]
    if not close:
        return "More runs are unlikely to change this; other images or another split may."
    rival = max(close, key=lambda row: row.difference)
    gap = abs(rival.difference)
    if gap < 1e-9 or rival.low is None or rival.high is None:
        return f"Depths {best.depth} and {rival.depth} agree; the choice between them is of cost."
    # The half-width of a paired interval falls with the root of the number of runs.
    half = (rival.high - rival.low) / 2
    needed = math.ceil(rival.num_runs * (half / gap) ** 2)
    return (
        f"About {max(needed, rival.num_runs + 1)} runs per depth would make a difference of "
        f"{_points(gap)} between depths {best.depth} and {rival.depth} significant; another split "
        "may also change this."
    )
