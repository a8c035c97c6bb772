"""Check that constraints.txt installs on the lowest and the newest supported Python.

`uv` resolves the package with its extras from an index, without installing anything. The check
fails when a pin does not support a Python version, or when a package that would be installed is not
pinned.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Extras for an environment of their own, whose packages want an older PyTorch than the pinned one.
APART = {"litert"}


def supported(project: dict[str, Any]) -> list[str]:
    """The lowest and the newest Python version in the classifiers of pyproject.toml."""
    found = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    order = sorted(found, key=lambda version: int(version.split(".")[1]))
    return [order[0], order[-1]]


def pins(text: str) -> set[str]:
    """Each `name==version` of a requirements file, with the name normalised."""
    found = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", text, re.M)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in found}


def main() -> int:
    """Resolve once per version; print what is wrong and return the exit code."""
    allowed = pins((ROOT / "constraints.txt").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [f"--extra={name}" for name in sorted(project["optional-dependencies"].keys() - APART)]
    failed = 0
    for version in supported(project):
        resolved = subprocess.run(
            [
                *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"),
                *(*extras, "--constraint", "constraints.txt", "--only-binary", ":all:"),
                *("--python-version", f"{version}.0", "--no-header"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        missing = sorted(pins(resolved.stdout) - allowed)
        if resolved.returncode != 0:
            print(f"Python {version}: not installable\n{resolved.stderr}", file=sys.stderr)
        elif missing:
            print(f"Python {version}: not pinned: {', '.join(missing)}", file=sys.stderr)
        failed += resolved.returncode != 0 or bool(missing)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
