from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.ship.latency import (
    LatencyRow,
    affordable_batch,
    compare_latency,
    fill_batch,
    latency_rows,
    onnx_latency,
    row,
    spread,
    torch_latency,
)


def test_calls_take_turns_and_change_their_order() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = compare_latency(calls, repeats=4, warmup=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert {name: len(rounds) for name, rounds in times.items()} == {"a": 4, "b": 4}


def test_times_are_milliseconds() -> None:
    times = compare_latency(
        {"slow": lambda: time.sleep(0.02), "fast": lambda: time.sleep(0.002)}, repeats=5
    )
    assert 20 <= np.median(times["slow"]) < 200
    assert 2 <= min(times["fast"]) < min(times["slow"])


def test_the_budget_ends_it_after_three_rounds() -> None:
    calls = {"a": lambda: time.sleep(0.01)}
    assert len(compare_latency(calls, repeats=1000, warmup=1000, budget_s=0.0)["a"]) == 3
    start = time.perf_counter()
    num = len(compare_latency(calls, repeats=1000, budget_s=0.2)["a"])
    assert 3 <= num < 25 and time.perf_counter() - start < 2


def test_spread_and_ratio_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.exponential(size=31).tolist(), rng.exponential(size=31).tolist()
    got = row("pytorch", "cpu", 1, {"before": before, "after": after})
    assert got.before_ms.p25 == np.quantile(before, 0.25)
    assert got.after_ms.p75 == np.quantile(after, 0.75)
    assert got.ratio == np.median(after) / np.median(before)
    assert got.ratio_p25 == np.quantile(np.divide(after, before), 0.25)
    assert got.ratio_p75 == np.quantile(np.divide(after, before), 0.75)
    assert got.to_json()["before_ms"] == {
        "median": got.before_ms.median,
        "p25": got.before_ms.p25,
        "p75": got.before_ms.p75,
    }
    one = spread([2.0])
    assert (one.p25, one.median, one.p75) == (2.0, 2.0, 2.0)


def test_a_larger_network_is_slower_and_modes_are_restored() -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4096), nn.Linear(4096, 2)).train()
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Linear(8, 2)).train()
    got = torch_latency(wide, narrow, torch.zeros(2, 3, 32, 32), batch=8, repeats=9)
    assert got.ratio < 0.9 and got.batch == 8 and got.device == "cpu" and got.num_rounds == 9
    assert wide.training and narrow[1].training


def timed(batch: int, ms: float) -> LatencyRow:
    return row("pytorch", "cpu", batch, {"before": [ms] * 3, "after": [ms] * 3})


def test_the_large_batch_is_halved_until_time_and_memory_suffice() -> None:
    assert affordable_batch(timed(1, 1.0), 2**20) == 64
    # Four rounds of both: 32 images of 40 ms end in 10.2 s, 64 would take 20.5 s.
    assert affordable_batch(timed(1, 40.0), 2**20) == 32
    assert affordable_batch(timed(1, 60_000.0), 2**20) == 1
    assert affordable_batch(timed(1, 1.0), 2**28) == 16  # 256 MiB an image, 4 GiB in all
    assert affordable_batch(timed(1, 1.0), 2**34) == 1


def test_rows_are_of_one_image_and_of_what_is_affordable() -> None:
    assert [r.batch for r in latency_rows(lambda batch: timed(batch, 1.0), 2**20)] == [1, 64]
    assert [r.batch for r in latency_rows(lambda batch: timed(batch, 1.0), 2**29)] == [1, 8]
    assert [r.batch for r in latency_rows(lambda batch: timed(batch, 9e4), 2**20)] == [1]


def test_errors() -> None:
    with pytest.raises(InputError, match=r"repeats >= 1, got 0"):
        compare_latency({"a": lambda: None}, repeats=0)
    with pytest.raises(InputError, match=r"a batch of at least 1, got 2, 0"):
        fill_batch(torch.zeros(2, 3), 0)
    with torch.device("meta"):
        elsewhere = nn.Linear(1, 1)
    with pytest.raises(InputError, match=r"on cpu and meta; move them"):
        torch_latency(nn.Linear(1, 1), elsewhere, torch.zeros(1, 1))


def test_a_broken_onnx_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no")
    with pytest.raises(InputError, match=r"broken\.onnx: not readable as ONNX"):
        onnx_latency(path, path, torch.zeros(1, 3, 8, 8))
