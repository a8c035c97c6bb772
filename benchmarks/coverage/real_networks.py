"""Networks of other libraries, end to end through the public calls, and torch-pruning beside it.

For every network: `secateurs.inspect`, `prune` to half of the multiply-accumulates on 16 to 256
samples, one step of its own training, `save`, `load_weights` into its own constructor (bit for
bit), and `export` to ONNX, which is checked against PyTorch. Weights are random. Then
torch-pruning with its defaults on the same network: half of the channels by magnitude. Each runs in
a process of its own with limits of time and memory.

transformers, timm and segmentation-models-pytorch are not dependencies; what is not installed is
left out. The JSON file is written after each network and gone on from.

    python benchmarks/coverage/real_networks.py --json benchmarks/measured/real_networks.json
    python benchmarks/coverage/real_networks.py "transformers ViT" "timm resnet10t"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from command_steps import Limits, last_json, load_libraries, run_function
from network_case import CLASSES, Case
from real_network_catalog import cases

BUDGET = 0.5
COMPARED_S = 60.0  # for torch-pruning, which takes a second or hangs
MODULES = {"transformers": "transformers", "timm": "timm"}
MODULES |= {"segmentation-models-pytorch": "segmentation_models_pytorch"}
TEMPORARY = re.compile(r"/tmp/\w+/")
Row = dict[str, Any]


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def examine(case: Case) -> None:
    """Take one network the whole way, and print what became of it after every step."""
    import torch

    import secateurs
    from secateurs.api.models import call, call_with, run_batch
    from secateurs.nets.trace import eval_mode, tensors_of

    warnings.simplefilter("ignore")
    row: Row = {"step": "build"}

    def reached(step: str) -> None:
        row["step"] = step
        print(json.dumps(row), flush=True)

    torch.manual_seed(0)
    model = case.make()
    batches = [case.batch(min(16, case.num_samples)) for _ in range(max(1, case.num_samples // 16))]
    example = unlabelled(batches[0])
    with torch.no_grad(), eval_mode(model):
        call(model, call_with(example, model))
    before = peak_mib()

    reached("inspect")
    started = time.perf_counter()
    seen = secateurs.inspect(model, example)
    row |= {
        "inspect_s": round(time.perf_counter() - started, 1),
        "groups": len(seen.groups),
        "parameters": seen.num_parameters,
        "reasons": Counter(general(left.reason) for left in seen.not_pruned),
    }

    reached("prune")
    started = time.perf_counter()
    budget = secateurs.Budget(macs=BUDGET, round_to=1, fewest=1)
    small = secateurs.prune(model, batches, budget, **case.words)
    row |= {
        "prune_s": round(time.perf_counter() - started, 1),
        "prune_mib": round(peak_mib() - before),
        "macs": small.report["macs"],
        "params": small.report["parameters"],
        "parity": small.report["parity"],
        "change": small.report["change"],
    }

    reached("train")
    pruned = small.model.train()
    old = [parameter.detach().clone() for parameter in pruned.parameters()]
    optimiser = torch.optim.SGD(pruned.parameters(), lr=1e-3)
    loss = case.loss(pruned, batches[0]) if case.loss else run_batch(pruned, batches[0])
    loss.backward()
    optimiser.step()
    moved = any(not torch.equal(a, b) for a, b in zip(old, pruned.parameters(), strict=True))
    assert bool(loss.isfinite()) and moved, "the training step changed nothing"

    reached("save")
    with tempfile.TemporaryDirectory() as folder:
        small.save(Path(folder) / "small.safetensors")
        reached("load")
        torch.manual_seed(1)
        again = secateurs.load_weights(case.make(), Path(folder) / "small.safetensors").eval()
        pruned.eval()
        first, second = pruned.state_dict(), again.state_dict()
        assert first.keys() == second.keys(), "other names after loading"
        assert all(torch.equal(first[key], second[key]) for key in first), "not bit for bit"
        with torch.no_grad():
            for a, b in zip(
                tensors_of(call(pruned, call_with(example, pruned))),
                tensors_of(call(again, call_with(example, again))),
                strict=True,
            ):
                assert torch.equal(a, b), "other outputs after loading"
        reached("export")
        few = first_samples(example, 2)
        check = secateurs.export(again, Path(folder) / "small.onnx", few)
        row["export_difference"] = check.difference
    reached("done")


def compare(case: Case) -> None:
    """torch-pruning on the same network; prints its outcome."""
    import torch

    from secateurs.api.models import call, call_with
    from torch_pruning_outcome import outcome

    torch.manual_seed(0)
    model = case.make()
    inputs = call_with(first_samples(unlabelled(case.batch(4)), 2), model)
    found = outcome(model, inputs, call, CLASSES)
    print(json.dumps(found))


def unlabelled(batch: Any) -> Any:
    """What the network is called with."""
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != "labels"}
    return batch[0] if isinstance(batch, tuple) else batch


def first_samples(inputs: Any, num: int) -> Any:
    """The first samples of example inputs."""
    from secateurs.nets.batches import samples

    return samples(inputs, slice(0, num))


def general(reason: str) -> str:
    """A reason without the paths and numbers of one layer."""
    words = [word for word in reason.split() if "." not in word.strip(".") or word.endswith(".")]
    return re.sub(r"\d[\d.e+-]*", "N", " ".join(words))


def run(name: str, case: Case, what: Callable[[Case], None], given: Any, logs: Path) -> Row:
    """One process; the last line of JSON, and the error where it failed."""

    def work() -> None:
        try:
            what(case)
        except BaseException as error:  # its first line last, for whoever reads the last line
            traceback.print_exc()
            line = (str(error).strip().splitlines() or [""])[0]
            sys.stderr.write(f"{type(error).__name__}: {line}\n")
            sys.stderr.flush()
            raise SystemExit(1) from None

    folder = logs / re.sub(r"\W+", "_", name)
    seconds = min(given.time_limit, COMPARED_S) if what is compare else given.time_limit
    limits = Limits(time.perf_counter() + seconds, given.memory_gib)
    step = run_function(what.__name__, work, limits, folder)
    answer = last_json((folder / f"{what.__name__}.out").read_text(errors="replace"))
    if not step.passed:
        answer |= {"error": TEMPORARY.sub("", step.error), "where": step.where}
    return answer | {"seconds": step.seconds}


def machine(given: argparse.Namespace) -> Row:
    """What the rows were measured on."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    names = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": given.threads,
        "time_limit_s": given.time_limit,
        "memory_gib": given.memory_gib,
        "versions": {name: number for name in PACKAGES if (number := installed(name))},
    }


PACKAGES = ("torch", "torchvision", "transformers", "timm", "segmentation-models-pytorch")
PACKAGES += ("torch-pruning", "onnxruntime")


def installed(name: str) -> str:
    """The version of a package, empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> None:
    from secateurs.files import read_json, write_json

    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("networks", nargs="*", help="in this order; all if none")
    words.add_argument("--json", type=Path, help="all rows; read again to go on")
    words.add_argument("--failed", action="store_true", help="run those that did not pass again")
    words.add_argument("--again", action="store_true", help="run those that are there again")
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--time-limit", type=float, default=300.0, help="seconds for a process")
    words.add_argument("--memory-gib", type=float, default=6.0)
    words.add_argument("--work", type=Path, help="folder for logs")
    given = words.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    load_libraries(given.threads)
    for module in MODULES.values():
        if find_spec(module):
            __import__(module)
    known = {
        name: case
        for name, case in cases().items()
        if case.library not in MODULES or find_spec(MODULES[case.library])
    }
    rows: dict[str, Row] = {}
    if given.json and given.json.exists():
        rows = {row["network"]: row for row in read_json(given.json)["rows"]}
    logs = given.work or Path(tempfile.mkdtemp(prefix="real-networks-"))
    for name in given.networks or list(known):
        old: Row = {} if given.again else rows.get(name, {})
        ours, theirs = old.get("secateurs"), old.get("torch_pruning")
        if given.failed and ours is not None and "error" in ours:
            ours = None
        if ours is not None and theirs is not None:
            continue
        ours = ours or run(name, known[name], examine, given, logs)
        theirs = theirs or run(name, known[name], compare, given, logs)
        rows[name] = {
            "network": name,
            "library": known[name].library,
            "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M}",
            "secateurs": ours,
            "torch_pruning": theirs,
        }
        print(f"{name}: {said(ours)}; torch-pruning: {said(theirs)}", flush=True)
        if given.json:
            found = [rows[one] for one in cases() if one in rows]
            write_json(given.json, {"machine": machine(given), "rows": found})
    print(f"logs in {logs}")


def said(row: Row) -> str:
    """A line on a row for whoever waits."""
    if "error" in row:
        return f"{row.get('step', '')}: {row['error']}"
    keys = ("macs", "params", "change", "difference")
    parts = [f"{key} {row[key]:.3g}" for key in keys if row.get(key) is not None]
    return ", ".join([*parts, f"{row['seconds']:.0f} s"])


if __name__ == "__main__":
    main()
