"""Each module of the zoo: what can be cut is offered, cut right, and comes back from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shapes.entry import Entry, run
from shapes.pending import PENDING
from shapes.zoo import ZOO
from torch import nn

import secateurs
from secateurs.nets.trace import tensors_of

HALF = {"*": 0.5}
NEARLY_ALL = secateurs.Budget(params=1, round_to=1, fewest=1)  # the ratios decide
PARITY = 1e-5


def entries() -> list[Any]:
    return [
        pytest.param(
            entry,
            id=name,
            marks=[pytest.mark.xfail(reason=PENDING[name])] if name in PENDING else [],
        )
        for name, entry in ZOO.items()
    ]


def offered(path: str, units: int | frozenset[int], rows: Any) -> bool:
    """Whether a group of as many units has the layer, or a part of it."""
    accepted = units if isinstance(units, frozenset) else {units}
    return any(
        row.num_units in accepted and any(f"{one}.".startswith(f"{path}.") for one in row.layers)
        for row in rows
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("entry", entries())
def test_what_can_be_cut_is_cut_right_and_comes_back(entry: Entry, tmp_path: Path):
    model = entry.built()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    example = entry.example()
    found = secateurs.inspect(model, example)
    missing = [
        path for path, units in entry.groups.items() if not offered(path, units, found.groups)
    ]
    assert not missing, f"not offered: {missing}; {found}"
    names = {row.name.partition(" (")[0] for row in found.groups}
    assert not names & entry.stays.keys(), found

    small = secateurs.prune(
        model,
        [entry.example(6, seed) for seed in (2, 3)],
        NEARLY_ALL,
        forward=run,
        ratios=HALF,
    )
    cut = {row["name"]: row for row in small.report["groups"]}
    assert cut.keys() == {row.name for row in found.groups}
    assert all(row["num_kept"] < row["num_units"] for row in cut.values())
    assert small.report["parity"] <= PARITY
    assert small.report["parameters"] < 1
    for path in entry.stays.keys() & small.kept.keys():
        assert len(small.kept[path]) == len(model.get_submodule(path).weight)  # pyright: ignore
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(entry.make().eval(), tmp_path / "small.safetensors")
    _assert_same(small.model, again, example)


def _assert_same(model: nn.Module, again: nn.Module, example: Any) -> None:
    with torch.no_grad():
        ours, theirs = (tensors_of(run(one, example)) for one in (model, again))
    assert ours
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(part.isfinite().all() for part in ours)
