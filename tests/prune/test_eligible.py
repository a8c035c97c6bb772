"""Which groups are left as they are, and which layers keep their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.nets.batches import forward
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.eligible import ignored, norm_width, tied_layers, unsteady, without


class Tied(nn.Module):
    """A language model whose last layer has the weights of the embedding, and an autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)
        self.encode, self.last = nn.Linear(6, 5), nn.Linear(6, 9, bias=False)
        self.last.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        return self.last(F.linear(self.encode(x).relu(), self.encode.weight.t()))


def test_layers_with_weights_that_are_used_elsewhere():
    model = Tied()
    groups = find_groups(model, torch.zeros(1, 4, dtype=torch.int64))
    assert tied_layers(model, groups.found) == {"encode", "last"}
    assert tied_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ()) == set()


def test_norm_widths_and_what_is_ignored_stay():
    model = Tied()
    groups = find_groups(model, torch.zeros(1, 4, dtype=torch.int64))
    assert {group.name for group in groups.found} == {"embed", "encode"}
    left = without(groups, norm_width)
    assert [group.name for group in left.found] == ["encode"]
    assert left.not_pruned[-1].reason == "norm norm works over all of it, and norm widths stay"
    left = without(groups, ignored(lambda path: path == "embed"))
    assert [group.name for group in left.found] == ["encode"]


class Sometimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        return self.c(self.b(first) if x.sum() > 0 else first)


def test_groups_of_layers_that_do_not_always_run_stay():
    model, x = Sometimes(), torch.ones(2, 3)
    groups = find_groups(model, x)
    assert {group.name for group in groups.found} == {"a", "b"}
    steady = without(groups, unsteady(model, groups, [x, 2 * x], forward))
    assert steady.found == groups.found
    left = without(groups, unsteady(model, groups, [x, -x], forward))
    assert [group.name for group in left.found] == ["b"]
    assert left.not_pruned[-1].reason == "b runs for some samples and not for others"
