"""What stands behind and before a rendered face: shapes as SVG, drawn from seeded numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

# Pixels of a picture's sides.
SIDE = 256
SKINS = ("#FFDBB4", "#F3C9A0", "#EDB98A", "#D9A070", "#D08B5B", "#AE5D29", "#8A5433", "#614335")


class Draws:
    """Numbers that depend on the words given alone, on every platform and Python version.

    Only `random.Random.random` is used, the one method whose sequence Python guarantees.

    >>> Draws(0, "face", 7).uniform(0, 1) == Draws(0, "face", 7).uniform(0, 1)
    True
    """

    def __init__(self, *key: int | str) -> None:
        self._source = random.Random("/".join(str(part) for part in key))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._source.random()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._source.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, all equally likely."""
        return items[int(self._source.random() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in a random order."""
        order = sorted((self._source.random(), place) for place in range(len(items)))
        return [items[place] for _, place in order]

    def color(self, low: float = 20, high: float = 235) -> str:
        """An sRGB colour whose channels lie in [low, high)."""
        return "#" + "".join(f"{int(self.uniform(low, high)):02x}" for _ in range(3))


def _ellipse(draws: Draws, color: str, *, size: tuple[float, float]) -> str:
    x, y = draws.uniform(-20, SIDE + 20), draws.uniform(-20, SIDE + 20)
    return (
        f'<ellipse cx="{x:.1f}" cy="{y:.1f}"'
        f' rx="{draws.uniform(*size):.1f}" ry="{draws.uniform(*size):.1f}" fill="{color}"/>'
    )


def clutter(draws: Draws, count: int) -> str:
    """So many boxes, blobs, triangles, stripes and bare heads anywhere in the picture."""
    shapes: list[str] = []
    for _ in range(count):
        color, kind = draws.color(), draws.pick(("box", "blob", "triangle", "stripes", "head"))
        x, y = draws.uniform(-40, SIDE), draws.uniform(-40, SIDE)
        turn = f'transform="rotate({draws.uniform(-40, 40):.1f} {x:.1f} {y:.1f})"'
        width, height = draws.uniform(15, 120), draws.uniform(15, 120)
        if kind == "box":
            shapes.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
                f' rx="{draws.uniform(0, 14):.1f}" fill="{color}" {turn}/>'
            )
        elif kind == "blob":
            shapes.append(_ellipse(draws, color, size=(8, 60)))
        elif kind == "head":
            shapes.append(_ellipse(draws, draws.pick(SKINS), size=(20, 45)))
        elif kind == "triangle":
            points = " ".join(
                f"{x + draws.uniform(-70, 70):.1f},{y + draws.uniform(-70, 70):.1f}"
                for _ in range(3)
            )
            shapes.append(f'<polygon points="{points}" fill="{color}"/>')
        else:
            step = draws.uniform(8, 18)
            lines = "".join(f"M{k * step:.1f} 0V{height:.1f}" for k in range(6))
            shapes.append(
                f'<g {turn}><path transform="translate({x:.1f} {y:.1f})" d="{lines}"'
                f' stroke="{color}" stroke-width="{step / 2:.1f}"/></g>'
            )
    return "".join(shapes)


def room(draws: Draws) -> str:
    """A wall and a dozen shapes before it, wider than the picture so that a camera can pan."""
    # One flat colour: a gradient over the whole picture costs as much time as all the shapes.
    margin = SIDE / 2
    wall = f'<rect x="{-margin}" y="{-margin}" width="{2 * SIDE}" height="{2 * SIDE}"'
    return f'{wall} fill="{draws.color()}"/>{clutter(draws, 12)}'


def occlusion(draws: Draws) -> str:
    """A pole, somebody passing, fingers or leaves before a part of the face, never all of it."""
    kind = draws.pick(("pole", "passer-by", "fingers", "leaves"))
    side = draws.pick((-1, 1))
    if kind == "pole":
        middle, tilt = draws.uniform(70, 186), draws.uniform(-25, 25)
        width = draws.uniform(10, 20)
        shape = f'<rect x="{-width / 2:.1f}" y="-220" width="{width:.1f}" height="440"'
        where = f'transform="translate({middle:.1f} 128) rotate({tilt:.1f})"'
        return f'{shape} fill="{draws.color()}" {where}/>'
    if kind == "passer-by":
        x, y = 128 + side * draws.uniform(105, 135), draws.uniform(200, 260)
        return (
            f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{draws.uniform(50, 80):.1f}"'
            f' ry="{draws.uniform(70, 110):.1f}" fill="{draws.color(20, 120)}"/>'
        )
    if kind == "fingers":
        skin, x, y = draws.pick(SKINS), 128 + side * draws.uniform(48, 75), draws.uniform(150, 190)
        fingers = "".join(
            f'<rect x="{k * 15 - 30}" y="{-38 - 9 * (k % 3 > 0)}" width="14" height="120" rx="7"'
            f' fill="{skin}" stroke="#00000040"/>'
            for k in range(4)
        )
        turn = -side * draws.uniform(5, 40)
        return f'<g transform="translate({x:.1f} {y:.1f}) rotate({turn:.1f})">{fingers}</g>'
    x, y = 128 + side * draws.uniform(70, 120), draws.uniform(-10, 90)
    green = f"#2f{int(draws.uniform(70, 150)):02x}33"
    return "".join(
        f'<ellipse cx="{x + draws.uniform(-30, 30):.1f}" cy="{y + draws.uniform(-40, 40):.1f}"'
        f' rx="{draws.uniform(6, 12):.1f}" ry="{draws.uniform(22, 44):.1f}" fill="{green}"'
        f' transform="rotate({draws.uniform(-70, 70):.1f} {x:.1f} {y:.1f})"/>'
        for _ in range(4)
    )
