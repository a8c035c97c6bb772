"""The kernels of a graphics card, run on the CPU by Triton's interpreter."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from secateurs.prune.similarity import fused
from secateurs.prune.similarity.angles import similar_pairs
from secateurs.prune.similarity.normalise import directions
from secateurs.prune.similarity.tiles import thresholds, vectors

triton = pytest.importorskip("triton")

TILE = fused.Tile(block_i=16, block_j=32, block_k=32, num_warps=4, num_stages=1)
LIMITS = [(35, 115), (35, None), (0, 110)]
MODULE = "secateurs.prune.similarity.kernels"


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels that run on the CPU: Triton reads the variable when it meets a function."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
        pytest.skip("the interpreter of this Triton fails with today's NumPy")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for part in (triton.language, triton.language.standard):
        for name, value in vars(part).items():
            if isinstance(value, JITFunction):
                monkeypatch.setattr(part, name, InterpretedFunction(value.fn))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    fused._kernels.cache_clear()
    yield
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    fused._kernels.cache_clear()


def layer(samples=40, units=75):
    """Non-negative sparse activations with a few dead units and directions in common."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(samples, 8, generator=generator)
    x = torch.relu(hidden @ torch.randn(8, units, generator=generator) - 0.5)
    x[:, ::17] = 0
    return x


def prepared(x, low, high, kind="centre"):
    source = directions(x, normalise=kind)
    units = source.live.nonzero().flatten()
    limits = thresholds(low, high)
    found = vectors(source, units, limits, screen=torch.bfloat16, apart=TILE.block_k)
    assert found.screen.apart is not None
    # Triton's interpreter multiplies no bfloat16; the numbers are the same.
    return replace(found, screen=replace(found.screen, matrix=found.screen.matrix.float()))


@pytest.mark.parametrize(("low", "high"), LIMITS)
@pytest.mark.parametrize("kind", ["minmax", "centre"])
def test_terms_apart_rule_out_no_pair_that_is_beyond(low, high, kind):
    ready = prepared(layer(), low, high, kind)
    screen, rows = ready.screen, torch.arange(len(ready.units))
    cosine = ready.tile(rows, rows)
    over = screen.sign * (cosine - screen.shift)
    value = screen.value(rows, rows).double()
    assert value.dtype == torch.float64 and screen.matrix.shape[1] == 64
    assert bool((value >= over - 1e-6).all())
    assert bool((value <= over + screen.slack + 1e-6).all())
    beyond = ready.limits.exactly(cosine).flatten().nonzero().flatten()
    left = screen.possible(rows, rows, len(rows) ** 2)
    assert left is not None and set(beyond.tolist()) <= set(left.tolist())
    assert len(left) < len(rows) ** 2


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("low", "high"), LIMITS)
def test_the_kernel_finds_the_pairs_of_float64(low, high):
    x = layer()
    ready = prepared(x, low, high)
    num = len(ready.units)
    found = [
        fused.beyond_rows(ready, top, min(top + 64, num), tile=TILE, side=32)
        for top in range(0, num, 64)
    ]
    i, j, cosine = (torch.cat(part) for part in zip(*found, strict=True))
    expected = similar_pairs(x, low, high, normalise="centre", screen=torch.float32)
    assert len(expected) > 10
    assert torch.equal(ready.units[i], expected.i) and torch.equal(ready.units[j], expected.j)
    assert np.allclose(cosine.acos().rad2deg(), expected.angle_deg, atol=1e-6)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("held", [True, False])
def test_cosines_of_pairs_in_float64(dtype, held, monkeypatch):
    if not held:
        monkeypatch.setattr("secateurs.prune.similarity.normalise.HELD_BYTES", 0)
    x = (layer(70, 20) + 1).to(dtype) * (1e-200 if dtype == torch.float64 else 1)
    source = directions(x, normalise="centre")
    i, j = torch.tensor([1, 2, 3, 4, 5] * 5), torch.tensor([19, 18, 16, 5, 5] * 5)
    got = fused.cosines(source, i, j)
    plain = x.double() * (1e200 if dtype == torch.float64 else 1)
    plain = plain - plain.mean(0)
    norm = torch.linalg.vector_norm(plain, dim=0)
    expected = (plain[:, i] * plain[:, j]).sum(0) / (norm[i] * norm[j])
    assert got.dtype == torch.float64
    assert float((got - expected).abs().max()) < 1e-14
    assert fused.cosines(source, i[:0], j[:0]).shape == (0,)


@pytest.mark.usefixtures("interpreted")
def test_a_list_that_is_too_short_is_done_in_parts_and_by_pytorch_in_the_end(monkeypatch):
    x = layer()
    ready = prepared(x, 35, 115)
    num = len(ready.units)
    left = fused.screened(ready.screen, 0, num, tile=TILE, side=32)
    assert left is not None
    assert fused.screened(ready.screen, 0, num, tile=TILE, side=32, capacity=len(left) - 1) is None
    again = fused.screened(ready.screen, 0, num, tile=TILE, side=32, capacity=len(left))
    assert again is not None and torch.equal(again, left)
    real, asked = fused.beyond_rows, []

    def short(prepared, top, stop, **_):
        asked.append((top, stop))
        return real(prepared, top, stop, tile=TILE, side=32, capacity=len(left) // 8)

    monkeypatch.setattr(fused, "beyond_rows", short)
    monkeypatch.setattr(fused, "obstacle", lambda device: None)
    expected = similar_pairs(x, 35, 115, normalise="centre", screen=torch.float32)
    i, j, _ = fused.rows(ready, 0, num, 16)
    assert torch.equal(ready.units[i], expected.i) and torch.equal(ready.units[j], expected.j)
    assert len(asked) > 3 and asked[0] == (0, num)


def test_a_kernel_that_fails_is_named_once_and_replaced(monkeypatch):
    x = layer()
    ready = prepared(x, 35, 115)
    expected = similar_pairs(x, 35, 115, normalise="centre")

    def broken(prepared, top, stop):
        raise ValueError("no compiler\nnot found: gcc")

    told: dict[str, str] = {}
    monkeypatch.setattr(fused, "_failures", lambda: told)
    monkeypatch.setattr(fused, "beyond_rows", broken)
    monkeypatch.setattr(fused, "obstacle", lambda device: told.get(str(device)))
    with pytest.warns(RuntimeWarning, match="cannot be used on cpu .ValueError: not found: gcc"):
        i, _, _ = fused.rows(ready, 0, len(ready.units), 64)
    assert torch.equal(ready.units[i], expected.i)
    assert told == {"cpu": "ValueError: not found: gcc"}
    i, _, _ = fused.rows(ready, 0, len(ready.units), 64)  # without another warning
    assert torch.equal(ready.units[i], expected.i)


def test_the_kernel_is_for_many_units_on_a_card():
    assert "CUDA" in str(fused.obstacle(torch.device("cpu")))
    assert not fused.usable([torch.device("cpu")], 2**20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("low", "high"), [(12, 115), (12, None), (0, 115)])
def test_on_a_card_the_pairs_are_those_of_pytorch(low, high):
    x = layer(100, 20_000).cuda()
    assert fused.usable([x.device], x.shape[1])
    found = similar_pairs(x, low, high, normalise="centre")
    expected = similar_pairs(x, low, high, normalise="centre", tile=8192)
    assert fused.obstacle(x.device) is None and len(expected) > 10
    assert torch.equal(found.i, expected.i) and torch.equal(found.j, expected.j)
    assert float((found.angle_deg - expected.angle_deg).abs().max()) < 1e-6
