"""Units followed through operations: each small network says what must go together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.prune.coupling.groups import Groups, find_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import PARITY_LIMIT, difference


class Between(nn.Module):
    """A layer of 8 channels, something done with them, and a layer that reads the result."""

    def __init__(self, do: Callable[[Tensor], Tensor], reads: int = 8) -> None:
        super().__init__()
        self.do = do
        self.make, self.read = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(reads, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.do(self.make(x))).mean((2, 3))


def units(found: Groups) -> list[list[int]]:
    """Channels of the first layer by unit."""
    (group,) = found.found
    (maker,) = group.side("out")
    return [maker.index[maker.unit == unit].tolist() for unit in range(group.num_units)]


def shuffled(x: Tensor, parts: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, parts, c // parts, h, w).transpose(1, 2).reshape(n, c, h, w)


SINGLE = [[k] for k in range(8)]
HALVES = [[k, k + 4] for k in range(4)]


@pytest.mark.parametrize(
    ("do", "reads", "expected"),
    [
        (lambda x: F.max_pool2d(F.gelu(x) * 2 + 1, 2), 8, SINGLE),
        (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), 8, SINGLE),
        (lambda x: x.permute(0, 2, 3, 1).flip(1).roll(1, 2).permute(0, 3, 1, 2), 8, SINGLE),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), 11, SINGLE),
        (lambda x: F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0), 8, SINGLE),
        (lambda x: torch.where(x > 0, x, 0.1 * x), 8, SINGLE),
        (lambda x: torch.cat([x, x.neg()], 1), 16, SINGLE),
        (
            lambda x: x.flatten(2).transpose(1, 2).cos().transpose(1, 2).unflatten(2, (8, 8)),
            8,
            SINGLE,
        ),
        # As many channels of either half must go, or its halves are others.
        (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), 4, HALVES),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), 8, HALVES),
        (shuffled, 8, HALVES),
        (lambda x: torch.stack(x.unflatten(1, (2, -1)).unbind(1)).sum(0), 4, HALVES),
        (lambda x: F.pixel_unshuffle(x, 2), 32, SINGLE),
        (lambda x: F.pixel_shuffle(x, 2), 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (lambda x: F.softmax(x.unflatten(1, (2, -1)), 1).flatten(1, 2), 8, HALVES),
        (
            lambda x: F.normalize(x.unflatten(1, (-1, 2)), dim=2).flatten(1, 2),
            8,
            [[0, 1], [2, 3], [4, 5], [6, 7]],
        ),
    ],
)
def test_channels_that_go_together(do, reads: int, expected: list[list[int]]):
    torch.manual_seed(0)
    model = Between(do, reads).eval()
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    assert units(found) == expected
    images = torch.randn(2, 3, 8, 8)
    assert checked(model, found, images).found == found.found
    keep = {"make": torch.arange(1, found.found[0].num_units)}
    assert difference(model, found.found, keep, images) <= PARITY_LIMIT


@pytest.mark.parametrize(
    ("do", "reads", "reason"),
    [
        (lambda x: x[:, :5], 5, "Between takes some of its channels by number"),
        (lambda x: x.split([2, 6], 1)[1], 6, "Between splits it into unequal parts"),
        (lambda x: x.sort(1).values, 8, "Between does sort with it, which is not known"),
        (lambda x: x * torch.arange(8.0, device=x.device)[:, None, None], 8, "cannot be cut"),
        (lambda x: shuffled(torch.cat([x, x.new_zeros(x.shape)], 1)), 16, "folded together with"),
        (lambda x: F.layer_norm(x, x.shape[1:]), 8, "works over all units at once"),
        (lambda x: F.group_norm(x, 2), 8, "works over all units at once"),
        (lambda x: F.softmax(x, 1), 8, "Between works over all units at once"),
        (lambda x: F.conv2d(x, x.new_ones(8, 8, 1, 1)), 8, "weights that are no layer's"),
    ],
)
def test_what_cannot_be_followed_stays_whole(do, reads: int, reason: str):
    found = find_groups(Between(do, reads), torch.empty(1, 3, 8, 8))
    assert not found.found
    (left,) = [left for left in found.not_pruned if left.name == "make"]
    assert reason in left.reason


class Attends(nn.Module):
    """Two heads of three, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 4, stride=4)
        self.qkv, self.proj, self.head = nn.Linear(6, 18), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, -1, 3).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * 3**-0.5 @ k.transpose(-2, -1)).softmax(-1)
        x = self.proj((weights @ v).transpose(1, 2).reshape(n, t, -1))
        return self.head(x.mean(1))


def test_the_heads_of_an_attention_are_units():
    torch.manual_seed(0)
    model = Attends().eval()
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    group = next(group for group in found.found if group.name == "qkv")
    assert group.num_units == 2
    made, read = group.side("out")[0], group.side("in")[0]
    assert made.unit.tolist() == [0, 0, 0, 1, 1, 1] * 3
    assert (read.path, read.unit.tolist()) == ("proj", [0, 0, 0, 1, 1, 1])
    assert {g.name for g in found.found} == {"embed", "qkv", "proj"}
    assert not checked(model, found, torch.randn(2, 3, 8, 8)).not_pruned


def test_a_part_of_a_layer_that_can_go_does():
    class Parts(nn.Module):
        """Channels 4 to 7 are read twice."""

        def __init__(self) -> None:
            super().__init__()
            self.make, self.a = nn.Linear(12, 6), nn.Linear(6, 5)
            self.b, self.c = nn.Linear(6, 5), nn.Linear(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.make(x.flatten(1))
            return self.c(torch.cat([self.a(x), self.b(x).sort(1).values], 1))

    found = find_groups(Parts(), torch.empty(1, 3, 2, 2))
    assert [group.name for group in found.found] == ["make", "a"]
    assert [left.name for left in found.not_pruned] == ["b"]
    c = found.found[1].side("in")[0]
    assert c.path == "c" and c.index.tolist() == [0, 1, 2, 3, 4]


class Rotated(nn.Module):
    """Two heads whose channels are turned by halves, and a bias from a table for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(5, 24), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.randn(7, 2))
        self.register_buffer("distance", torch.arange(16) % 7)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(len(x), 4, 3, -1, 4).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (torch.cat([-part[..., 2:], part[..., :2]], -1) for part in (q, k))
        bias = self.table[self.distance].view(4, 4, -1).permute(2, 0, 1)
        mixed = (q @ k.mT * 0.5 + bias).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


def test_halves_of_a_head_and_a_table_of_biases_go_with_the_heads():
    torch.manual_seed(0)
    model, x = Rotated(), torch.randn(3, 4, 5)
    found = find_groups(model, x)
    (group,) = found.found
    assert group.num_units == 2
    assert [(m.label, m.axis) for m in group.members if not m.is_layer] == [("table", 1)]
    assert checked(model, found, x).found == found.found


class Uneven(nn.Module):
    """Heads whose values are wider than their queries and keys, taken from one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(5, 14), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (-1, 7)).transpose(1, 2)
        q, k, v = heads.split([2, 2, 3], -1)
        mixed = (q @ k.mT * 0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


def test_unequal_parts_of_a_head_go_with_it():
    torch.manual_seed(0)
    model, x = Uneven(), torch.randn(3, 4, 5)
    found = find_groups(model, x)
    (group,) = found.found
    assert [(m.path, m.unit.tolist()) for m in group.members] == [
        ("qkv", [0] * 7 + [1] * 7),
        ("proj", [0] * 3 + [1] * 3),
    ]
    assert checked(model, found, x).found == found.found


class BesideInput(nn.Module):
    """Two rows of a layer's channels and one of the input's meet a parameter of three rows."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.shift = nn.Linear(4, 8), nn.Parameter(torch.randn(3, 4))
        self.read, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([self.make(x).unflatten(-1, (2, 4)), x[:, None]], -2)
        return self.head(self.read(rows + self.shift).relu()).mean(1)


def test_a_parameter_that_meets_units_beside_the_input_leaves_them_whole():
    found = find_groups(BesideInput(), torch.empty(1, 4))
    assert [group.name for group in found.found] == ["read"]
    (left,) = found.not_pruned
    assert left.name == "make" and "folded together" in left.reason
