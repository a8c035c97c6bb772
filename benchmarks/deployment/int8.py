"""int8 by ONNX Runtime's calibrators and with compensation.

    python benchmarks/deployment/int8.py --help

Each network is a saved model. For each: the float32 file, each calibrator of ONNX Runtime alone,
with corrected biases, with chosen rounding as well, with weights refitted by least squares before
they are rounded, and with channels scaled to like ranges first. Answers on the validation images
are compared with PyTorch's. With --nncf, where it is installed, OpenVINO's quantizer on the same
images is a row as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from secateurs.files import cache_dir, write_json
from secateurs.progress import SILENT
from secateurs.ship.int8.agreement import agreement
from secateurs.ship.int8.calibration import CALIBRATORS, activation_ranges
from secateurs.ship.int8.compensation import Rules, compensated
from secateurs.ship.int8.equalization import equalized
from secateurs.ship.int8.int8_candidates import run_onnx
from secateurs.ship.int8.operators import quantized_graph
from secateurs.ship.targets.formats import target_of
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.opened import open_saved

# What is done, whether channels are equalized first, and the rules of compensation.
WAYS: tuple[tuple[str, bool, Rules | None], ...] = (
    ("ONNX Runtime", False, None),
    ("biases", False, Rules(rounding=False)),
    ("rounding and biases", False, Rules()),
    ("refit, rounding, biases", False, Rules(refit=0.1)),
    ("equalized", True, None),
    ("equalized, rounding and biases", True, Rules()),
)
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--calibrators", type=int, default=len(CALIBRATORS))
    parser.add_argument("--side", default="val", help="val, or test for a final comparison")
    parser.add_argument("--nncf", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = [row for model in given.models for row in measured(model, given)]
    print(table(rows))
    if given.out:
        write_json(given.out, {"calibration": given.calibration, "rows": rows})


def measured(model: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    loaded, _, dataset = open_saved(
        model, given.data, {}, cache_dir(), SILENT, sides=("train", given.side)
    )
    network, side = loaded.model.eval(), dataset.sides[given.side]
    wanted = side_logits(network, dataset, given.side, CPU).numpy()
    images = side.eval_views(slice(None), CPU).numpy()
    drawn = np.sort(np.random.default_rng(0).permutation(len(dataset.sides["train"])))
    drawn = drawn[: given.calibration]
    calibration = dataset.sides["train"].take(drawn).eval_views(slice(None), CPU).numpy()

    def row(calibrator: str, rules: str, logits: Any, seconds: float, size: int) -> dict[str, Any]:
        correct = (logits.argmax(1) == side.labels).mean()
        return {
            "model": model.name,
            "calibrator": calibrator,
            "rules": rules,
            "accuracy": float(correct),
            "num_images": len(side),
            **asdict(agreement(logits, wanted)),
            "num_bytes": size,
            "seconds": seconds,
        }

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float32.onnx"
        target_of(path).write(network, loaded.spec, path, torch.from_numpy(images[:4]))
        graph = onnx.shape_inference.infer_shapes(onnx.load(path))
        rows = [row("", "float32", run_onnx(path, images), 0.0, path.stat().st_size)]
        bases = {False: graph, True: equalized(graph, calibration)[0]}
        for calibrator in CALIBRATORS[: given.calibrators]:
            plain = {
                even: quantized_graph(base, activation_ranges(base, calibration, calibrator))
                for even, base in bases.items()
            }
            for name, even, rules in WAYS:
                start = time.perf_counter()
                made = plain[even]
                if rules is not None:
                    made, _ = compensated(bases[even], made, calibration, rules=rules)
                seconds = time.perf_counter() - start
                packed = made.SerializeToString()
                rows.append(
                    row(calibrator.name, name, run_onnx(packed, images), seconds, len(packed))
                )
        if given.nncf:
            start = time.perf_counter()
            logits, size = by_nncf(path, calibration, images, Path(folder))
            rows.append(row("NNCF", "NNCF", logits, time.perf_counter() - start, size))
    return rows


def by_nncf(path: Path, calibration: Any, images: Any, folder: Path) -> tuple[Any, int]:
    """NNCF's default post-training quantization of the same file, run in OpenVINO."""
    import nncf
    import openvino

    core = openvino.Core()
    batches = [calibration[k : k + 1] for k in range(len(calibration))]
    made = nncf.quantize(core.read_model(path), nncf.Dataset(batches), subset_size=len(calibration))
    openvino.save_model(made, folder / "nncf.xml")
    compiled = core.compile_model(made, "CPU")
    logits = np.concatenate([compiled(images[k : k + 16])[0] for k in range(0, len(images), 16)])
    return logits, sum((folder / f"nncf.{ending}").stat().st_size for ending in ("xml", "bin"))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | calibrator | changed | accuracy | agreement | divergence | MB | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['calibrator']} | {row['rules']} | {row['accuracy']:.1%} "
        f"| {row['share']:.1%} | {row['divergence']:.4f} | {row['num_bytes'] / 1e6:.2f} "
        f"| {row['seconds']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
