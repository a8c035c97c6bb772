"""The zoo of small modules, cut by Secateurs and by torch-pruning, each checked the same way.

Each module of tests/prune/zoo has weights of which no two are alike. Either tool removes half of
the units of every group that it offers, with its default settings and no training. In the reference
every weight that is gone is zero, and norms work over the channels that are left: a cut is correct
when the outputs differ from the reference's by at most 1e-5 of the effect of the cut. For
torch-pruning the layers that make the outputs are ignored, as its users do. Every cut runs in a
process of its own with limits on time and memory.

    python benchmarks/coverage/zoo.py --json benchmarks/measured/zoo.json
    python benchmarks/coverage/zoo.py layer_norm unet
    python benchmarks/coverage/zoo_table.py benchmarks/measured/zoo.json --into docs/coverage.md
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "prune" / "zoo"))

from checks.halving import halved
from checks.reference import LIMIT, distinct, error, example, uncut
from shapes.entry import Entry, run
from shapes.zoo import OF_KIND

from secateurs.errors import InputError
from secateurs.limited_process import bounded

SECONDS, MIB = 60.0, 4096
CORRECT, WRONG, RAISES, NOTHING = "cut correctly", "wrong result", "raises", "cuts nothing"
BY_WORTH = [CORRECT, NOTHING, RAISES, WRONG]
DRAWS = 3  # of weights: which units go depends on them
INPUTS = (5, 6, 7, 8)  # seeds of the inputs on which outputs are compared
Row = dict[str, Any]


def ours(entry: Entry, model: nn.Module) -> nn.Module:
    """The module without half of the units of each group that Secateurs offers."""
    return halved(model, example(entry, 4))[0]


def theirs(entry: Entry, model: nn.Module) -> nn.Module:
    """The module pruned by torch-pruning's MetaPruner."""
    import torch_pruning

    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        pruner: Any = torch_pruning.MetaPruner(
            model,
            example(entry, 2),
            importance=torch_pruning.importance.MagnitudeImportance(),
            pruning_ratio=0.5,
            ignored_layers=[m for name, m in model.named_children() if name.startswith("head")],
            forward_fn=lambda network, inputs: run(network, inputs),
        )
        pruner.step()
    return model


def outcome(entry: Entry, tool: Callable[[Entry, nn.Module], nn.Module]) -> Row:
    """What a tool makes of a module with several draws of weights: the worst that came, as data."""
    found = [_outcome(entry, tool, seed) for seed in range(DRAWS)]
    return max(found, key=lambda row: BY_WORTH.index(row["outcome"]))


def _outcome(entry: Entry, tool: Callable[[Entry, nn.Module], nn.Module], seed: int) -> Row:
    model = distinct(entry, seed)
    before = sum(parameter.numel() for parameter in model.parameters())
    try:
        pruned = tool(entry, model)
    except Exception as raised:
        return {"outcome": RAISES, "note": said(raised)}
    after = sum(parameter.numel() for parameter in pruned.parameters())
    found: Row = {"removed": 1 - after / before, "uncut": uncut(entry, model, pruned)}
    if after == before:
        return {"outcome": NOTHING, **found}
    try:
        errors = [error(model, pruned, example(entry, seed=seed)) for seed in INPUTS]
    except Exception as raised:
        return {"outcome": WRONG, "note": f"the pruned module raises {said(raised)}", **found}
    if max(errors) == float("inf"):
        return {"outcome": WRONG, "note": "outputs of another shape", **found}
    right = max(errors) <= LIMIT
    return {"outcome": CORRECT if right else WRONG, **found, "error": max(errors)}


def said(raised: BaseException) -> str:
    """The first line of what was raised, with its type."""
    lines = str(raised).strip().splitlines() or [""]
    return f"{type(raised).__name__}: {lines[0][:160]}"


def held(entry: Entry, tool: Callable[[Entry, nn.Module], nn.Module]) -> Row:
    """The outcome from a process of its own."""
    try:
        return bounded(lambda: outcome(entry, tool), seconds=SECONDS, mib=MIB)
    except (TimeoutError, MemoryError, RuntimeError) as raised:
        return {"outcome": RAISES, "note": said(raised)}


def machine() -> Row:
    """What the rows were measured on."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    names = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "date": str(datetime.now(UTC).date()),
        "versions": {name: version(name) for name in ("torch", "torch-pruning")},
    }


def main() -> None:
    from secateurs.files import write_json

    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("modules", nargs="*", help="all if none")
    words.add_argument("--json", type=Path, help="file for all rows")
    given = words.parse_args()
    torch.set_num_threads(1)  # processes are forked
    torch.backends.mha.set_fastpath_enabled(False)  # norms of its own
    warnings.simplefilter("ignore")
    import torch_pruning  # noqa: F401  # pyright: ignore[reportUnusedImport]  (before the children)

    for tool in (ours, theirs):  # what is imported or compiled once
        _outcome(OF_KIND["conv2d"][1], tool, 0)
    rows: list[Row] = []
    for name in given.modules or OF_KIND:
        if name not in OF_KIND:
            raise InputError(f"the zoo has no module {name!r}")
        kind, entry = OF_KIND[name]
        row = {
            "name": name,
            "kind": kind,
            "secateurs": held(entry, ours),
            "torch_pruning": held(entry, theirs),
        }
        rows.append(row)
        parts = [f"{row[tool]['outcome']} {row[tool].get('note', '')}" for tool in TOOLS]
        print(f"{name}: {' | '.join(parts)}", flush=True)
    for tool in TOOLS:
        print(tool, dict(Counter(row[tool]["outcome"] for row in rows)))
    if given.json is not None:
        write_json(given.json, {"machine": machine(), "rows": rows})


TOOLS = ("secateurs", "torch_pruning")

if __name__ == "__main__":
    main()
