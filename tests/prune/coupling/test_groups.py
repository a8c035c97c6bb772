from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from secateurs.errors import InputError
from secateurs.prune.coupling import dependency_graph
from secateurs.prune.coupling.groups import Group, Groups, find_groups
from secateurs.prune.surgery.checked_groups import checked


def named(found: Groups) -> dict[str, Group]:
    return {group.name: group for group in found.found}


def reasons(found: Groups) -> dict[str, str]:
    return {left.name: left.reason for left in found.not_pruned}


def paths(group: Group) -> dict[str, str]:
    return {member.path: member.side for member in group.members}


class Branches(nn.Module):
    """Two convolutions side by side, whose outputs are put one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        both = self.norm(torch.cat([self.left(x), self.right(x)], 1))
        return self.head(both.relu().mean((2, 3)))


class Residual(nn.Module):
    """A stream of 6 channels to which two blocks add."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 6, 1)
        self.norm = norm(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(self.first(x).relu())
        return self.head(self.norm(x).mean((2, 3)))


class Twice(nn.Module):
    """One layer that runs two times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.head = nn.Linear(192, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        return self.head(self.again(self.again(x)))


def test_alexnet_has_seven_groups_and_fc6_reads_36_places_of_a_channel():
    found = named(find_groups(models.alexnet(num_classes=5), torch.empty(1, 3, 224, 224)))
    units = {name: group.num_units for name, group in found.items()}
    assert units == {
        "features.0": 64,
        "features.3": 192,
        "features.6": 384,
        "features.8": 256,
        "features.10": 256,
        "classifier.1": 4096,
        "classifier.4": 4096,
    }
    fc6 = found["features.10"].side("in")[0]
    assert fc6.path == "classifier.1"
    assert torch.equal(fc6.index, torch.arange(9216))
    assert torch.equal(fc6.unit, torch.arange(9216) // 36)


def test_what_is_added_together_is_one_group():
    found = named(find_groups(Residual(), torch.empty(1, 3, 8, 8)))
    assert list(found) == ["stem", "first"]
    assert paths(found["stem"]) == {
        "stem": "out",
        "second": "out",
        "norm": "both",
        "first": "in",
        "head": "in",
    }
    assert paths(found["first"]) == {"first": "out", "second": "in"}


def test_parts_of_a_concatenation_read_their_own_channels():
    found = named(find_groups(Branches(), torch.empty(1, 3, 8, 8)))
    assert set(found) == {"left", "right"}
    norm, head = found["right"].side("both")[0], found["right"].side("in")[0]
    assert norm.path == "norm" and norm.index.tolist() == [4, 5, 6, 7, 8, 9]
    assert norm.unit.tolist() == list(range(6))
    assert head.path == "head" and head.index.tolist() == [4, 5, 6, 7, 8, 9]


def test_a_depthwise_convolution_passes_units_on():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
    )
    found = named(find_groups(model, torch.empty(1, 3, 8, 8)))
    assert paths(found["0"]) == {"0": "out", "1": "both", "2": "both", "3": "in"}


def test_the_unit_of_a_grouped_convolution_is_one_of_its_groups():
    model = nn.Sequential(
        nn.Conv2d(3, 12, 1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(24, 2, 6),
        nn.Flatten(),
    )
    group = named(find_groups(model, torch.empty(1, 3, 8, 8)))["0"]
    assert group.num_units == 4
    members = {member.path: member for member in group.members}
    assert {path: member.side for path, member in members.items()} == {
        "0": "out",
        "2": "both",
        "4": "in",
    }
    assert torch.equal(members["0"].unit, torch.arange(12) // 3)
    assert torch.equal(members["2"].unit, torch.arange(24) // 6)
    assert torch.equal(members["4"].unit, torch.arange(24) // 6)


def test_the_gate_of_squeeze_and_excitation_goes_with_what_it_weighs():
    model = models.mobilenet_v3_small(num_classes=3)
    found = named(find_groups(model, torch.empty(1, 3, 224, 224)))
    # The gate of the first block weighs the 16 channels of its depthwise convolution.
    sides = {path: side for g in found.values() for path, side in paths(g).items()}
    assert sides["features.1.block.1.fc1"] == "out"
    group = next(g for g in found.values() if "features.1.block.1.fc2" in paths(g))
    gate = {(m.path, m.side) for group in found.values() for m in group.members}
    assert ("features.1.block.1.fc2", "out") in gate and ("features.1.block.1.fc2", "in") in gate
    assert group.num_units in (8, 16)


def test_outputs_of_the_network_are_no_group():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    assert list(named(found)) == ["1"]
    assert not any(m.path == "3" and m.side == "out" for g in found.found for m in g.members)


def test_attention_leaves_the_width_that_it_reads_whole():
    model = models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=3)
    found = find_groups(model, torch.empty(1, 3, 32, 32))
    assert list(named(found)) == [f"encoder.layers.encoder_layer_{k}.mlp.0" for k in (0, 1)]
    assert all(len(group.members) == 2 for group in found.found)
    assert "self_attention reads it" in reasons(found)["conv_proj"]


def test_channels_that_are_normed_together_are_one_unit():
    model = Residual(norm=lambda width: nn.GroupNorm(2, width))
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    assert {name: group.num_units for name, group in named(found).items()} == {
        "stem": 2,
        "first": 5,
    }
    assert not any(group.is_norm_width for group in found.found)
    assert checked(model, found, torch.randn(2, 3, 8, 8)).found == found.found


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_borders_of_any_kind_can_be_cut(mode: str):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", padding_mode=mode),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1, padding_mode=mode),
        nn.Flatten(),
    )
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    assert [(group.name, group.num_units) for group in found.found] == [("0", 8)]
    assert checked(model, found, torch.randn(2, 3, 8, 8)).found == found.found


def test_a_layer_that_runs_twice_has_the_same_units_in_both_places():
    model = Twice()
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    assert checked(model, found, torch.randn(2, 3, 8, 8)).found == found.found
    units = {name: group.num_units for name, group in named(found).items()}
    assert units == {"stem": 8}

    layer = nn.Linear(8, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), layer, nn.ReLU(), layer, nn.Linear(8, 3))
    found = find_groups(model, torch.empty(1, 3, 8, 8))
    (group,) = found.found
    assert [(m.path, m.side) for m in group.members] == [
        ("1", "out"),
        ("2", "in"),
        ("2", "out"),
        ("5", "in"),
    ]
    assert checked(model, found, torch.randn(2, 3, 8, 8)).found == found.found


def test_branches_between_channel_shuffles_are_found():
    found = named(find_groups(models.shufflenet_v2_x0_5(num_classes=3), torch.empty(1, 3, 64, 64)))
    assert paths(found["stage2.1.branch2.0"]) == {
        "stage2.1.branch2.0": "out",
        "stage2.1.branch2.1": "both",
        "stage2.1.branch2.3": "both",
        "stage2.1.branch2.4": "both",
        "stage2.1.branch2.5": "in",
    }


def contents(found: Groups) -> set[object]:
    return {
        (group.num_units, tuple(sorted((m.path, m.side, *m.unit.tolist()) for m in group.members)))
        for group in found.found
    }


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf", "squeezenet1_1"]
)
def test_groups_are_those_of_torch_pruning(name: str):
    model = models.get_model(name, weights=None, num_classes=3)
    ours, theirs = (
        find_groups(model, torch.empty(1, 3, 64, 64)),
        find_groups(model, torch.empty(1, 3, 64, 64), by="graph"),
    )
    assert not theirs.note and len(ours.found) > 10
    assert contents(ours) == contents(theirs)


@pytest.mark.parametrize(
    ("endless", "seconds", "note"),
    [
        (lambda *_: time.sleep(60), 0.3, "torch-pruning took more than 0.3 s"),
        (lambda *_: [bytes(2**20) for _ in range(2**16)], 60, "torch-pruning took more than 1536"),
        (lambda *_: 1 // 0, 60, "torch-pruning failed (ZeroDivisionError: integer division"),
    ],
)
def test_the_graph_is_held_to_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, endless: Callable[..., object], seconds: float, note: str
):
    monkeypatch.setattr(dependency_graph, "_plain_groups", endless)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    found = find_groups(model, torch.empty(1, 3, 8, 8), by="graph", seconds=seconds)
    assert not found.found and found.note.startswith(note)


def test_swin_whose_graph_has_no_end_needs_none():
    model = models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=3)
    found = checked(model, find_groups(model, torch.empty(1, 3, 32, 32)), torch.randn(2, 3, 32, 32))
    units = {group.name: group.num_units for group in found.found}
    mlps = {
        f"features.{stage}.{block}.mlp.0": 48 * (stage + 1) for stage in (1, 3) for block in (0, 1)
    }
    # The tokens' width with the heads of a stage, whose layers are used by a function.
    assert units == {"features.0.0": 3, "features.2.reduction": 6, **mlps}
    assert not found.not_pruned


class Looks(nn.Sequential):
    """Its way depends on what it sees."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if input.sum() > 0 else input


def test_a_network_whose_way_depends_on_values_is_followed_on_values():
    model = Looks(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    found = find_groups(model, torch.ones(1, 3, 8, 8))
    assert list(named(found)) == ["0"] and found.on_values
    found = find_groups(model, -torch.ones(1, 3, 8, 8))  # where no layer runs
    assert not found.found


def test_a_network_that_cannot_be_followed_is_told():
    model = Looks(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    blank = torch.empty(1, 3, 8, 8, device="meta")
    with pytest.raises(
        InputError, match=r"does not run on a sample of \(1, 3, 8, 8\) without values"
    ):
        find_groups(model, blank)
    with pytest.raises(InputError, match=r"3, 4, 4\) .* Kernel size can't be greater"):
        find_groups(nn.Sequential(nn.Conv2d(3, 8, 7)), torch.empty(1, 3, 4, 4))


def test_the_model_is_not_touched():
    model = models.resnet18(num_classes=3).train()
    model.conv1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_groups(model, torch.empty(1, 3, 64, 64))
    assert model.training and not model.conv1.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
