"""Networks with something unusual: pruned right, or refused in one line."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from odd_modules import CUT, SIZE, TOLD
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.attention import open_attention
from secateurs.nets.batches import blank_image
from secateurs.nets.counting import macs, num_parameters
from secateurs.nets.trace import tensors_of
from secateurs.prune.allocation.budget import Widths, descent
from secateurs.prune.allocation.survey import survey
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.network import prune_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import PARITY_LIMIT, difference

QUICK = 2  # of so many modules one is cut by `make test`, every one by `make test-slow`


def images(model: nn.Module, count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    return list(torch.randn(count, 3, SIZE, SIZE, generator=generator).to(dtype).split(4))


def pruned(model: nn.Module, batches: list[Tensor]) -> int:
    """Prune half of what can be; returns how many groups could be cut."""
    groups = checked(model, find_groups(model, blank_image(model, SIZE)), batches[0])
    if not groups.found:
        return 0
    seen = survey(model, groups.found, batches)
    assert all(e.loss.isfinite().all() for e in seen.eliminations.values())
    widths = Widths(model, groups.found, blank_image(model, SIZE))
    least = descent(widths, seen.eliminations)[-1].price
    half = (1 + least.parameters / widths.total.parameters) / 2
    chosen = descent(widths, seen.eliminations, params=half)[-1]
    done = prune_groups(model, groups.found, seen, chosen.kept, batches)
    assert num_parameters(done.model) == chosen.price.parameters
    assert chosen.price.parameters <= half * num_parameters(model)
    assert macs(done.model, blank_image(done.model, SIZE)) == chosen.price.macs
    assert difference(model, groups.found, done.survivors, batches[0]) <= PARITY_LIMIT
    with torch.no_grad():
        before, after = (tensors_of(m(batches[0].clone())) for m in (deepcopied(model), done.model))
    assert [t.shape for t in before] == [t.shape for t in after]
    assert all(t.isfinite().all() for t in after)
    done.model.train()(batches[0].clone())  # it can be trained on
    return len(groups.found)


def deepcopied(model: nn.Module) -> nn.Module:
    for module in model.modules():
        module.__dict__.pop("feature_map", None)
        module.__dict__.pop("history", None)
    return deepcopy(model)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (place % QUICK > 0))
        for place, name in enumerate(CUT)
    ],
)
def test_what_can_be_cut_is_cut_right(name: str):
    torch.manual_seed(0)
    fewest, make = CUT[name]
    model = open_attention(make())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    batches = images(model)
    with torch.enable_grad():
        model.eval()(batches[0].clone())  # as someone does before: what is kept has a history
        for module, training in zip(model.modules(), modes, strict=True):
            module.training = training
    assert pruned(model, batches) >= fewest
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", TOLD)
def test_what_cannot_be_cut_is_told_in_one_line(name: str):
    torch.manual_seed(0)
    message, make = TOLD[name]
    with pytest.raises(InputError, match=message) as told:
        model = open_attention(make())
        pruned(model, images(model))
    assert "\n" not in str(told.value)


def test_images_that_say_nothing_or_are_broken():
    torch.manual_seed(0)
    model = CUT["plain"][1]().eval()
    zeros = [torch.zeros(4, 3, SIZE, SIZE)] * 2
    assert pruned(model, zeros) == 2
    groups = find_groups(model, blank_image(model, SIZE)).found
    for batches, message in (
        ([torch.full((2, 3, SIZE, SIZE), float("nan"))], "values that are not finite"),
        ([], "no samples"),
        ([torch.zeros(0, 3, SIZE, SIZE)], "no samples"),
    ):
        with pytest.raises(InputError, match=message):
            survey(model, groups, batches)
