"""Numbers that modules keep of their widths change with a cut, and come back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.coupling.members import Attribute
from secateurs.prune.surgery.attributes import changed_attributes, set_attributes
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import PARITY_LIMIT, difference, narrow


class Heads(nn.Module):
    """Attention of 4 heads of 3 that knows how many there are; the images are as many wide."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.inner_dim = 4, 3, 12
        self.image_size = 12
        self.qkv, self.proj = nn.Linear(5, 36), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        assert self.image_size == 12
        parts = self.qkv(x).reshape(batch, places, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        x = (q @ k.mT * 3**-0.5).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, places, self.inner_dim))


def test_a_number_of_heads_goes_with_the_heads():
    torch.manual_seed(0)
    model, x = Heads(), torch.randn(3, 7, 5)
    (group,) = checked(model, find_groups(model, x), x).found
    assert group.num_units == 4
    assert set(group.attributes) == {Attribute("", "num_heads", 1), Attribute("", "inner_dim", 3)}
    keep = {group.name: torch.tensor([0, 2])}
    assert difference(model, [group], keep, x) <= PARITY_LIMIT
    cut = narrow(model, [group], keep)
    assert (cut.num_heads, cut.inner_dim, cut.head_dim, cut.image_size) == (2, 6, 3, 12)
    assert (model.num_heads, model.inner_dim) == (4, 12)


def test_what_changed_is_written_into_a_fresh_network():
    before = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    groups = find_groups(before, torch.randn(2, 4))
    after = narrow(before, groups.found, {"0": torch.arange(3)})
    changes = changed_attributes(before, after)
    assert changes == {
        "0": {"out_features": 3},
        "1": {"normalized_shape": (3,)},
        "2": {"in_features": 3},
    }
    fresh = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    set_attributes(fresh, changes)
    assert fresh[1].normalized_shape == (3,) and fresh[0].out_features == 3
    assert not changed_attributes(after, fresh)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (lambda: nn.LayerNorm(8, elementwise_affine=False), {"normalized_shape": (4,)}),
        (lambda: nn.RMSNorm(8, elementwise_affine=False), {"normalized_shape": (4,)}),
        (lambda: nn.GroupNorm(4, 8, affine=False), {"num_groups": 2, "num_channels": 4}),
        (lambda: nn.InstanceNorm1d(8), {"num_features": 4}),
    ],
)
def test_a_norm_without_tensors_is_told_its_width(norm, expected: dict[str, object]):
    def make() -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(2, 8, 1), Turn(), norm(), Turn(), nn.Conv1d(8, 2, 1))

    before = make()
    if not isinstance(before[2], nn.LayerNorm | nn.RMSNorm):
        before[1] = before[3] = nn.Identity()
    (group,) = find_groups(before, torch.randn(2, 2, 5)).found
    after = narrow(before, [group], {group.name: torch.arange(group.num_units // 2)})
    changes = changed_attributes(before, after)
    assert changes["2"] == expected
    set_attributes(fresh := make(), {"2": changes["2"]})
    assert not changed_attributes(after[2], fresh[2])


class Turn(nn.Module):
    """Channels last, or back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


@pytest.mark.parametrize("path, name", [("9", "in_features"), ("0", "forward"), ("0", "training")])
def test_what_is_no_number_of_a_module_is_not_written(path: str, name: str):
    with pytest.raises(InputError, match="weights of another model"):
        set_attributes(nn.Sequential(nn.Linear(4, 3)), {path: {name: 2}})


class Widths(nn.Module):
    """Parts whose widths are in a tuple and in a list, of which the last stays."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.shape = (6, 6), [12, 5]
        self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.a(x).split(self.parts, 1)
        return self.b(torch.cat([first.relu(), second], 1).view(-1, self.shape[0]))


def test_numbers_in_tuples_and_lists_go_with_the_units():
    torch.manual_seed(0)
    model, x = Widths(), torch.randn(3, 5)
    (group,) = checked(model, find_groups(model, x), x).found
    assert group.num_units == 6
    assert set(group.attributes) == {
        Attribute("", "parts", (1, 1)),
        Attribute("", "shape", (2, 0)),
    }
    cut = narrow(model, [group], {group.name: torch.tensor([0, 2, 3, 4])})
    assert (cut.parts, cut.shape) == ((4, 4), [8, 5])
    assert (model.parts, model.shape) == ((6, 6), [12, 5])
    fresh = Widths()
    set_attributes(fresh, changed_attributes(model, cut, [group]))
    assert (fresh.parts, fresh.shape) == ((4, 4), [8, 5])


class Layer(nn.Module):
    """A layer that keeps how much it makes; with as much in a second one."""

    def __init__(self, made: int) -> None:
        super().__init__()
        self.made = made
        self.weight = nn.Parameter(torch.randn(made, made))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight).view(-1, self.made)


def test_a_number_of_what_makes_the_units_and_not_of_what_reads_them():
    torch.manual_seed(0)
    model = nn.Sequential(Layer(6), nn.ReLU(), Layer(6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(4, 6)
    groups = checked(model, find_groups(model, x), x).found
    assert {one for group in groups for one in group.attributes} == {
        Attribute("0", "made", 1),
        Attribute("2", "made", 1),
    }
