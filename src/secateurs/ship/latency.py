"""Latency of networks in alternating runs, so that load of the machine affects all equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.nets.trace import eval_mode

MIN_ROUNDS = 3
LARGE_BATCH = 64
LONGEST_S = 12.0  # what the fewest rounds at the large batch may take, by the time of one image
MOST_BYTES = 4 * 2**30  # for a batch and what is computed from it


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a time in milliseconds."""

    median: float
    p25: float
    p75: float


@dataclass(frozen=True)
class LatencyRow:
    """Two networks timed in alternating runs.

    `ratio` is the median after over the median before; `ratio_p25`, `ratio_p50` and `ratio_p75` are
    quartiles of the ratios within the rounds, which load from elsewhere disturbs less.
    """

    runtime: str
    device: str
    batch: int
    before_ms: Spread
    after_ms: Spread
    ratio: float
    ratio_p25: float
    ratio_p50: float
    ratio_p75: float
    num_rounds: int

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return asdict(self)


def compare_latency(
    calls: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    warmup: int = 3,
    budget_s: float = 20.0,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of each call, round by round: all are timed in every round, in changing order.

    There are `repeats` rounds after `warmup` unmeasured ones; when `budget_s` seconds are over no
    further round starts, but three are always measured, after at least one of warming up.
    `on_round` is called after each round and may raise, for instance to stop.

    >>> times = compare_latency({"a": lambda: None, "b": lambda: None}, repeats=5)
    >>> [len(rounds) for rounds in times.values()]
    [5, 5]
    """
    if repeats < 1 or not calls:
        raise InputError(f"latency needs something to time and repeats >= 1, got {repeats}")
    end = time.perf_counter() + budget_s
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(max(1, warmup)):
        # Warming up may take half the time at most.
        if number and time.perf_counter() > end - budget_s / 2:
            break
        for name in names:
            calls[name]()
        on_round()
    for number in range(repeats):
        if number >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for name in names if number % 2 == 0 else reversed(names):
            start = time.perf_counter()
            calls[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
        on_round()
    return times


def spread(times_ms: list[float]) -> Spread:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    Spread(median=3.0, p25=2.0, p75=4.0)
    """
    p25, median, p75 = (float(q) for q in np.percentile(times_ms, [25, 50, 75]))
    return Spread(median, p25, p75)


def row(runtime: str, device: str, batch: int, times: Mapping[str, list[float]]) -> LatencyRow:
    """A row of results out of the times of "before" and "after"."""
    before, after = spread(times["before"]), spread(times["after"])
    ratios = spread([b / a for a, b in zip(times["before"], times["after"], strict=True)])
    return LatencyRow(
        runtime,
        device,
        batch,
        before,
        after,
        after.median / before.median,
        ratios.p25,
        ratios.median,
        ratios.p75,
        len(times["before"]),
    )


def affordable_batch(one: LatencyRow, activation_bytes: int, *, largest: int = LARGE_BATCH) -> int:
    """`largest`, halved until the fewest rounds end in 12 s and a batch fits in 4 GiB.

    `one` is the measurement at batch 1, and `activation_bytes` what one image takes at once. The
    fewest rounds are one to warm up and three measured.
    """
    seconds = (1 + MIN_ROUNDS) * (one.before_ms.median + one.after_ms.median) / 1e3
    batch = largest
    while batch > 1 and (batch * seconds > LONGEST_S or batch * activation_bytes > MOST_BYTES):
        batch //= 2
    return batch


def latency_rows(
    measure: Callable[[int], LatencyRow], activation_bytes: int, *, largest: int = LARGE_BATCH
) -> list[LatencyRow]:
    """What `measure` gives at batch 1 and at `affordable_batch`; one row where that is 1 too."""
    one = measure(1)
    batch = affordable_batch(one, activation_bytes, largest=largest)
    return [one] if batch == 1 else [one, measure(batch)]


def torch_latency(
    before: nn.Module,
    after: nn.Module,
    images: Tensor,
    *,
    batch: int = 1,
    repeats: int = 30,
    warmup: int = 3,
    budget_s: float = 20.0,
) -> LatencyRow:
    """Time two networks in PyTorch on the device they are on, in eval mode without gradient.

    `images` is (n, 3, h, w); it is repeated or cut to `batch`. CUDA work is waited for.
    """
    device = next(after.parameters()).device
    if next(before.parameters()).device != device:
        raise InputError(
            f"the two networks are on {next(before.parameters()).device} and {device}; "
            "move them to one device"
        )
    x = fill_batch(images, batch).to(device)

    def call(model: nn.Module) -> Callable[[], object]:
        def run() -> None:
            model(x)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    with eval_mode(before), eval_mode(after), torch.inference_mode():
        times = compare_latency(
            {"before": call(before), "after": call(after)},
            repeats=repeats,
            warmup=warmup,
            budget_s=budget_s,
        )
    return row("pytorch", device.type, batch, times)


def onnx_latency(
    before: Path,
    after: Path,
    images: Tensor,
    *,
    batch: int = 1,
    repeats: int = 30,
    warmup: int = 3,
    budget_s: float = 20.0,
) -> LatencyRow:
    """Time two ONNX files in ONNX Runtime on the CPU, with as many threads as PyTorch uses."""
    x = fill_batch(images, batch).cpu().numpy()

    def call(path: Path) -> Callable[[], object]:
        session = onnx_session(path)
        feed = {session.get_inputs()[0].name: x}
        return lambda: session.run(None, feed)

    times = compare_latency(
        {"before": call(before), "after": call(after)},
        repeats=repeats,
        warmup=warmup,
        budget_s=budget_s,
    )
    return row("onnxruntime", "cpu", batch, times)


def onnx_session(path: Path | bytes, *, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU; raises InputError for a file that it cannot read,
    and when the extra `onnx` is not installed. `threads` is by default PyTorch's number."""
    require("onnx", "ONNX Runtime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # what it raises is not printed as well
    try:
        source = path if isinstance(path, bytes) else str(path)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common, public base class
        reason = str(error).strip().splitlines()[0]
        name = "the graph" if isinstance(path, bytes) else path
        raise InputError(f"{name}: not readable as ONNX ({reason})") from None


def fill_batch(images: Tensor, batch: int) -> Tensor:
    """Images (n, ...) repeated or cut to (batch, ...).

    >>> fill_batch(torch.tensor([1, 2]), 5).tolist()
    [1, 2, 1, 2, 1]
    """
    if batch < 1 or len(images) < 1:
        raise InputError(f"expected images and a batch of at least 1, got {len(images)}, {batch}")
    return images[torch.arange(batch) % len(images)].contiguous()
