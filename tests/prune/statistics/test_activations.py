from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import pairwise
from secateurs.prune.similarity.angles import similar_pairs
from secateurs.prune.statistics.activations import collect


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(6, 3))


X = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


def test_before_and_after_the_non_linearity_despite_working_in_place():
    model = network()
    raw = X @ model[0].weight.T + model[0].bias
    torch.testing.assert_close(collect(model, model[0], X.split(3)), raw.detach())
    after = collect(model, model[0], X.split(3), after=torch.relu)
    torch.testing.assert_close(after, raw.detach().relu())
    assert not after.requires_grad and after.dtype == torch.float32


def test_dropout_is_off_and_modes_come_back():
    model = network().train()
    model[2].p = 0.9
    model[1].eval()
    outputs = collect(model, model[3], [X])
    again = collect(model, model[3], [X])
    assert torch.equal(outputs, again)
    assert [module.training for module in model] == [True, False, True, True]


def test_hooks_and_modes_come_back_after_an_error():
    model = network().train()

    def fail(batch):
        model(batch)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        collect(fail, model[0], [X], model=model)
    assert model.training and model[2].training
    assert len(model[0]._forward_hooks) == 0


def test_bad_input():
    model = network()
    with pytest.raises(InputError, match="no batch"):
        collect(model, model[0], [])
    with pytest.raises(InputError, match="it ran 0 times"):
        collect(model, nn.Linear(2, 2), [X])
    convolution = nn.Conv2d(3, 2, 1)
    with pytest.raises(InputError, match=r"got shape \(5, 2, 4, 4\)"):
        collect(convolution, convolution, [torch.ones(5, 3, 4, 4)])


def images(n=7, channels=3, size=6):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(80, 2))


def by_hand(model, x, after):
    """(images, positions, channels), one image and position at a time."""
    with torch.no_grad():
        raw = [model[0](x[k : k + 1])[0] for k in range(len(x))]
    raw = [after(part) for part in raw]
    return torch.stack(
        [torch.stack([part[:, r, c] for r in range(4) for c in range(4)]) for part in raw]
    )


@pytest.mark.parametrize("cut", [1, 3, 7])
@pytest.mark.parametrize("after", [None, torch.relu])
def test_positions_of_a_convolution(cut, after):
    model, x = convolutions(), images()
    expected = by_hand(model, x, after or (lambda t: t))
    for positions, want in (("all", expected.flatten(0, 1)), ("mean", expected.mean(1))):
        got = collect(model, model[0], x.split(cut), after=after, positions=positions)
        torch.testing.assert_close(got, want)


def test_drawn_positions_depend_on_seed_and_image_not_on_batches():
    model, x = convolutions(), images()
    expected = by_hand(model, x, lambda t: t)

    def drawn(cut, seed=3, num=4):
        options = {"positions": "sample", "num_positions": num, "seed": seed}
        return collect(model, model[0], x.split(cut), **options)

    one = drawn(7).unflatten(0, (7, 4))
    torch.testing.assert_close(one, drawn(2).unflatten(0, (7, 4)))
    where = torch.cdist(one.double(), expected.double()).argmin(2)
    torch.testing.assert_close(one, expected.gather(1, where[..., None].expand(-1, -1, 5)))
    assert all(len(set(row)) == 4 and row == sorted(row) for row in where.tolist())
    assert len({tuple(row) for row in where.tolist()}) > 1
    assert not torch.equal(one, drawn(7, seed=4).unflatten(0, (7, 4)))
    torch.testing.assert_close(drawn(7, num=99), expected.flatten(0, 1))


def test_sequences_and_windows():
    torch.manual_seed(0)
    layer = nn.Linear(4, 6)
    sequence = torch.randn(5, 3, 4)
    want = layer(sequence).detach()
    got = collect(layer, layer, sequence.split(2), positions="all")
    torch.testing.assert_close(got, want.reshape(15, 6))
    torch.testing.assert_close(collect(layer, layer, [sequence], positions="mean"), want.mean(1))
    windows = torch.randn(2, 3, 5, 4)
    got = collect(layer, layer, [windows], positions="all")
    torch.testing.assert_close(got, layer(windows).detach().reshape(30, 6))
    norm = nn.BatchNorm2d(3)
    got = collect(norm, norm, [windows], positions="mean", unit_axis=1)
    torch.testing.assert_close(got, norm.eval()(windows).mean((2, 3)).detach())
    kept = nn.Identity()
    got = collect(kept, kept, [windows], positions="all", unit_axis=-2)
    torch.testing.assert_close(got, windows.transpose(2, 3).reshape(24, 5))


def test_batches_of_any_length_known_or_not():
    model = network()
    want = collect(model, model[0], [X])
    for sizes in ([3, 3, 3, 1], [1, 4, 5], [4, 1, 5]):
        parts = X.split(sizes)
        assert torch.equal(collect(model, model[0], parts), collect(model, model[0], iter(parts)))
        torch.testing.assert_close(collect(model, model[0], parts), want)


def test_bfloat16_is_stored_and_decided_as_stored():
    torch.manual_seed(0)
    layer = nn.Linear(8, 40)
    x = torch.randn(50, 8)
    stored = collect(layer, layer, x.split(16), after=torch.relu, dtype=torch.bfloat16)
    assert stored.dtype == torch.bfloat16
    assert torch.equal(stored, collect(layer, layer, [x], after=torch.relu).bfloat16())
    for one, other in (
        (similar_pairs(stored, 30, 120), similar_pairs(stored.double(), 30, 120)),
        (pairwise(stored, low_deg=30), pairwise(stored.double(), low_deg=30)),
    ):
        fields = ("i", "j", "angle_deg") if hasattr(one, "i") else ("survivors", "parent")
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in fields)
        assert len(getattr(one, fields[0])) > 2


def peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no resettable peak here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_is_held_than_the_result_and_a_batch(dtype):
    layer = nn.Linear(1, 4096)
    batches = [torch.ones(256, 1)] * 32  # 4 MiB of float32 each
    collect(layer, layer, batches[:1])

    def added_by_one() -> float:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what other tests gave back would take the result unseen
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_mib()
        result = collect(layer, layer, batches, dtype=dtype)
        assert result.numel() * result.element_size() == size * 2**20
        return peak_mib() - before

    size = 128 if dtype == torch.float32 else 64
    # Threads that other tests left may add to one measurement, and not to each of them.
    added = [added_by_one() for _ in range(3)]
    assert 0.8 * size < min(added) < 1.5 * size


@pytest.mark.parametrize("when", [0, 1])
def test_modes_and_hooks_come_back_when_a_later_batch_or_the_non_linearity_fails(when):
    model = network().train()

    def after(output):
        if when == 0:
            raise RuntimeError("stop")
        return output

    def batches():
        yield X
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        collect(model, model[0], batches(), after=after)
    assert all(module.training for module in model)
    assert len(model[0]._forward_hooks) == 0


def test_options_that_do_not_fit():
    layer, x = convolutions()[0], images()

    def run(module=layer, batch=x, **options):
        return collect(module, module, [batch], **options)

    with pytest.raises(InputError, match="say what to do with positions: all, mean or sample"):
        run()
    with pytest.raises(InputError, match="positions: expected one of all, mean, sample, got 'max'"):
        run(positions="max")
    with pytest.raises(InputError, match="num_positions: expected at least 1, got 0"):
        run(positions="sample", num_positions=0)
    with pytest.raises(InputError, match=r"expected float32 or bfloat16, got torch.int8"):
        run(dtype=torch.int8)
    for axis in (0, 4, -4):
        with pytest.raises(InputError, match=rf"\(7, 5, 4, 4\) after the first, got {axis}"):
            run(positions="all", unit_axis=axis)
    with pytest.raises(InputError, match=r"a ReLU gave shape .* say by unit_axis"):
        run(nn.ReLU(), positions="all")
    twice = nn.Sequential(layer, nn.Conv2d(5, 3, 3, padding=2), layer)
    with pytest.raises(InputError, match="expected the layer to run once a batch, it ran 2 times"):
        collect(twice, layer, [x], positions="mean")
    linear = nn.Identity()
    with pytest.raises(InputError, match="expected 4 units in every batch, got 3"):
        collect(linear, linear, [torch.ones(2, 4), torch.ones(2, 3)])
