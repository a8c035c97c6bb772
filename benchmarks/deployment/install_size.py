"""Sizes of an installation: the core, all extras, the development environment, PyTorch's part.

python benchmarks/deployment/install_size.py

Sums the installed files of `secateurs` and of everything that it requires, package by package, in
the environment that runs it. An environment made by `make study` has all of them.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROWS = {
    "core": ("secateurs", ()),
    "all": ("secateurs", ("all",)),
    "dev": ("secateurs", ("dev",)),
    "PyTorch, in each": ("torch", ()),
}


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name: str, extras: tuple[str, ...]) -> dict[str, Distribution]:
    """A package with all that it needs, by name; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, extra) for extra in ("", *extras)]
    while waiting:
        package, extra = waiting.pop()
        if (plain(package), extra) in seen:
            continue
        seen.add((plain(package), extra))
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            continue
        found[plain(package)] = installed
        for text in installed.requires or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need.name, more) for more in ("", *need.extras)]
    return found


def num_bytes(installed: Distribution) -> int:
    """The size of a package's files."""
    paths = [Path(str(installed.locate_file(file))) for file in installed.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print a row for each kind of installation."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.parse_args()
    print(f"Python {sys.version.split()[0]}\n\n| installation | packages | size |\n|---|---|---|")
    for title, (name, extras) in ROWS.items():
        packages = required(name, extras)
        size = sum(map(num_bytes, packages.values()))
        print(f"| {title} | {len(packages)} | {size / 1e9:.2f} GB |")


if __name__ == "__main__":
    main()
