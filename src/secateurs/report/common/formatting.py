"""Numbers, names and lists as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from secateurs.report.common.direction import ISOLATE, isolated, not_isolated

UNKNOWN = "not known"


def integer(value: float | None) -> str:
    """A count in full, with a comma every three digits.

    >>> integer(4096), integer(None)
    ('4,096', 'not known')
    """
    return UNKNOWN if value is None else f"{round(value):,}"


def count(value: float | None) -> str:
    """A count to three significant digits once it is above ten thousand.

    >>> count(120), count(54_321), count(57_000_000), count(1.21e9)
    ('120', '54.3 k', '57.0 M', '1.21 G')
    """
    if value is None:
        return UNKNOWN
    if abs(value) < 10_000:
        return integer(value)
    return _scaled(value, ("", "k", "M", "G", "T"))


_BYTES = ("B", "kB", "MB", "GB", "TB")


def size(value: float | None, *, beside: float | None = None) -> str:
    """Bytes in decimal units, to three significant digits.

    `beside` is another size in the same row: the unit is that of the larger one.

    >>> size(228_000_000), size(9_120), size(512), size(801_000, beside=2_910_000)
    ('228 MB', '9.12 kB', '512 B', '0.80 MB')
    """
    if value is None:
        return UNKNOWN
    if beside is None or abs(beside) <= abs(value):
        return _scaled(value, _BYTES)
    unit = _scaled(beside, _BYTES).split()[1]
    scaled = value / 1000 ** _BYTES.index(unit)
    digits = 0 if unit == "B" or scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    return f"{scaled:.{digits if scaled >= 0.0995 or not digits else 3}f} {unit}"


def _scaled(value: float, units: Sequence[str]) -> str:
    """`value` with the largest of `units` (a thousand apart) that keeps it at least one."""
    scaled, at = float(value), 0
    # 999.5 would round to 1000 of this unit: it is 1.00 of the next.
    while abs(scaled) >= 999.5 and at < len(units) - 1:
        scaled, at = scaled / 1000, at + 1
    digits = 0 if at == 0 or abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
    return f"{scaled:.{digits}f} {units[at]}".strip()


def percent(fraction: float | None, *, digits: int = 1) -> str:
    """A fraction in 0..1 as a percentage.

    >>> percent(2 / 3), percent(1, digits=0), percent(None)
    ('66.7%', '100%', 'not known')
    """
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f}%"


def share(fraction: float | None) -> str:
    """A share that never claims to be nothing or everything by rounding alone.

    >>> share(0.0004), share(0.0542), share(0.9996), share(1.0), share(1.3)
    ('under 0.1%', '5.4%', 'over 99.9%', '100%', '130%')
    """
    if fraction is None:
        return UNKNOWN
    if 0 < fraction < 0.001:
        return "under 0.1%"
    if 0.999 < fraction < 1:
        return "over 99.9%"
    return percent(fraction, digits=0 if fraction == 0 or fraction >= 1 else 1)


def interval(low: float | None, high: float | None) -> str:
    """The bounds of a fraction's interval, in whole percent; empty when not known.

    >>> interval(0.58, 0.74), interval(None, None)
    ('58–74', '')
    """
    return "" if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}"


def percent_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A fraction as a percentage with its interval.

    >>> percent_interval(2 / 3, 0.58, 0.74), percent_interval(0.5, None, None)
    ('66.7% (58–74)', '50.0%')
    """
    bounds = interval(low, high)
    return f"{percent(value)} ({bounds})" if bounds and value is not None else percent(value)


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds, to about three significant digits; always in this unit.

    >>> milliseconds(0.4321), milliseconds(9.04), milliseconds(151.2), milliseconds(1510)
    ('0.43 ms', '9.0 ms', '151 ms', '1,510 ms')
    """
    if value is None:
        return UNKNOWN
    return f"{value:,.{2 if value < 1 else 1 if value < 99.95 else 0}f} ms"


def seconds(value: float | None) -> str:
    """A duration given in seconds, as people say it.

    >>> seconds(3.04), seconds(98), seconds(4000)
    ('3.0 s', '1 min 38 s', '1 h 7 min')
    """
    if value is None:
        return UNKNOWN
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes} min"


def degrees(value: float | None) -> str:
    """An angle, without needless decimals.

    >>> degrees(15.0), degrees(12.5)
    ('15°', '12.5°')
    """
    return UNKNOWN if value is None else f"{value:.4g}°"


def number(value: float | None, *, digits: int = 2) -> str:
    """A plain number with a fixed count of decimals, or a scientific one when it is tiny.

    >>> number(0.9213), number(3e-6), number(0)
    ('0.92', '3.0 × 10⁻⁶', '0.00')
    """
    if value is None:
        return UNKNOWN
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        digits_text, exponent = f"{value:.1e}".split("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{digits_text} × 10{raised}"
    return f"{value:.{digits}f}"


def plural(amount: int, noun: str, nouns: str | None = None) -> str:
    """An amount with its noun in the right number.

    >>> plural(1, "image"), plural(1200, "image"), plural(2, "class", "classes")
    ('1 image', '1,200 images', '2 classes')
    """
    return f"{integer(amount)} {noun if amount == 1 else nouns or noun + 's'}"


def listed(items: Sequence[str]) -> str:
    """Items joined as in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(part for part in (", ".join(items[:-1]), "".join(items[-1:])) if part)


def some(names: Sequence[str]) -> str:
    """Names as in a sentence; of more than four the first two and the last.

    >>> some(["fc6", "fc7"]), some(["a", "b", "c", "d", "e"])
    ('fc6 and fc7', 'a, b, ... e (5 layers)')
    """
    if len(names) <= 4:
        return listed(names)
    return f"{names[0]}, {names[1]}, ... {names[-1]} ({len(names)} layers)"


def runs_of(numbers: Sequence[int]) -> str:
    """Whole numbers as in a sentence; four or more in a row are given by their ends.

    >>> runs_of([3, 4, 5]), runs_of([0, 1, 2, 3]), runs_of([])
    ('3, 4 and 5', '0 to 3', '')
    """
    first, last = (numbers[0], numbers[-1]) if numbers else (0, 0)
    if len(numbers) > 3 and list(numbers) == list(range(first, last + 1)):
        return f"{first} to {last}"
    return listed([str(number) for number in numbers])


def shorten(text: str, limit: int = 18) -> str:
    """`text` cut to `limit` characters, the last one an ellipsis if anything was cut.

    A name stays isolated from the text around it.

    >>> shorten("Disgust"), shorten("a very long class name", 10)
    ('Disgust', 'a very lo…')
    """
    if ISOLATE in text:
        return isolated(shorten(not_isolated(text), limit))
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def change(before: float | None, after: float | None) -> str:
    """How `after` compares with `before`, as a factor or a share.

    >>> change(228, 17), change(9, 9.05), change(9, 6), change(6, 9)
    ('13 times smaller', 'unchanged', '33% smaller', '50% larger')
    """
    if before is None or after is None or before <= 0 or after <= 0:
        return UNKNOWN
    ratio = after / before
    if abs(ratio - 1) < 0.01:
        return "unchanged"
    if ratio <= 0.5:
        times = 1 / ratio
        return f"{times:.{1 if times < 9.95 else 0}f} times smaller"
    return f"{percent(abs(1 - ratio), digits=0)} {'smaller' if ratio < 1 else 'larger'}"


def proper(name: str) -> str:
    """A backbone's or runtime's name as it is usually written, if it is known.

    >>> proper("alexnet"), proper("my_net")
    ('AlexNet', 'my_net')
    """
    known = {"alexnet": "AlexNet", "pytorch": "PyTorch", "onnxruntime": "ONNX Runtime"}
    return known.get(name.lower(), name)


def plain(value: Any) -> str:
    """A value of a configuration or a record as one would type it.

    >>> plain(None), plain(True), plain([3, 1e-05]), plain("auto")
    ('–', 'yes', '3, 1e-5', 'auto')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in cast("Sequence[Any]", value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
