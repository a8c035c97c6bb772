"""Removed against zeroed on any scale: right cuts pass and wrong ones do not, however small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import blank_image
from secateurs.prune.coupling.groups import Group, Groups, Member, find_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import PARITY_LIMIT, difference
from secateurs.prune.surgery.removal import parity, remove_units

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    ).eval()


def turned(group: Group) -> Group:
    """The group with the channels of other units where they are read: a wrong cut."""
    members = tuple(
        Member(m.path, m.side, m.index, m.unit.flip(0)) if m.side == "in" else m
        for m in group.members
    )
    return replace(group, members=members)


def scaled(module: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(by)


def both(model: nn.Module, images: Tensor = IMAGES, name: str = "0") -> tuple[float, float]:
    """The difference for the right group, and for a wrong one in its place."""
    group = next(g for g in find_groups(model, blank_image(model, 8)).found if g.name == name)
    stay = {name: torch.tensor([0, 1, 3])}
    return (
        difference(model, [group], stay, images),
        difference(model, [turned(group)], stay, images),
    )


@pytest.mark.parametrize("power", [-30, -12, -4, 0, 4, 12, 30])
def test_a_cut_is_judged_on_the_scale_of_the_output(power: int):
    model = network()
    scaled(model[5], 10.0**power)
    right, wrong = both(model)
    assert right <= PARITY_LIMIT / 100
    assert wrong > 0.1


@pytest.mark.parametrize("power", [-30, 30])
def test_activations_of_any_size_are_no_error(power: int):
    model = network()
    scaled(model[0], 10.0**power)
    right, wrong = both(model)
    assert right <= PARITY_LIMIT / 100
    assert wrong > 0.1
    groups = find_groups(model, blank_image(model, 8))
    assert checked(model, groups, IMAGES) == groups


def test_what_rounding_explains_is_no_error():
    class Cancels(nn.Module):
        """The output is the small difference of two large numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            return (self.body(x) + 1e9) - 1e9

    right, wrong = both(Cancels().eval(), name="body.0")
    assert right <= PARITY_LIMIT
    assert wrong > 0.1


def test_a_wrong_group_of_little_effect_is_found_among_others():
    model = network()
    scaled(model[2], 1e-12)  # what reads the first group hardly counts
    model[2].bias.data.uniform_(0.5, 1)
    groups = find_groups(model, blank_image(model, 8))
    bad = replace(groups, found=(turned(groups.found[0]), groups.found[1]))
    seen = checked(model, bad, IMAGES)
    assert [group.name for group in seen.found] == ["2"]
    assert checked(model, groups, IMAGES).found == groups.found


@pytest.mark.parametrize("hide", ["dead", "constant", "head"])
def test_a_cut_without_effect_is_tried_with_other_weights(hide: str):
    model = network()
    with torch.no_grad():
        if hide == "dead":  # every unit gives zero
            model[0].bias.fill_(-1e3)
        elif hide == "constant":
            model[2].weight.zero_()
        else:
            model[5].weight.zero_()
    right, wrong = both(model)
    assert right <= PARITY_LIMIT
    assert wrong > 0.1
    groups = find_groups(model, blank_image(model, 8))
    assert checked(model, groups, IMAGES).found == groups.found
    bad = Groups((turned(groups.found[0]),), ())
    assert not checked(model, bad, IMAGES).found


def test_several_outputs_are_each_on_a_scale_of_their_own():
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.large, self.small = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 2, 1),
                nn.Conv2d(8, 2, 1),
            )

        def forward(self, x: Tensor) -> dict[str, Any]:
            x = self.make(x).relu()
            return {"large": self.large(x) * 1e9, "more": (self.small(x) * 1e-9, None, 3)}

    model = Heads().eval()
    group = find_groups(model, blank_image(model, 8)).found[0]
    stay = {"make": torch.arange(5)}
    assert difference(model, [group], stay, IMAGES) <= PARITY_LIMIT
    members = tuple(
        Member(m.path, m.side, m.index, m.unit.flip(0)) if m.path == "small" else m
        for m in group.members
    )
    assert difference(model, [replace(group, members=members)], stay, IMAGES) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_any_precision_are_compared(dtype: torch.dtype):
    right, wrong = both(network().to(dtype), IMAGES.to(dtype))
    assert right <= PARITY_LIMIT
    assert wrong > 0.1


def test_a_model_that_insists_on_its_precision_is_compared_in_it():
    class Insists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x.float())

    right, wrong = both(Insists().eval(), name="body.0")
    assert right <= PARITY_LIMIT
    assert wrong > 0.1


@pytest.mark.parametrize("power", [-30, -4, 0, 30])
def test_a_cut_of_a_linear_layer_is_judged_in_the_same_way(power: int):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
    scaled(model[2], 10.0**power)
    inputs, stay = torch.randn(7, 6), torch.tensor([0, 3, 4])
    assert parity(model, "0", stay, inputs) <= PARITY_LIMIT
    wrong = remove_units(model, "0", torch.tensor([0, 3, 5]))
    assert parity(model, "0", stay, inputs, pruned=wrong) > 0.01
    model[0].bias.data.fill_(-1e6)  # every unit is dead
    assert parity(model, "0", stay, inputs) <= PARITY_LIMIT


def test_layers_called_with_keywords_are_zeroed_too():
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.read = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(input=F.relu(self.make(input=x)))

    right, wrong = both(Keywords().eval(), name="make")
    assert right <= PARITY_LIMIT
    assert wrong > 0.1


def test_images_that_are_not_finite_and_outputs_that_are_none_are_told():
    groups = find_groups(network(), torch.empty(1, 3, 8, 8))
    with pytest.raises(InputError, match="values that are not finite"):
        checked(network(), groups, torch.full((2, 3, 8, 8), float("nan")))
    with pytest.raises(InputError, match=r"does not run on a batch of \(2, 3, 9, 9\)"):
        checked(network(), groups, torch.zeros(2, 3, 9, 9))

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).argmax(1)

    group = Group("body.0", 8, ())
    with pytest.raises(InputError, match="no tensor of floating-point numbers"):
        difference(Counts(), [group], {"body.0": torch.arange(4)}, IMAGES)
