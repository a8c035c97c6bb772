from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.nets.batches import forward
from secateurs.prune.reconstruction.blocks import blocks_of


def names(model: nn.Module, x: Tensor, **words: object) -> list[str]:
    return [block.name for block in blocks_of(model, x, run=forward, **words)]


class Block(nn.Module):
    def __init__(self, width: int, *, inplace: bool = True) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.act(self.one(x)))


class Root(nn.Module):
    """Operations of its own between its modules, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(3, 6), nn.BatchNorm1d(6)
        self.body = nn.Sequential(Block(6), Block(6), nn.ReLU())
        self.twice = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.norm(self.stem(x)).relu())
        return self.head(self.twice(self.twice(x)))


def test_layers_of_a_chain_are_joined_in_pairs_with_what_follows_them():
    layers: list[nn.Module] = []
    for _ in range(5):
        layers += [nn.Linear(4, 4), nn.ReLU(inplace=True)]
    assert names(nn.Sequential(*layers), torch.rand(2, 4)) == ["0 to 3", "4 to 7", "8 to 9"]


def test_residual_blocks_are_blocks_and_what_runs_twice_is_in_none():
    found = names(Root().eval(), torch.rand(2, 3))
    assert found == ["stem to norm", "body.0", "body.1 to body.2", "head"]


def test_a_block_does_not_go_on_where_its_output_is_read_elsewhere_too():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.two(x) + x

    assert names(Shared(), torch.rand(2, 3)) == ["one", "two"]


def test_a_block_goes_on_to_where_it_may_end():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(5)))
    assert names(model, torch.rand(2, 3), may_end=lambda path: path != "1") == ["0 to 2", "3 to 4"]
    assert names(model, torch.rand(2, 3), may_end=lambda path: path == "1") == ["0 to 1"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_parts_that_torchscript_compiled_are_in_no_block():
    model = nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.Linear(3, 3)))
    assert names(model, torch.rand(2, 3)) == ["0"]
