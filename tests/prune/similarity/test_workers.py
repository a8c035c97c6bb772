from __future__ import annotations

import threading
import time

import pytest
import torch

from secateurs.errors import InputError
from secateurs.prune.similarity.angles import similar_pairs
from secateurs.prune.similarity.tiles import Vectors
from secateurs.prune.similarity.workers import WORTH_SHARING, each, in_order


def activations(units=300):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 12, generator=generator) @ torch.randn(12, units, generator=generator)
    x = torch.relu(x - 1)
    x[:, ::11] = 0
    return x


def assert_equal(one, other):
    assert len(one) > 100
    for name in ("i", "j", "angle_deg", "dead", "constant", "candidates", "norm"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 7}, {"devices": ("cpu", "cpu")}])
@pytest.mark.parametrize("screen", [torch.bfloat16, torch.float32])
def test_workers_and_devices_change_neither_result_nor_order(options, screen):
    x = activations()
    alone = similar_pairs(x, 40, 110, tile=16, screen=screen, workers=1)
    shared = similar_pairs(x, 40, 110, tile=16, screen=screen, **options)
    assert_equal(alone, shared)
    key = shared.i * 1000 + shared.j
    assert torch.equal(key, key.sort().values)


def test_too_many_pairs_are_counted_by_workers_too():
    x = activations()
    num = len(similar_pairs(x, 40, 110))
    with pytest.raises(InputError, match=f"{num} pairs are more than max_pairs = 5"):
        similar_pairs(x, 40, 110, max_pairs=5, tile=16, workers=2)


def test_a_worker_that_dies_is_named_and_the_threads_come_back(monkeypatch):
    before = torch.get_num_threads()
    beyond = Vectors.beyond

    def fail(self, rows, columns, *, upper=False):
        if int(rows[0]) == 64:
            raise MemoryError("no room")
        return beyond(self, rows, columns, upper=upper)

    monkeypatch.setattr(Vectors, "beyond", fail)
    with pytest.raises(RuntimeError, match="piece from unit 64 failed with MemoryError: no room"):
        similar_pairs(activations(), 40, 110, tile=16, workers=2)
    assert torch.get_num_threads() == before
    assert not [t for t in threading.enumerate() if t.name.startswith("secateurs")]


def test_pieces_run_at_the_same_time_and_come_in_order():
    both = threading.Barrier(2, timeout=20)

    def work(place, piece):
        both.wait()
        time.sleep(0.01 * (4 - piece))
        return place, piece

    done = list(in_order(work, ["a", "b"], range(4)))
    assert [piece for _, piece in done] == [0, 1, 2, 3]
    assert {place for place, _ in done} == {"a", "b"}


def test_only_a_few_pieces_are_begun_before_they_are_asked_for():
    begun = []
    results = in_order(lambda place, piece: begun.append(piece), ["a", "b"], range(100))
    next(results)
    results.close()
    assert 1 <= len(begun) <= 5


@pytest.mark.parametrize("numbers", [10, WORTH_SHARING])
def test_small_pieces_are_done_by_one_thread_and_large_ones_by_several(numbers):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    names, threads = {}, set()

    def work(piece):
        time.sleep(0.01)
        names[piece] = threading.current_thread().name
        threads.add(torch.get_num_threads())

    try:
        each(work, range(0, 80, 10), numbers=numbers, device=torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert sorted(names) == list(range(0, 80, 10)) and threads == {1}
    assert len(set(names.values())) == (1 if numbers == 10 else 2)


def test_bad_options():
    x = activations()
    with pytest.raises(InputError, match="workers: expected at least 1, got 0"):
        similar_pairs(x, 15, 165, workers=0)
    with pytest.raises(InputError, match="tile: expected at least 1, got 0"):
        similar_pairs(x, 15, 165, tile=0)
    with pytest.raises(InputError, match="devices: expected at least one"):
        similar_pairs(x, 15, 165, devices=())
    with pytest.raises(InputError, match="no workers"):
        similar_pairs(x, 15, 165, devices=("cpu",), workers=2)
    with pytest.raises(InputError, match="devices: cuda:99 cannot be used here"):
        similar_pairs(x, 15, 165, devices=("cpu", "cuda:99"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_pairs():
    x = activations(units=2000)
    expected = similar_pairs(x, 25, 120)
    for tile in (None, 300):
        pairs = similar_pairs(x.cuda(), 25, 120, tile=tile)
        assert pairs.i.device.type == "cuda"
        assert torch.equal(pairs.i.cpu(), expected.i) and torch.equal(pairs.j.cpu(), expected.j)
        torch.testing.assert_close(pairs.angle_deg.cpu(), expected.angle_deg, rtol=0, atol=1e-9)
    both = similar_pairs(x, 25, 120, tile=300, devices=("cuda:0", "cpu"))
    assert torch.equal(both.i, expected.i) and torch.equal(both.j, expected.j)
