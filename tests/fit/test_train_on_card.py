"""Training on a graphics card: the same numbers as on a CPU, and no waiting inside an epoch."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.fit.config import FitConfig
from secateurs.fit.images import Images, ViewPlan
from secateurs.fit.inputs import Inputs
from secateurs.fit.train import _Run, fit

CARD = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


def case(device, stored):
    """Twelve random pictures of two classes on a device, and a linear layer to train."""
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 2
    pixels = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    pixels[labels == 1] //= 4
    ids = np.arange(12, dtype=np.uint64)
    half = (0.5, 0.5, 0.5)
    images = Images(pixels, pixels, ids, np.full((12, 2), 8), labels, half, half)
    there = torch.device(device)
    every = images.eval_views(slice(None), there)
    inputs = Inputs(
        images=images,
        plan=ViewPlan(seed=0, num_views=1),
        num_views=1,
        device=there,
        precision="float32",
        val=every,
        stored=[every] if stored else None,
        rest=nn.Sequential(),
    )
    torch.manual_seed(0)
    tail = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).to(there)
    return tail, inputs, labels


@contextlib.contextmanager
def no_waiting():
    """An error where the processor waits for the card."""
    if not torch.cuda.is_available():
        yield
        return
    try:
        with warnings.catch_warnings():
            # It says that it does not see every wait yet.
            warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("device", ["cpu", CARD])
def test_steps_of_an_epoch_do_not_wait_for_the_card(device, stored):
    tail, inputs, _ = case(device, stored)
    run = _Run(tail, inputs, FitConfig(batch_size=4), steps_per_epoch=3, rests_on="")
    run.train_step(np.arange(4))  # libraries load and memory is taken
    with no_waiting():
        run.train_step(np.arange(4, 8))
        run.train_step(np.arange(8, 12))
    assert run.sums.num == 12 and run.step == 3
    assert torch.isfinite(run.sums.loss)


@pytest.mark.parametrize("device", ["cpu", CARD])
def test_a_curve_is_that_of_the_cpu_within_rounding(device):
    config = FitConfig(lr=1e-2, epochs=4, batch_size=6)
    curves = []
    for place in ("cpu", device):
        tail, inputs, labels = case(place, stored=False)
        curves.append(fit(tail, inputs, labels, config, train_mode=tail.train).curve)
    assert len(curves[0]) == 4
    for expected, found in zip(*curves, strict=True):
        assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
        assert found.val_loss == pytest.approx(expected.val_loss, rel=1e-3)
