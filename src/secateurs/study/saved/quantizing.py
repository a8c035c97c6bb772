"""A saved network quantized to int8 with a folder's images, and measured against float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import scratch_folder
from secateurs.fit.metrics import Evaluation, evaluate
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import Loaded, load
from secateurs.ship.cost import cost
from secateurs.ship.export import export_onnx
from secateurs.ship.int8.agreement import agreement
from secateurs.ship.int8.int8_candidates import Int8Images, Settings
from secateurs.ship.int8.processor import int8_support
from secateurs.ship.int8.quantization import ENOUGH, Int8File, Method, quantize_onnx
from secateurs.ship.latency import (
    LARGE_BATCH,
    LONGEST_S,
    MIN_ROUNDS,
    MOST_BYTES,
    compare_latency,
    fill_batch,
    onnx_session,
    spread,
)
from secateurs.stopping import StopFlag
from secateurs.study.saved.evaluation import EVAL_BATCH, side_logits
from secateurs.study.saved.opened import open_saved
from secateurs.study.setup.trial_context import Dataset

NUM_CALIBRATION = 64
MOST_CHOICE = 512  # validation images that decide between candidates
BUDGET_S = 10.0
CPU = torch.device("cpu")

Record = dict[str, Any]


@dataclass(frozen=True)
class Quantized:
    """A network as float32 and int8 files, with the logits of both on validation."""

    float32: Path
    float_logits: Tensor
    int8: Int8File
    int8_logits: Tensor


def quantize_saved(
    model: Path,
    data: str,
    out: Path,
    *,
    method: Method = "compensated",
    wanted: float = ENOUGH,
    original: Path | None = None,
    num_calibration: int = NUM_CALIBRATION,
    changes: Mapping[str, Any] | None = None,
    cache: Path,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Quantize a saved network to `out`, an ONNX file, and compare it with what it was made from.

    Calibrated on `num_calibration` training images of `data`; the validation images decide between
    calibrators and give the accuracies; the test images are not used. Blocks of layers stay in
    float32 until the share `wanted` of the answers agrees with float32's. `original` is the network
    before pruning (known for a study): it and its int8 file are measured along, and what agrees
    with its float32 answers is counted. `changes` are fields of StudyConfig, such as another split.
    Raises InputError for bad input; nothing but `out` is written, whole or not at all.
    """
    require("onnx", "an int8 file")
    if out.suffix != ".onnx":
        raise InputError(f"{out}: an int8 file must end in .onnx")
    if num_calibration < 1:
        raise InputError(f"calibration images: expected at least 1, got {num_calibration}")
    stop = stop or StopFlag()
    loaded, config, dataset = open_saved(model, data, dict(changes or {}), cache, progress)
    networks = {"": loaded}
    before = _original(model, original, loaded)
    if before is not None:
        networks = {"": before, "pruned ": loaded}
    with scratch_folder(out) as folder:
        made: dict[str, Quantized] = {}
        for prefix, one in networks.items():
            last = one is loaded
            made[prefix] = quantize_network(
                one,
                dataset,
                out if last else folder / "original-int8.onnx",
                folder / f"{'last' if last else 'original'}.onnx",
                method=method,
                wanted=wanted,
                num_calibration=num_calibration,
                seed=config.seed,
                stop=stop,
                progress=progress,
            )
        rows = _rows(made, dataset)
        times = file_times(
            {name: Path(row["path"]) for name, row in rows.items()},
            dataset.sides["val"].eval_views(slice(0, LARGE_BATCH), CPU),
            batches=(1, LARGE_BATCH),
            activation_bytes=_activation_bytes(networks.values()),
            progress=progress,
        )
    for name, row in rows.items():
        row["ms"] = {batch: asdict(spread(found[name])) for batch, found in times.items()}
        row.pop("path")
    own = made["pruned " if before is not None else ""].int8
    record: Record = {
        "path": str(out),
        "num_images": len(dataset.sides["val"]),
        "rows": [{"name": name, **row} for name, row in rows.items()],
        "int8": own.to_json() | {"path": str(out)},
        "processor": asdict(int8_support()) | {"sentence": int8_support().sentence},
        "threads": torch.get_num_threads(),
    }
    record["sentences"] = sentences(record)
    return record


def _original(model: Path, original: Path | None, loaded: Loaded) -> Loaded | None:
    """The network before pruning, where there is one."""
    if original is not None:
        before = load(saved_model(original, pruned=False))
        if before.spec.classes != loaded.spec.classes:
            raise InputError(f"{original}: its classes are not those of {model}")
        if before.spec.preprocessing != loaded.spec.preprocessing:
            raise InputError(f"{original}: its preprocessing is not that of {model}")
        return before
    if saved_model(model) != saved_model(model, pruned=False):
        before = load(saved_model(model, pruned=False))
        return before if before.spec.preprocessing == loaded.spec.preprocessing else None
    return None


def quantize_network(
    loaded: Loaded,
    dataset: Dataset,
    out: Path,
    float32: Path,
    *,
    method: Method,
    wanted: float = ENOUGH,
    calibrators: Sequence[str] | None = None,
    settings: Settings | None = None,
    num_calibration: int = NUM_CALIBRATION,
    seed: int = 0,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Quantized:
    """Write a network as `float32`, checked against PyTorch, and quantized as `out`.

    The calibration images are drawn from the training side with `seed`. The card of `out` has the
    accuracy of float32 on the validation images. With `settings` the network was trained on those
    images too: they give agreement, no accuracy, and choose nothing; `float32` is not written
    when it is there.
    """
    network = loaded.model.to(CPU).eval()
    train, val = dataset.sides["train"], dataset.sides["val"]
    with progress.task("float32", len(val) + 1) as advance:
        float_logits = side_logits(network, dataset, "val", CPU, advance=advance)
        example = val.eval_views(slice(0, 16), CPU)
        if settings is None or not float32.is_file():
            export_onnx(network, loaded.spec, float32, example)
        advance(1)
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(train))[: _affordable(num_calibration, loaded)])
    deciding = np.sort(rng.permutation(len(val))[:MOST_CHOICE])
    images = Int8Images(
        train.take(drawn).eval_views(slice(None), CPU).numpy(),
        val.take(deciding).eval_views(slice(None), CPU).numpy(),
        float_logits.numpy()[deciding],
    )
    card: Record = {"calibration_images": len(drawn)}
    if settings is None:
        labels = torch.from_numpy(val.labels)
        card["float32_accuracy"] = accuracy_json(evaluate(float_logits, labels, dataset.classes))
    int8 = quantize_onnx(
        float32,
        out,
        images,
        method=method,
        wanted=wanted,
        calibrators=calibrators,
        settings=settings,
        card=card,
        stop=stop,
        progress=progress,
    )
    whole = len(deciding) == len(val)
    logits = torch.from_numpy(int8.logits) if whole else file_logits(out, dataset, "val")
    return Quantized(float32, float_logits, int8, logits)


def _affordable(wanted: int, loaded: Loaded) -> int:
    """As many calibration images as asked for, or fewer where two graphs would take over 4 GiB."""
    size = loaded.spec.preprocessing.size
    one = cost(loaded.model, size=size, file_bytes=0).activation_bytes or 1
    return max(1, min(wanted, MOST_BYTES // (4 * one)))


def file_logits(path: Path, dataset: Dataset, side: str) -> Tensor:
    """The logits (n, classes) of an ONNX file on the evaluation views of a side."""
    session = onnx_session(path)
    name = session.get_inputs()[0].name
    images = dataset.sides[side]
    parts = [
        session.run(None, {name: images.eval_views(slice(first, first + EVAL_BATCH), CPU).numpy()})[
            0
        ]
        for first in range(0, len(images), EVAL_BATCH)
    ]
    return torch.from_numpy(np.concatenate(parts))


def accuracy_json(found: Evaluation) -> Record:
    """Accuracy with its interval and the number of images, as plain data."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "num_images")
    return {name: getattr(found, name) for name in names}


def _rows(made: Mapping[str, Quantized], dataset: Dataset) -> dict[str, Record]:
    labels = torch.from_numpy(dataset.sides["val"].labels)
    reference: NDArray[np.float32] = next(iter(made.values())).float_logits.numpy()
    rows: dict[str, Record] = {}
    for kind in ("float32", "int8"):
        for prefix, one in made.items():
            path = one.float32 if kind == "float32" else one.int8.path
            logits = one.float_logits if kind == "float32" else one.int8_logits
            name = "pruned" if prefix and kind == "float32" else f"{prefix}{kind}"
            rows[name] = {
                "path": str(path),
                **accuracy_json(evaluate(logits, labels, dataset.classes)),
                "agreement": agreement(logits.numpy(), reference).share,
                "num_bytes": path.stat().st_size,
            }
    return rows


def _activation_bytes(networks: Any) -> int:
    sizes = [
        cost(one.model, size=one.spec.preprocessing.size, file_bytes=0).activation_bytes or 0
        for one in networks
    ]
    return max(sizes)


def file_times(
    files: Mapping[str, Path],
    images: Tensor,
    *,
    batches: tuple[int, ...],
    activation_bytes: int = 0,
    budget_s: float | None = None,
    progress: Progress = SILENT,
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of ONNX files in ONNX Runtime by batch size and file, all in every round.

    A batch above 1 is halved until its rounds take little time and memory, by the time at batch 1
    and by `activation_bytes` of one image.
    """
    sessions = {name: onnx_session(path) for name, path in files.items()}

    def timed(batch: int) -> dict[str, list[float]]:
        x = fill_batch(images, batch).numpy()
        calls = {name: _call(session, x) for name, session in sessions.items()}
        return compare_latency(calls, budget_s=BUDGET_S if budget_s is None else budget_s)

    found: dict[str, dict[str, list[float]]] = {}
    with progress.task("latency", len(batches)) as advance:
        for wanted in batches:
            batch = wanted
            one = found.get("1", {})
            seconds = (1 + MIN_ROUNDS) * sum(float(np.median(times)) for times in one.values())
            while batch > 1 and (
                batch * seconds > LONGEST_S * 1e3 or batch * activation_bytes > MOST_BYTES
            ):
                batch //= 2
            if str(batch) not in found:
                found[str(batch)] = timed(batch)
            advance(1)
    return found


def _call(session: Any, images: NDArray[np.float32]) -> Callable[[], object]:
    feed = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, feed)


def sentences(record: Record) -> list[str]:
    """What the numbers of a record do not say by themselves, one sentence each."""
    own = record["int8"]
    chosen = own["chosen"]
    ways = [] if chosen["calibrator"] is None else [f"calibration: {chosen['calibrator']}"]
    ways += ["channels scaled to like ranges"] if chosen["equalized"] else []
    ways += ["weights rounded and biases corrected layer by layer"] if chosen["compensated"] else []
    if own["method"] == "dynamic":
        ways = ["linear layers only, inputs measured at run time"]
    tried = len(own["candidates"])
    lines = [f"chosen of {tried} on validation, without labels: {', '.join(ways)}"]
    if own["method"] == "dynamic":
        lines = [ways[0]]
    lines += _float_sentences(own)
    lines.append(record["processor"]["sentence"])
    rows = {row["name"]: row for row in record["rows"]}
    for name, other in (("int8", "float32"), ("pruned int8", "pruned")):
        if name not in rows:
            continue
        ratio = rows[name]["ms"]["1"]["median"] / rows[other]["ms"]["1"]["median"]
        if ratio > 0.95:
            lines.append(
                f"{name} is not faster than {other} here: {ratio:.2f} of its time at batch 1"
            )
    return lines


def _float_sentences(own: Record) -> list[str]:
    """Which layers stay in float32 and why, and whether enough answers agree."""
    chosen, floats, end = own["chosen"], own["chosen"]["float_layers"], own["end"]
    if own["method"] == "dynamic":
        return []
    number = own["num_quantized"]
    lines = [f"{number} convolutions and linear layers are int8"]
    if end:
        lines[0] += f"; the last one, {', '.join(end)}, is small and stays in float32"
    if floats:
        lines.append(f"left in float32, since they are sensitive: {', '.join(floats)}")
    share, wanted = chosen["agreement"]["share"], own["wanted"]
    if own["method"] == "compensated" and share < wanted:
        lines.append(
            f"{share:.1%} of the answers agree with float32, fewer than the {wanted:.1%} that were "
            "asked for; more layers in float32 did not change that, or would take too many bytes"
        )
    return lines


def quantized_table(record: Record) -> str:
    """Accuracy, agreement, size and time of each file, for people."""
    batches = list(record["rows"][0]["ms"])
    header = ["", "accuracy", "95% interval", "agreement", "MB"]
    header += [f"ms, batch {batch}" for batch in batches]
    cells = [header]
    for row in record["rows"]:
        cells.append(
            [
                row["name"],
                f"{row['accuracy']:.1%}",
                f"{row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}",
                f"{row['agreement']:.1%}",
                f"{row['num_bytes'] / 1e6:.2f}",
                *(f"{row['ms'][batch]['median']:.3g}" for batch in batches),
            ]
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    threads = record["threads"]
    return "\n".join(
        [
            *lines,
            f"on {record['num_images']} validation images, in ONNX Runtime with {threads} "
            f"thread{'s' if threads > 1 else ''}, alternating runs; agreement with float32",
            *record["sentences"],
            f"written: {record['path']}",
        ]
    )
