"""The paper's sweep over depths in four ways: a plain PyTorch loop, Lightning, fastai, and ours.

AlexNet, 8 depths x 5 runs x 50 epochs, one Adam step on all 392 training images an epoch, 149
validation images after each. All ways read the same JPEG frames of 720 x 576, written once into a
temporary folder, and draw the same views (rotation within 30 degrees, a crop of 8 to 100% of the
area, a flip). The other ways (`loops.py`) decode and transform the frames in every epoch, in
float32, with the loader that is fastest for the plain loop. Ours goes through the functions of
`secateurs sweep`, which decode once, to 256 x 256, and draw the views from that: with a bank of
`--views` views an image and with a new view in every epoch, in the arithmetic that `auto` takes
here and in float32. Each way runs in a process of its own.

Pieces are measured and the whole is computed from them:

    other ways  sum over depths of  runs x epochs x s
    ours        open + sum over depths of  F + runs x (T + W + A)

s is the median epoch after an untimed one, without what it takes to set up a training. Of ours,
each depth in turn is trained with E1 and with E2 epochs (`--epochs`). F is the frozen layers:
with a bank its mean in the first run, and in each other run what asking for them again takes (a
frozen layer with random weights is each run's own); without a bank runs x its line at 50 epochs.
T is the line at 50 epochs of all else in a trial. W writes a network (as if each run led its
depth), A the state that is saved in every minute of T. `open` decodes, audits and splits. Without
a bank the room for what is kept is scaled with the epochs, so that a short row keeps what 50 epochs
would. Depths 5-7 alone are measured once more: there the frozen layers start from the images.
`--check` runs 2 runs x depths 5-7 x a few epochs for real and prints took / predicted.

    python benchmarks/sweep DATA --group-by REGEX --weights FILE --json FILE --check
    python benchmarks/sweep --read FILE
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from loops import FRAME, WAYS, Task, data_times, epoch_times
from ours import MARK, check_ours, emit, measure_ours
from secateurs.data.images.decode import decode
from secateurs.files import cache_dir, read_json, write_json
from secateurs.fit.precision import resolve_device, resolve_precision
from secateurs.nets.download import find_weights
from secateurs.study.setup.config import StudyConfig, parse_depths
from secateurs.study.setup.splitting import data_folder
from secateurs.study.setup.trial_context import open_dataset
from tables import CHECK_RUNS, EPOCHS, RUNS, Row, markdown, rows

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.peak_memory import peak_mib

DEEP = 5  # from this depth on all convolutions are frozen


# The frames.


def in_turn(names: list[str]) -> list[str]:
    """Names reordered so that the classes take turns."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, str]] = []
    for name in names:
        label = Path(name).parent.name
        ranked.append((seen[label], name))
        seen[label] += 1
    return [name for _, name in sorted(ranked, key=lambda pair: pair[0])]


def write_frames(given: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Write the sides as JPEG frames; validation is filled up from the test side where short."""
    config = StudyConfig(group_by=given.group_by)
    dataset = open_dataset(given.data, config, cache=given.cache)
    source = data_folder(given.data, cache=given.cache)
    rest = in_turn(dataset.names("test"))
    num_classes = len(dataset.classes)
    sides = {
        "train": in_turn(dataset.names("train"))[: given.images],
        "val": [*in_turn(dataset.names("val")), *rest[num_classes:]][: given.val_images],
        "test": rest[:num_classes],
    }
    for side, names in sides.items():
        for number, name in enumerate(names):
            path = folder / side / Path(name).parent.name / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            decode(source / name).resize(FRAME).save(path, quality=95)
    return {side: len(names) for side, names in sides.items()}


# What a process of its own measures.


def task(spec: Row, depth: int, *, epochs: int, batch: int, workers: int) -> Task:
    folder, weights, device = Path(spec["folder"]), spec["weights"], spec["device"]
    return Task(folder, weights, depth, epochs, batch, workers, device)


def tried_depths(depths: Sequence[int]) -> list[int]:
    """The shallowest, the first without a trained convolution, and the deepest."""
    return sorted({min(depths), max(depths)} | ({DEEP} & set(depths)))


def measure_loading(spec: Row) -> None:
    """Each way to load, alone and in the plain loop at some depths."""
    num = spec["num_train"]
    piece = max(n for n in range(1, min(64, max(num // 4, 1)) + 1) if num % n == 0)
    workers = {0, 2} if spec["device"] == "cpu" else {0, 2, os.cpu_count() or 2}
    for batch in (num, piece):
        for num_workers in sorted(workers):
            how: Row = {"batch": batch, "workers": num_workers}
            data_s = data_times(task(spec, 0, epochs=2, **how))
            seconds = {
                str(depth): epoch_times("plain", task(spec, depth, epochs=2, **how))[0]
                for depth in tried_depths(spec["depths"])
            }
            emit("loading", **how, data_s=data_s[0], epoch_s=seconds)


def measure_way(spec: Row) -> None:
    for depth in spec["depths"]:
        how = spec["loading"][str(depth)]
        timed = epoch_times(spec["way"], task(spec, depth, epochs=1 + spec["steps"], **how))
        emit("epochs", way=spec["way"], depth=depth, **how, seconds=timed)


def check_plain(spec: Row) -> None:
    started = time.perf_counter()
    for _ in range(CHECK_RUNS):
        for depth in spec["depths"]:
            how = spec["loading"][str(depth)]
            WAYS["plain"](task(spec, depth, epochs=spec["epochs"], **how), lambda: None)
    emit("check", way="plain", epochs=spec["epochs"], seconds=time.perf_counter() - started)


MEASURES = {
    "loading": measure_loading,
    "way": measure_way,
    "ours": measure_ours,
    "check ours": check_ours,
    "check plain": check_plain,
}


def measure(spec: Row) -> None:
    """Do one process's share, then tell its memory and that of the largest of its workers."""
    torch.set_num_threads(spec["threads"])
    MEASURES[spec["measure"]](spec)
    if spec["measure"] in ("way", "ours"):
        loads = any(how["workers"] for how in spec.get("loading", {}).values())
        workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if loads else None
        on_card = torch.cuda.max_memory_allocated() / 2**20 if spec["device"] == "cuda" else None
        emit("memory", way=spec["way"], peak_mib=peak_mib(), worker_mib=workers, card_mib=on_card)


# The whole run.


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        text = Path("/proc/cpuinfo").read_text()
        return next(row for row in text.splitlines() if "model name" in row).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def headline(given: argparse.Namespace, counts: dict[str, int], load: float) -> str:
    names = ("torch", "torchvision", "lightning", "fastai")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"{datetime.date.today().isoformat()}, {machine(given.device)}, {given.threads} threads, "
        f"load {load:.1f} when begun, {versions}; {counts['train']} training and "
        f"{counts['val']} validation frames of {Path(given.data).name}, {RUNS} runs x {EPOCHS} "
        f"epochs; {given.steps} timed epochs a depth of the other ways, {given.epochs[0]} and "
        f"{given.epochs[1]} of ours."
    )


def keep(row: Row, results: Row, given: argparse.Namespace) -> None:
    results["rows"].append(row)
    if given.json:
        write_json(given.json, results)
    print(" ".join(f"{name} {value}" for name, value in row.items()), file=sys.stderr, flush=True)


def run(spec: Row, results: Row, given: argparse.Namespace) -> None:
    """Measure in a process of its own; each row is kept as soon as it comes."""
    threads = str(given.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--one", json.dumps(spec)]
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            try:
                for text in process.stdout:
                    if text.startswith(MARK):
                        keep(json.loads(text.removeprefix(MARK)), results, given)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            log.seek(0)
            print(f"{spec['measure']}: failed\n{log.read()[-3000:]}", file=sys.stderr)


def best_loading(results: Row, depths: Sequence[int]) -> Row:
    """For each depth the loading that was fastest at the next shallower depth tried."""
    found = rows(results, "loading")
    if not found:
        raise SystemExit("no way to load could be measured")
    chosen: Row = {}
    for depth in depths:
        tried = max(other for other in tried_depths(depths) if other <= depth)
        best = min(found, key=lambda row: row["epoch_s"][str(tried)])
        chosen[str(depth)] = {"batch": best["batch"], "workers": best["workers"]}
    return chosen


def whole(given: argparse.Namespace, folder: Path) -> Row:
    """Everything, in the order in which it was asked for."""
    load = os.getloadavg()[0]
    weights = find_weights("alexnet", given.weights, cache=given.cache).path
    counts = write_frames(given, folder)
    span = f"depths {min(given.depths)}-{max(given.depths)}"
    parts = {span: list(given.depths)}
    deep = [depth for depth in given.depths if depth >= DEEP]
    if deep:
        parts[f"depths {deep[0]}-{deep[-1]}"] = deep
    results: Row = {"head": headline(given, counts, load), "parts": parts, "rows": []}
    common: Row = {"folder": str(folder), "weights": str(weights or "none"), "device": given.device}
    common |= {"threads": given.threads, "num_train": counts["train"], "depths": given.depths}
    others = [way for way in given.ways if way in WAYS]
    loading: Row = {str(depth): given.loading for depth in given.depths}
    if others and given.loading is None:
        run({**common, "measure": "loading"}, results, given)
        loading = best_loading(results, given.depths)
    for way in others:
        spec = {**common, "measure": "way", "way": way, "steps": given.steps, "loading": loading}
        run(spec, results, given)
    ours: list[Row] = []
    if "ours" in given.ways:
        precision = resolve_precision("auto", resolve_device(given.device))
        for arithmetic in dict.fromkeys((precision, "float32")):
            for views, bank in ((given.views, f"bank of {given.views}"), (None, "no bank")):
                way = f"ours, {bank}, {arithmetic}"
                ours.append({**common, "way": way, "views": views, "precision": arithmetic})
    for spec in ours:
        run({**spec, "measure": "ours", "parts": parts, "epochs": given.epochs}, results, given)
    if given.check:
        short: Row = {"depths": deep or given.depths, "epochs": given.check_epochs}
        if "plain" in others:
            spec = {**common, **short, "measure": "check plain", "loading": loading}
            run(spec, results, given)
        for spec in ours:
            run({**spec, **short, "measure": "check ours"}, results, given)
    return results


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("data", nargs="?", help="a folder of images, or faces")
    words.add_argument("--group-by")
    words.add_argument("--weights", default="auto")
    words.add_argument("--cache", type=Path, default=cache_dir())
    words.add_argument("--images", type=int, default=392, help="training images")
    words.add_argument("--val-images", type=int, default=149)
    words.add_argument("--depths", type=parse_depths, default=parse_depths("0-7"))
    words.add_argument("--steps", type=int, default=2, help="timed epochs of the other ways")
    words.add_argument("--ways", nargs="+", choices=[*WAYS, "ours"], default=[*WAYS, "ours"])
    words.add_argument("--loading", help="BATCH,WORKERS of the other ways; else what is fastest")
    words.add_argument("--views", type=int, default=2, help="views an image in ours' bank")
    words.add_argument("--epochs", default="2,6", help="E1,E2: epochs of ours' two rows")
    words.add_argument("--check", action="store_true", help="run a small sweep for real")
    words.add_argument("--check-epochs", type=int, default=4)
    words.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    words.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    words.add_argument("--json", type=Path, help="kept after each measurement")
    words.add_argument("--read", type=Path, help="print the tables of such a file")
    words.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    given = words.parse_args()
    # A run that is ended from outside takes its processes and files with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.one:
        measure(given.one)
        return
    if given.read:
        print(markdown(read_json(given.read)))
        return
    if given.loading:
        batch, workers = (int(part) for part in given.loading.split(","))
        given.loading = {"batch": batch, "workers": workers}
    given.epochs = [int(part) for part in given.epochs.split(",")]
    first, last = given.epochs
    if given.data is None or not given.views <= first < last:
        words.error("expected DATA, and --epochs E1,E2 with views <= E1 < E2")
    with tempfile.TemporaryDirectory() as folder:
        print(markdown(whole(given, Path(folder))))


if __name__ == "__main__":
    main()
