"""Settings of the caller: the result does not depend on them, and they stay as they were."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from own_networks import tabular
from torch import Tensor, nn

import secateurs

ROWS = torch.randn(32, 9, generator=torch.Generator().manual_seed(1))
BUDGET = secateurs.Budget(params=0.5, round_to=1, fewest=1)


@contextmanager
def default_type() -> Generator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64 by default": default_type,
    "inference mode": torch.inference_mode,
    "mixed precision": lambda: torch.autocast("cpu", torch.bfloat16),
    "another device by default": lambda: torch.device("meta"),
}


def pruned(model: nn.Module) -> dict[str, Tensor]:
    found = secateurs.prune(model, [ROWS], BUDGET, reconstruction=None).model
    assert not any(parameter.is_inference() for parameter in found.parameters())
    return found.state_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_change_nothing(name: str):
    model = tabular()
    expected = pruned(model)
    with SETTINGS[name]():
        before = torch.get_default_dtype(), torch.get_default_device()
        found = pruned(model)
        assert (torch.get_default_dtype(), torch.get_default_device()) == before
    for key, value in expected.items():
        assert torch.equal(value, found[key])


class Noisy(nn.Module):
    """It draws random numbers in evaluation too, of the caller's default type."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(9, 12), nn.Linear(12, 10), nn.Linear(10, 2)
        self.types: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        noise = 1e-3 * torch.randn(len(x), 2)
        self.types.add(noise.dtype)
        return self.c(self.b(self.a(x).relu()).relu()) + noise


def test_random_numbers_of_the_caller_are_left_to_the_caller():
    before = torch.get_rng_state()
    secateurs.prune(Noisy(), [ROWS], BUDGET, reconstruction=None)
    after_making = torch.get_rng_state()
    torch.set_rng_state(before)
    model = Noisy()
    assert torch.equal(torch.get_rng_state(), after_making)
    secateurs.inspect(model, ROWS)
    assert torch.equal(torch.get_rng_state(), after_making)


def test_a_model_runs_under_the_settings_of_the_caller():
    model = Noisy().double()
    with default_type():
        types: set[torch.dtype] = set()

        def forward(net: nn.Module, batch: Tensor) -> Tensor:
            found = net(batch)
            assert isinstance(net, Noisy)
            types.update(net.types)
            return found

        secateurs.prune(model, [ROWS.double()], BUDGET, forward=forward, reconstruction=None)
    assert types == {torch.float64}
