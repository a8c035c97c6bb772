"""The paper's sweep over depths in four ways: a plain PyTorch loop, Lightning, fastai, and ours.

AlexNet, 8 depths x 5 runs x 50 epochs, one Adam step on all 392 training images an epoch, 149
validation images after each. All ways read the same JPEG frames of 720 x 576, written once into a
temporary folder, and draw the same views (rotation within 30 degrees, a crop of 8 to 100% of the
area, a flip). The other ways (`sweep_loops.py`) decode and transform the frames in every epoch, in
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

    python benchmarks/sweep.py DATA --group-by REGEX --weights FILE --json FILE --check
    python benchmarks/sweep.py --read FILE
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from angles import peak_mib
from secateurs.data.decode import decode
from secateurs.files import cache_dir, read_json, write_json
from secateurs.fit.cache import PrefixCache
from secateurs.fit.precision import resolve_device, resolve_precision
from secateurs.fit.state import TrainState, save_state
from secateurs.nets.depth import freeze
from secateurs.nets.download import find_weights
from secateurs.stopping import StopFlag
from secateurs.study.bench import Bench, data_folder, open_bench, open_dataset
from secateurs.study.config import StudyConfig, parse_depths
from secateurs.study.sweep import run_sweep
from secateurs.study.trials import (
    SharedInputs,
    Store,
    Trial,
    plan_trials,
    run_trial,
    save_weights,
    trial_key,
)
from sweep_loops import FRAME, LR, WAYS, Task, data_times, epoch_times
from sweep_tables import CHECK_RUNS, EPOCHS, RUNS, Row, markdown, rows

DEEP = 5  # from this depth on all convolutions are frozen
BUDGET_BYTES = 2 * 2**30  # what `secateurs sweep` keeps unless told otherwise
MARK = "row: "


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


def emit(kind: str, **values: Any) -> None:
    print(MARK + json.dumps({"kind": kind, "load": os.getloadavg()[0], **values}), flush=True)


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


class TimedInputs(SharedInputs):
    """The frozen layers' outputs, how long the last took and how many bytes are kept of them."""

    seconds = 0.0
    kept_bytes = 0

    def get(self, *given: Any) -> Any:
        """As of SharedInputs, timed."""
        started = time.perf_counter()
        answer = super().get(*given)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - started
        held = () if self._held is None else (self._held[-1],)
        stored = [view for inputs in (answer[0], *held) for view in inputs.stored or ()]
        self.kept_bytes = sum({id(view): view.nbytes for view in stored}.values())
        return answer


def room(bench: Bench) -> PrefixCache:
    """What may be kept, such that a short training keeps what one of 50 epochs would."""
    config = bench.config
    share = 1.0 if config.views else config.epochs / EPOCHS
    return PrefixCache(int(share * BUDGET_BYTES))


def get_again(bench: Bench, trial: Trial, shared: TimedInputs) -> float:
    """Seconds that the next run's frozen layers take where a bank of views is there already."""
    model = bench.new_model(seed=trial.run + 1, pretrained=True)
    freeze(model, bench.config.backbone, trial.depth)
    shared.get(bench, replace(trial, run=trial.run + 1), model)
    return shared.seconds


def open_ours(spec: Row, cache: Path) -> Bench:
    config = StudyConfig(
        weights=spec["weights"],
        split="folders",
        depths=tuple(spec["depths"]),
        runs=1,
        scratch_runs=0,
        lr=LR,
        batch_size=None,
        schedule="constant",
        views=spec["views"],
        rotation_deg=30.0,
        min_scale=0.08,
        precision=spec["precision"],
        device=spec["device"],
    )
    return open_bench(spec["folder"], config, cache=cache)


def changed(bench: Bench, **changes: Any) -> Bench:
    config = replace(bench.config, **changes)
    return replace(bench, config=config, depths=config.depths)


def autosave_s(model: torch.nn.Module, path: Path) -> float:
    """Seconds that saving the state of a training under way takes."""
    now = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    adam = {f"{n}:{entry}": p for n, p in now.items() for entry in ("exp_avg", "exp_avg_sq")}
    state = TrainState(0, 0, [], 0, (0.0, 0, 0), current=now, best=now, adam=adam)
    started = time.perf_counter()
    save_state(path, state, {})
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def measure_ours(spec: Row) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        bench = open_ours(spec, Path(folder) / "cache")
        emit("open", way=spec["way"], seconds=time.perf_counter() - started)
        store = Store(Path(folder))
        # Libraries load and memory is first touched outside the measurement.
        warm = changed(bench, epochs=1)
        run_trial(warm, plan_trials(warm)[0], TimedInputs(room(warm)), store)
        for part, depths in spec["parts"].items():
            for epochs in spec["epochs"]:
                row = changed(bench, depths=tuple(depths), epochs=epochs)
                shared = TimedInputs(room(row))
                for trial in plan_trials(row):
                    started = time.perf_counter()
                    _, model = run_trial(row, trial, shared, store)
                    whole_s, frozen_s = time.perf_counter() - started, shared.seconds
                    weights = store.weights(trial_key(row, trial))
                    started = time.perf_counter()
                    save_weights(model, weights)
                    save_s = time.perf_counter() - started
                    weights.unlink()
                    state_s = autosave_s(model, Path(folder) / "state")
                    del model  # as before the next run: what follows counts as memory
                    again_s = get_again(row, trial, shared) if spec["views"] else None
                    emit(
                        "trial",
                        way=spec["way"],
                        part=part,
                        depth=trial.depth,
                        epochs=epochs,
                        frozen_s=frozen_s,
                        again_s=again_s,
                        train_s=whole_s - frozen_s,
                        save_s=save_s,
                        autosave_s=state_s,
                        kept_mib=shared.kept_bytes / 2**20,
                    )


def check_ours(spec: Row) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = changed(
            open_ours(spec, Path(folder) / "cache"), runs=CHECK_RUNS, epochs=spec["epochs"]
        )
        started = time.perf_counter()
        run_sweep(bench, Store(Path(folder)), prefix_cache=room(bench), stop=StopFlag())
        emit("check", way=spec["way"], epochs=spec["epochs"], seconds=time.perf_counter() - started)


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
