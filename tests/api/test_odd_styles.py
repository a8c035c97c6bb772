"""Networks in styles that are less usual: pruned, trained a step, and back from their files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import secateurs
from secateurs.nets.trace import tensors_of


class HalfInside(nn.Module):
    """Most of it in bfloat16 by its own autocast, and checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 4)
        self.block = nn.Sequential(
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.stem(x)
            x = x + checkpoint(self.block, x, use_reentrant=False)
        return self.head(x.float().mean((2, 3)))


class Hooked(nn.Module):
    """Feature maps that hooks put into the network, and a layer that a function calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 12, 3, 2, 1), nn.ReLU()
        )
        self.found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: object, output: Tensor) -> None:
                self.found[name] = output

            return hook

        self.body[1].register_forward_hook(keep("first"))
        self.body[3].register_forward_hook(keep("second"))
        self.last = nn.Linear(28, 4)
        self.classify = lambda x: self.last(x)

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.classify(torch.cat([map_.mean((2, 3)) for map_ in self.found.values()], 1))


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        one = lambda row: self.c(self.b(self.a(row).tanh()).relu().mean(0))  # noqa: E731
        return torch.vmap(one)(x)


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(2, 12, 3, padding=1), nn.Linear(48, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu().unfold(2, 4, 4).mean(-1).flatten(1)).relu())


class Kept(Tensor):
    """A type of tensors of a user's own."""


STYLES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], dict[str, int]]] = {
    "half": (HalfInside, lambda n: torch.randn(n, 3, 12, 12), {"stem": 16, "block.0": 24}),
    "hooks": (Hooked, lambda n: torch.randn(n, 3, 12, 12), {"body.0": 16, "body.2": 12}),
    "vmap": (Mapped, lambda n: torch.randn(n, 5, 8), {"a": 16, "b": 12}),
    "unfold": (Windows, lambda n: torch.randn(n, 2, 16), {"a": 12, "b": 16}),
    "subclass": (
        lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)),
        lambda n: torch.randn(n, 8).as_subclass(Kept),
        {"0": 16},
    ),
}


@pytest.mark.parametrize("name", STYLES)
def test_a_style_goes_the_whole_way(name: str, tmp_path: Path):
    make, inputs, groups = STYLES[name]
    torch.manual_seed(0)
    model = make().eval()
    before = copy.deepcopy(model.state_dict())
    found = {row.name: row.num_units for row in secateurs.inspect(model, inputs(4)).groups}
    assert found == groups

    budget = secateurs.Budget(macs=0.5, round_to=1, fewest=1)
    small = secateurs.prune(model, [inputs(12), inputs(12)], budget)
    assert small.report["macs"] <= 0.5
    assert small.report["parity"] <= 1e-5
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    small.save(tmp_path / "w")
    again = secateurs.load_weights(make().eval(), tmp_path / "w")
    example = inputs(3)
    first, second = (outputs(one, example) for one in (small.model, again))
    assert first and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    optimiser = torch.optim.SGD(again.parameters(), lr=0.1)
    again.train()(example).square().mean().backward()
    optimiser.step()
    moved = again.state_dict()
    assert any(not torch.equal(value, moved[k]) for k, value in small.model.state_dict().items())


@torch.no_grad()
def outputs(model: nn.Module, x: Any) -> list[Tensor]:
    return tensors_of(model(x))


def test_what_a_copy_runs_is_its_own():
    torch.manual_seed(0)
    model, x = Hooked().eval(), torch.randn(2, 3, 12, 12)
    small = secateurs.prune(model, [x.repeat(8, 1, 1, 1)], secateurs.Budget(macs=0.5))
    expected = outputs(model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not torch.equal(outputs(small.model, x)[0], torch.zeros(2, 4))
    assert (outputs(small.model, x)[0] - expected[0]).square().mean() < expected[0].var()
