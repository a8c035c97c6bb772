"""The default study on sets of images that are hard to study, made here, and what it must say.

Three sets: 150 classes of 12 images; three classes of 300, 30 and 8; four classes of grey images of
16 bits, of which half use a narrow part of the range. For each the command `secateurs study` runs
to its end, and its results are checked: is the answer sensible, and are the cautions there that a
reader needs.

    python benchmarks/studies/hard_sets.py --store DIR [--sets many,uneven,grey] [-- OPTIONS]
    python benchmarks/studies/hard_sets.py FILE.json
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.files import write_json

Row = dict[str, Any]
Results = dict[str, Any]
PX = 72
DEFAULT = (
    *("--backbones", "squeezenet1_1", "--image-size", "128", "--epochs", "4", "--runs", "1"),
)
SHAPES, TEXTURES, HUES = 5, 3, 10


def pattern(shape: int, texture: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A figure with a texture on a noisy ground, (PX, PX) in 0..1, its place and size at random."""
    y, x = np.mgrid[:PX, :PX] / PX - 0.5
    x, y = x - generator.uniform(-0.15, 0.15), y - generator.uniform(-0.15, 0.15)
    size = generator.uniform(0.22, 0.34)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    inside = (
        radius < size,
        np.maximum(abs(x), abs(y)) < 0.85 * size,
        (radius < size) & (radius > 0.5 * size),
        np.minimum(abs(x), abs(y)) < 0.3 * size,
        radius < size * (0.65 + 0.35 * np.cos(5 * angle)),
    )[shape]
    waves = (np.ones_like(x), np.sin(70 * x) > 0, np.sin(45 * (x + y)) > 0)[texture]
    ground = 0.18 + 0.08 * generator.standard_normal((PX, PX))
    figure = 0.45 + 0.4 * waves + 0.06 * generator.standard_normal((PX, PX))
    return np.clip(np.where(inside, figure, ground), 0, 1)


def coloured(values: NDArray[np.float64], hue: int, generator: np.random.Generator) -> Image.Image:
    """A pattern in one of the hues, a little off, as 8-bit RGB."""
    shade = np.asarray(colorsys.hsv_to_rgb((hue + generator.normal(0, 0.12)) / HUES, 0.75, 1.0))
    return Image.fromarray(np.rint(255 * values[..., None] * shade).astype(np.uint8))


def grey16(values: NDArray[np.float64], *, narrow: bool) -> Image.Image:
    """A pattern as 16-bit grey; a `narrow` one uses 12 of the bits, as many cameras do."""
    return Image.fromarray(np.rint((4095 if narrow else 65535) * values).astype(np.uint16))


def make_many(folder: Path, generator: np.random.Generator) -> None:
    for number in range(SHAPES * TEXTURES * HUES):
        shape, texture, hue = number % 5, number // 5 % 3, number // 15
        for k in range(12):
            image = coloured(pattern(shape, texture, generator), hue, generator)
            write(image, folder / f"class{number:03}" / f"{k:02}.png")


def make_uneven(folder: Path, generator: np.random.Generator) -> None:
    for shape, (name, num) in enumerate((("common", 300), ("seldom", 30), ("rare", 8))):
        for k in range(num):
            hue = int(generator.integers(HUES))
            image = coloured(pattern(shape, 0, generator), hue, generator)
            write(image, folder / name / f"{k:03}.png")


def make_grey(folder: Path, generator: np.random.Generator) -> None:
    for shape, name in enumerate(("disc", "square", "ring", "cross")):
        for k in range(40):
            image = grey16(pattern(shape, 0, generator), narrow=k % 2 == 0)
            write(image, folder / name / f"{k:02}.png")


def write(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def said(results: Results, page: str, *words: str) -> bool:
    """Whether a caution, or the page, has all of some words."""
    texts = [*results["cautions"], page]
    return any(all(word in text for word in words) for text in texts)


def check_always(results: Results, page: str) -> Row:
    test = results["recommended"]["test"]
    scores = {score["class"]: score for score in test["per_class"]}
    return {
        "every class is in the evaluation": set(scores) == set(results["data"]["classes"]),
        "better than always the largest class": test["accuracy"] > test["majority_accuracy"],
        "an interval is around the accuracy": test["accuracy_low"]
        < test["accuracy"]
        < test["accuracy_high"]
        or test["accuracy"] == 1,
        "the answer is in the page": results["answer"]["name"] in page,
        "trust was measured": bool(results["trust"]["corruptions"]),
    }


def check_many(results: Results, page: str) -> Row:
    test = results["recommended"]["test"]
    return {
        "at least 10 times chance": test["accuracy"] > 10 / 150,
        "says that classes have few test images": said(
            results, page, "150 of 150 classes have fewer than"
        ),
        "the page stays below 12 MB": len(page) < 12e6,
    }


def check_uneven(results: Results, page: str) -> Row:
    test = results["recommended"]["test"]
    rare = next(score for score in test["per_class"] if score["class"] == "rare")
    return {
        "names the baseline of the largest class": test["majority_accuracy"] > 0.8
        and said(results, page, "largest class"),
        "says that rare has few images": said(results, page, "few images", "rare"),
        "the rare class is on the test side": rare["num_true"] >= 1,
        "balanced accuracy is reported": test["balanced_accuracy"] is not None,
    }


def check_grey(results: Results, page: str) -> Row:
    test = results["recommended"]["test"]
    return {
        "both ranges of brightness are read": test["accuracy"] > 0.6,
        "no file was refused": results["data"]["num_images"] == 160,
        "says that some images use a narrow range": said(results, page, "use only 12 bits"),
    }


Maker = Callable[[Path, np.random.Generator], None]
SETS: dict[str, tuple[Maker, Callable[[Results, str], Row]]] = {
    "many": (make_many, check_many),
    "uneven": (make_uneven, check_uneven),
    "grey": (make_grey, check_grey),
}


def run(name: str, store: Path, words: Sequence[str]) -> Row:
    """Make a set, study it by the command, and check what came."""
    make, check = SETS[name]
    data, out = store / "data" / name, store / name
    if not data.exists():
        make(data, np.random.default_rng(0))
    started = time.perf_counter()
    command = [sys.executable, "-m", "secateurs", "study", str(data), "--out", str(out), *words]
    done = subprocess.run(
        [*command, "--progress", "plain"], check=False, capture_output=True, text=True
    )
    row: Row = {"set": name, "rc": done.returncode, "seconds": time.perf_counter() - started}
    if done.returncode:
        return row | {"checks": {}, "error": done.stderr.strip().splitlines()[-1:]}
    results = json.loads((out / "results.json").read_text())
    page = (out / "report.html").read_text()
    test = results["recommended"]["test"]
    return row | {
        "recommended": results["answer"]["name"],
        "test_accuracy": test["accuracy"],
        "balanced_accuracy": test["balanced_accuracy"],
        "majority_accuracy": test["majority_accuracy"],
        "num_test": test["num_images"],
        "cautions": results["cautions"],
        "checks": check_always(results, page) | check(results, page),
    }


def table(measured: Row) -> str:
    """The figures as a Markdown table, one row for each set, then the checks that failed."""
    lines = [
        f"{measured['date']}, {measured['machine']}; `{measured['command']}`",
        "",
        "| set | recommended | test | balanced | largest class | time | checks passed |",
        "|---|---|---|---|---|---|---|",
    ]
    wrong: list[str] = []
    for row in measured["rows"]:
        checks = row["checks"]
        passed = f"{sum(checks.values())} of {len(checks)}"
        if row["rc"]:
            lines.append(f"| {row['set']} | exit code {row['rc']} | | | | | |")
            wrong.append(f"- {row['set']}: {row['error']}")
            continue
        lines.append(
            f"| {row['set']} | {row['recommended']} | {row['test_accuracy']:.1%} | "
            f"{row['balanced_accuracy']:.1%} | {row['majority_accuracy']:.1%} | "
            f"{row['seconds']:.0f} s | {passed} |"
        )
        wrong += [f"- {row['set']}: not so: {what}" for what, fine in checks.items() if not fine]
    return "\n".join([*lines, "", *wrong]) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("file", nargs="?", help="a file of figures to print")
    words.add_argument("--store", type=Path, help="where sets and studies are kept")
    words.add_argument("--sets", default=",".join(SETS))
    words.add_argument("--json", type=Path, default=Path("hard_sets.json"))
    own, _, more = " ".join(sys.argv[1:]).partition(" -- ")
    given = words.parse_args(own.split())
    if given.file:
        print(table(json.loads(Path(given.file).read_text())), end="")
        return
    if given.store is None:
        words.error("give --store DIR, or a file of figures")
    options = more.split() or list(DEFAULT)
    measured: Row = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "command": " ".join(["secateurs study SET", *options]),
        "rows": [],
    }
    for name in given.sets.split(","):
        measured["rows"].append(run(name, given.store, options))
        write_json(given.json, measured)
    print(table(measured), end="")
    if not all(row["rc"] == 0 and all(row["checks"].values()) for row in measured["rows"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
