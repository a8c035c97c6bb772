"""The whole path of int8 by the command line, over networks and splits.

For each network and split: `secateurs train`, `secateurs export --int8`, and with --macs the same
once more from a pruned network. The same calibration images go to ONNX Runtime's own static
quantization and, where it is installed, to NNCF. Every file is run on the test images too. Losses
are points against the unpruned float32 network, averaged over splits, with 95% intervals by
Student's t; bytes and times are shares of that network's, in ONNX Runtime (NNCF's file runs in
OpenVINO). What is in the directory already is not made again.

    python benchmarks/deployment/int8_path.py DATA --group-by REGEX --store DIR --json FILE
    python benchmarks/deployment/int8_path.py FILE.json
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from scipy.stats import t as student

from int8 import by_nncf
from secateurs.files import cache_dir, write_json
from secateurs.progress import SILENT
from secateurs.ship.int8.agreement import agreement
from secateurs.ship.int8.int8_candidates import run_onnx
from secateurs.ship.int8.quiet import quiet
from secateurs.ship.latency import compare_latency, onnx_session
from secateurs.ship.targets.formats import target_of
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.opened import open_saved

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.machine import machine

Row = dict[str, Any]
CPU = torch.device("cpu")
NETWORKS = ("mobilenet_v2", "tf_efficientnet_lite0", "alexnet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="images, or a JSON file to print")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--recovery-epochs", type=int, default=10)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--agreement", type=float, default=0.99)
    parser.add_argument("--weights", action="append", default=[], metavar="NETWORK=FILE")
    parser.add_argument("--group-by")
    parser.add_argument("--store", type=Path, default=Path("int8-path"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())["rows"]))
        return
    rows: list[Row] = []
    for network in given.networks.split(","):
        for split in range(given.splits):
            rows += measured(network, split, given)
            if given.json:
                write_json(given.json, header() | {"given": plain(given), "rows": rows})
    print(table(rows))


def header() -> Row:
    """Where and when."""
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}


def plain(given: argparse.Namespace) -> Row:
    """The arguments that decide what is measured."""
    names = ("networks", "splits", "epochs", "macs", "recovery_epochs", "calibration", "agreement")
    return {name: getattr(given, name) for name in names}


def measured(network: str, split: int, given: argparse.Namespace) -> list[Row]:
    """The rows of one network on one split."""
    folder = given.store / f"{network}-{split}".replace(":", "-")
    weights = dict(one.split("=", 1) for one in given.weights)
    kept = [] if given.group_by is None else ["--group-by", given.group_by]
    run(
        *("train", given.data, "--backbone", network, "--seed", str(split)),
        *("--epochs", str(given.epochs), "--out", str(folder / "model"), *kept),
        *(("--weights", weights[network]) if network in weights else ()),
    )
    quantize = ["export", str(folder / "model"), given.data, "--int8"]
    quantize += ["--calibration", str(given.calibration), "--agreement", str(given.agreement)]
    jobs = {"whole": quantize}
    if given.macs:
        small = ["--macs", str(given.macs), "--recovery-epochs", str(given.recovery_epochs)]
        jobs["pruned"] = [*quantize, *small]
    rows: list[Row] = []
    for name, words in jobs.items():
        kept_file = folder / f"{name}.json"
        if not kept_file.exists():
            out = folder / f"{name}.onnx"
            used = processor_s()
            answer = json.loads(run(*words, "--out", str(out), "--json"))
            write_json(kept_file, answer | {"processor_s": processor_s() - used})
        found = json.loads(kept_file.read_text())
        first = found["rows"][0]
        for row in found["rows"]:
            if name == "pruned" and row["name"] in ("float32", "int8"):
                continue  # measured with the whole network
            rows.append(
                {
                    "file": row["name"],
                    "accuracy": row["accuracy"],
                    "loss": 100 * (row["accuracy"] - first["accuracy"]),
                    "agreement": row["agreement"],
                    "bytes": row["num_bytes"] / first["num_bytes"],
                    "ms": row["ms"]["1"]["median"] / first["ms"]["1"]["median"],
                    "ms_64": row["ms"]["64"]["median"] / first["ms"]["64"]["median"],
                }
            )
            if row["name"].endswith("int8"):
                chosen = found["int8"]["chosen"]
                rows[-1] |= {"chosen": chosen, "processor_s": found["processor_s"]}
    kept_file = folder / "others.json"
    if not kept_file.exists():
        write_json(kept_file, others(folder, given))
    other = json.loads(kept_file.read_text())
    rows += other["rows"]
    for row in rows:
        row |= {"network": network, "split": split, **other["test"].get(row["file"], {})}
    return rows


def processor_s() -> float:
    """Processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def others(folder: Path, given: argparse.Namespace) -> Row:
    """Files of other quantizers, from the same images; and every file on the test images."""
    loaded, config, dataset = open_saved(
        folder / "model", given.data, {}, cache_dir(), SILENT, sides=("train", "val", "test")
    )
    network = loaded.model.eval()
    images, wanted, labels = {}, {}, {}
    for side in ("val", "test"):
        images[side] = dataset.sides[side].eval_views(slice(None), CPU).numpy()
        wanted[side] = side_logits(network, dataset, side, CPU).numpy()
        labels[side] = dataset.sides[side].labels
    rng = np.random.default_rng(config.seed)
    drawn = np.sort(rng.permutation(len(dataset.sides["train"]))[: given.calibration])
    calibration = dataset.sides["train"].take(drawn).eval_views(slice(None), CPU).numpy()

    def compared(logits: dict[str, Any]) -> tuple[Row, Row]:
        rows: list[Row] = []
        for side in ("val", "test"):
            right, base = ((one[side].argmax(1) == labels[side]).mean() for one in (logits, wanted))
            share = agreement(logits[side], wanted[side]).share
            rows.append({"accuracy": right, "loss": 100 * (right - base), "agreement": share})
        return rows[0], {f"{key}_test": value for key, value in rows[1].items()}

    rows: list[Row] = []
    test = {"float32": compared(wanted)[1]}
    for file, path in (("int8", "whole.onnx"), ("pruned int8", "pruned.onnx")):
        if (folder / path).exists():
            test[file] = compared({s: run_onnx(folder / path, images[s]) for s in images})[1]
    pruned = folder / "pruned-pruned"
    if pruned.exists():
        small, _, own = open_saved(pruned, given.data, {}, cache_dir(), SILENT, sides=("test",))
        answers = side_logits(small.model.eval(), own, "test", CPU).numpy()
        test["pruned"] = compared({"val": wanted["val"], "test": answers})[1]
    with tempfile.TemporaryDirectory() as scratch:
        source, path = Path(scratch) / "float32.onnx", Path(scratch) / "static.onnx"
        example = torch.from_numpy(images["val"][:4])
        target_of(source).write(network, loaded.spec, source, example)
        size, one = source.stat().st_size, images["val"][:1]

        def add(file: str, logits: dict[str, Any], num_bytes: int, call: Callable[[], Any]) -> None:
            seconds = time.process_time() - began
            times = compare_latency({"float32": runner(source, one), file: call}, budget_s=10)
            own, on_test = compared(logits)
            ms = float(np.median(times[file]) / np.median(times["float32"]))
            rows.append({"file": file, **own, "bytes": num_bytes / size, "ms": ms, "ms_64": None})
            rows[-1]["processor_s"] = seconds
            test[file] = on_test

        began = time.process_time()
        static(source, path, calibration)
        logits = {side: run_onnx(path, images[side]) for side in images}
        add("ONNX Runtime", logits, path.stat().st_size, runner(path, one))
        if importlib.util.find_spec("nncf") is not None:
            began = time.process_time()
            both = np.concatenate([images["val"], images["test"]])
            answers, num_bytes = by_nncf(source, calibration, both, Path(scratch))
            count = len(images["val"])
            logits = {"val": answers[:count], "test": answers[count:]}
            add("NNCF", logits, num_bytes, in_openvino(Path(scratch) / "nncf.xml", one))
    return {"rows": rows, "test": test}


def static(source: Path, path: Path, calibration: Any) -> None:
    """ONNX Runtime's static quantization as its documentation has it: QDQ, per channel, min-max."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> Any:
            image = next(self.left, None)
            return None if image is None else {"images": image[None]}

    with quiet():
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load(source)), path)
        quantize_static(path, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8)


def runner(path: Path, images: Any) -> Callable[[], Any]:
    session = onnx_session(path)
    return lambda: session.run(None, {"images": images})


def in_openvino(path: Path, images: Any) -> Callable[[], Any]:
    words = {"INFERENCE_NUM_THREADS": 1}
    compiled = importlib.import_module("openvino").Core().compile_model(path, "CPU", words)
    return lambda: compiled(images)


def run(*words: str) -> str:
    """The output of a command of Secateurs."""
    print("secateurs", *words, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "secateurs", *words, "--progress", "none"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def table(rows: list[Row]) -> str:
    """Means over splits, one line for each network and file."""
    lines = [
        "| network | file | splits | validation | points (95%) | agreement | test, points (95%) "
        "| agreement | bytes | time, batch 1 | batch 64 | processor s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network, file in dict.fromkeys((row["network"], row["file"]) for row in rows):
        own = [row for row in rows if (row["network"], row["file"]) == (network, file)]

        def mean(key: str, form: str, own: list[Row] = own) -> str:
            values = [row[key] for row in own if row.get(key) is not None]
            return format(float(np.mean(values)), form) if values else ""

        cells = [network, file, str(len(own)), mean("accuracy", ".1%")]
        for end in ("", "_test"):
            cells.append(mean(f"loss{end}", "+.1f") + spread([row[f"loss{end}"] for row in own]))
            cells.append(mean(f"agreement{end}", ".1%"))
        cells += [mean("bytes", ".3f"), mean("ms", ".2f"), mean("ms_64", ".2f")]
        lines.append(f"| {' | '.join([*cells, mean('processor_s', '.0f')])} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """The interval of a mean, or nothing for one value."""
    if len(values) < 2:
        return ""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f" ({np.mean(values) - half:+.1f} to {np.mean(values) + half:+.1f})"


if __name__ == "__main__":
    main()
