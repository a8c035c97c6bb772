"""Each module of the zoo: what can be cut is offered, cut right, and comes back from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checks.halving import halved
from checks.pending import PENDING
from checks.reference import LIMIT, distinct, error, example, uncut
from shapes.entry import Entry, run
from shapes.zoo import ZOO
from torch import Tensor, nn

import secateurs
from secateurs.api.saving import save_weights, shapes_of
from secateurs.nets.trace import tensors_of
from secateurs.prune.surgery.attributes import changed_attributes

HALF = {"*": 0.5}
NEARLY_ALL = secateurs.Budget(params=1, round_to=1, fewest=1)  # the ratios decide
EVERY = 4  # of so many modules one goes through all of `prune`, which takes longer
QUICK = 3  # of so many modules one is cut by `make test`, every one by `make test-slow`

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated"),
]


def entries() -> list[Any]:
    return [
        pytest.param(
            entry,
            id=name,
            marks=[
                *([pytest.mark.xfail(reason=PENDING[name])] if name in PENDING else []),
                *([pytest.mark.slow] if place % QUICK else []),
            ],
        )
        for place, (name, entry) in enumerate(ZOO.items())
    ]


def offered(path: str, units: int | frozenset[int], groups: Any) -> bool:
    """Whether a group of as many units has the layer, or a part of it."""
    accepted = units if isinstance(units, frozenset) else {units}
    return any(
        units in accepted and any(f"{one}.".startswith(f"{path}.") for one in paths)
        for units, paths in groups
    )


@pytest.mark.parametrize("entry", entries())
def test_what_can_be_cut_is_cut_right_and_comes_back(entry: Entry, tmp_path: Path):
    model = distinct(entry)
    state = state_of(model)
    pruned, groups = halved(model, example(entry, 4))
    paths = [
        (group.num_units, [_path(member) for member in group.members]) for group in groups.found
    ]
    missing = [path for path, units in entry.groups.items() if not offered(path, units, paths)]
    assert not missing, f"not offered: {missing}; {groups.not_pruned}"
    names = {group.name.partition(" (")[0] for group in groups.found}
    assert not names & entry.stays.keys()
    assert uncut(entry, model, pruned) == []
    assert error(model, pruned, example(entry)) <= LIMIT
    assert_same_state(state, state_of(model))

    save_weights(
        pruned,
        tmp_path / "small.safetensors",
        unpruned=shapes_of(model),
        attributes=changed_attributes(model, pruned, groups.found),
    )
    again = secateurs.load_weights(entry.make().eval(), tmp_path / "small.safetensors")
    assert_same(pruned, again, example(entry, 2))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if place % QUICK else [])
        for place, name in enumerate([name for name in ZOO if name not in PENDING][::EVERY])
    ],
)
def test_the_public_calls_cut_the_same_groups(name: str, tmp_path: Path):
    entry = ZOO[name]
    model = entry.built()
    state = state_of(model)
    found = secateurs.inspect(model, entry.example())
    rows = [(row.num_units, row.layers) for row in found.groups]
    assert all(offered(path, units, rows) for path, units in entry.groups.items()), found

    small = secateurs.prune(
        model, [entry.example(6, seed) for seed in (2, 3)], NEARLY_ALL, forward=run, ratios=HALF
    )
    cut = {row["name"]: row for row in small.report["groups"]}
    assert cut.keys() == {row.name for row in found.groups}
    assert all(row["num_kept"] < row["num_units"] for row in cut.values())
    assert small.report["parity"] <= LIMIT
    assert small.report["parameters"] < 1
    assert_same_state(state, state_of(model))

    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(entry.make().eval(), tmp_path / "small.safetensors")
    assert_same(small.model, again, entry.example())


def _path(member: Any) -> str:
    """The path of a group's member: a layer, or a parameter that is used as one."""
    return f"{member.path}.{member.tensor}".strip(".")


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def assert_same(model: nn.Module, again: nn.Module, inputs: Any) -> None:
    assert_same_state(state_of(model), state_of(again))
    with torch.no_grad():
        before, after = (tensors_of(run(one, inputs)) for one in (model, again))
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(part.isfinite().all() for part in before)
