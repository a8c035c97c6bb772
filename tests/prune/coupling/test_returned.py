from __future__ import annotations

import torch
from torch import Tensor, nn

from secateurs.nets.batches import forward
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.coupling.returned import returned_units
from secateurs.prune.surgery.narrow import narrow


class Residual(nn.Module):
    """A sum, a concatenation and a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.inner = nn.Sequential(
            nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1)
        )
        self.side = nn.Conv2d(8, 4, 1)
        self.mixed = nn.Identity()
        self.flat = nn.Flatten()
        self.head = nn.Linear(12 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.inner(x)).relu()
        x = self.mixed(torch.cat([self.side(x), x], 1))
        return self.head(self.flat(nn.functional.adaptive_avg_pool2d(x, 2)))


def outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda *a, path=path: found.update({path: a[-1]}))
        for path, module in model.named_modules()
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def test_the_places_that_stay_are_those_of_the_narrowed_network():
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.rand(2, 3, 6, 6)
    groups = find_groups(model, x).found
    survivors = {g.name: torch.arange(g.num_units)[1::2] for g in groups}
    with torch.no_grad():  # what goes is read by nobody, so that what stays is as it was
        for group in groups:
            gone = ~torch.isin(torch.arange(group.num_units), survivors[group.name])
            for member in group.side("in"):
                layer = model.get_submodule(member.path)
                layer.weight[:, member.index[gone[member.unit]]] = 0
    small = narrow(model, groups, survivors)
    units = returned_units(model, groups, x, run=forward)
    before, after = outputs(model, x), outputs(small, x)
    names = [group.name for group in groups]
    assert {"stem", "inner.1", "inner", "side", "mixed", "flat"} <= set(units)
    checked = 0
    for path, wanted in after.items():
        (axis,) = units[path]
        if axis is None:
            assert before[path].shape == wanted.shape, path
            continue
        rest = axis.kept(names, survivors)
        found = before[path].index_select(axis.axis, rest)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        checked += len(rest) < before[path].shape[axis.axis]
    assert checked >= 6


def test_units_of_no_group_stay():
    model, x = Residual().eval(), torch.rand(2, 3, 6, 6)
    groups = [group for group in find_groups(model, x).found if group.name == "side"]
    units = returned_units(model, groups, x, run=forward)
    (axis,) = units["mixed"]
    assert axis.group.tolist() == [0] * 4 + [-1] * 8
    assert axis.kept(["side"], {"side": torch.tensor([2])}).tolist() == [2, *range(4, 12)]
    assert axis.kept(["side"], {}).tolist() == list(range(12))
