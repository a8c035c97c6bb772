"""Measured latencies: names, whether pruning made a difference, and how to say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateurs.report.common.formatting import plural, proper, share

Record = dict[str, Any]

# Within 3%, two medians of a short measurement are not different.
SAME_TIME = 0.97


def latency_name(row: Record) -> str:
    """The runtime and device of a latency measurement, without its batch size.

    >>> latency_name({"runtime": "onnxruntime", "device": "cpu"})
    'ONNX Runtime, cpu'
    """
    return f"{proper(row['runtime'])}, {row['device']}"


def ratio_of(row: Record) -> float | None:
    """The median after pruning over the median before; None when one is not known."""
    before, after = row["before_ms"]["median"], (row["after_ms"] or {}).get("median")
    return after / before if before and after is not None else None


def is_faster(row: Record) -> bool | None:
    """Whether pruning made the network measurably faster; None when that is not known.

    The rule of the sentence on cost: the ratio of the medians is at most `SAME_TIME` and the upper
    quartile of the ratios within the rounds is below 1.

    >>> times = {"before_ms": {"median": 10.0}, "after_ms": {"median": 9.0}}
    >>> is_faster(times), is_faster(times | {"ratio_p75": 1.02})
    (True, False)
    """
    ratio = ratio_of(row)
    return None if ratio is None else ratio <= SAME_TIME and (row.get("ratio_p75") or 0) < 1


def is_slower(row: Record) -> bool:
    """Whether pruning made the network measurably slower, by the same rule.

    >>> is_slower({"before_ms": {"median": 9.0}, "after_ms": {"median": 10.0}})
    True
    """
    ratio = ratio_of(row)
    return ratio is not None and ratio > 2 - SAME_TIME and (row.get("ratio_p25") or 2) > 1


def verdict(row: Record) -> str:
    """Whether a measurement is faster, slower or not significantly different after pruning.

    Empty when it is not known.

    >>> times = {"before_ms": {"median": 3630.0}, "after_ms": {"median": 3430.0}}
    >>> verdict(times | {"ratio_p75": 1.04})
    'no significant difference'
    """
    ratio, faster = ratio_of(row), is_faster(row)
    if ratio is None:
        return ""
    if faster:
        return f"{1 / ratio:.1f} times faster" if ratio <= 0.5 else f"{share(1 - ratio)} less time"
    return f"{share(ratio - 1)} more time" if is_slower(row) else "no significant difference"


def measured(row: Record) -> str:
    """The time after pruning relative to before, with the middle half of the rounds if known.

    >>> times = {"before_ms": {"median": 10.0}, "after_ms": {"median": 9.0}}
    >>> measured(times | {"ratio_p25": 0.85, "ratio_p75": 1.02})
    '90.0% of the time before (85% to 102%)'
    """
    return " of the time before".join(_middle_and_bounds(row))


def part_words(row: Record) -> str:
    """The time after pruning as a share of that before, with the middle half if it is known.

    >>> times = {"before_ms": {"median": 10.0}, "after_ms": {"median": 9.0}}
    >>> part_words(times | {"ratio_p25": 0.85, "ratio_p75": 1.02})
    '90.0% (85% to 102%)'
    """
    return "".join(_middle_and_bounds(row))


def _middle_and_bounds(row: Record) -> tuple[str, str]:
    low, high = row.get("ratio_p25"), row.get("ratio_p75")
    if low is None or high is None:
        return share(ratio_of(row)), ""
    # Within rounds, as the bounds are: the ratio of the medians can lie outside of them.
    middle = row.get("ratio_p50") or ratio_of(row)
    return share(middle), f" ({100 * low:.0f}% to {100 * high:.0f}%)"


def speed_warnings(rows: Sequence[Record]) -> list[str]:
    """The measurements that pruning did not make faster, with what was measured."""
    known = [row for row in rows if is_faster(row) is not None]
    slower = [row for row in known if is_slower(row)]
    same = [row for row in known if not is_faster(row) and not is_slower(row)]
    found: list[str] = []
    for group, start in ((slower, "Slower after pruning"), (same, "No significant speed-up")):
        if group:
            where = "; ".join(
                f"{latency_name(r)}, batch {r['batch']}, {measured(r)}" for r in group
            )
            brackets = any(row.get("ratio_p25") is not None for row in group)
            text = (
                f"{start} in {len(group)} of {plural(len(known), 'latency measurement')}: {where}."
            )
            if brackets and group is same:
                text += (
                    " In brackets: the middle half of the rounds. Differences below 3%, and ranges "
                    "that include 100%, are within the noise of the measurement."
                )
            found.append(text)
    return found


def least_gain(rows: Sequence[Record]) -> Record | None:
    """The measurement in which pruning saves least: the one to show where only one is shown."""
    known = [row for row in rows if ratio_of(row) is not None]
    return max(known, key=lambda row: ratio_of(row) or 0.0, default=None)
