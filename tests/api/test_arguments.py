"""Arguments of the wrong kind: one line that names the argument, for every public function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateurs
from secateurs.errors import InputError

Call = Callable[[Path], Any]
X = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
A = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
W = torch.ones(2, 6)
HALF = secateurs.Budget(macs=0.5)
NAN = float("nan")


class Own(nn.Module):
    """A layer of a type of its own."""


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def pruned(_: Path, loader: Any = (X,), budget: Any = HALF, **options: Any) -> Any:
    return secateurs.prune(net(), loader, budget, **options)


def chosen() -> Any:
    return secateurs.select(A)


def ruled(**options: Any) -> Call:
    return lambda _: secateurs.register(Own, secateurs.PassThrough(**options))


WRONG: list[tuple[str, Call]] = [
    ("model: expected a torch.nn.Module, got type", lambda _: secateurs.inspect(nn.Linear, X)),
    ("example_inputs: .* got str", lambda _: secateurs.inspect(net(), "x")),
    ("first tensor is one number", lambda _: secateurs.inspect(net(), torch.tensor(1.0))),
    ("example_inputs: values that are not", lambda _: secateurs.inspect(net(), NAN * X)),
    ("seed: expected a whole number, got str", lambda p: pruned(p, seed="a")),
    ("seed: expected a number of 64 bits", lambda p: pruned(p, seed=2**70)),
    ("ignore: expected a list", lambda p: pruned(p, ignore=None)),
    ("ignore: expected a list", lambda p: pruned(p, ignore=3)),
    ("progress: expected an object with `task`, got 3", lambda p: pruned(p, progress=3)),
    ("stop: expected an object with `check`, got 3", lambda p: pruned(p, stop=3)),
    (r"does not run on a batch of \(4, 9\)", lambda p: pruned(p, [X, torch.randn(6, 9)])),
    ("path: expected a path, got NoneType", lambda _: secateurs.load_weights(net(), None)),
    ("path: expected a path, got Sequential", lambda p: secateurs.load_weights(p / "a", net())),
    ("model: .* got str", lambda p: secateurs.load_weights("m", p / "a")),
    ("a folder; expected the path of a file", lambda p: pruned(p).save(p)),
    ("path: expected a path, got Tensor", lambda p: secateurs.export(net(), X, p / "m.pt2")),
    ("a folder; expected the path of a file", lambda p: secateurs.export(net(), p, X)),
    ("model: .* got str", lambda p: secateurs.export("m", p / "m.onnx", X)),
    (
        "tolerance: expected a number, got str",
        lambda p: secateurs.export(net(), p / "m.pt2", X, tolerance="a"),
    ),
    (
        "tolerance: expected a number, got one too large for a float",
        lambda p: secateurs.export(net(), p / "m.pt2", X, tolerance=10**400),
    ),
    (
        "tolerance: expected a number, got nan",
        lambda p: secateurs.export(net(), p / "m.pt2", X, tolerance=NAN),
    ),
    ("values that are not finite", lambda p: secateurs.export(net(), p / "m.pt2", NAN * X)),
    ("PassThrough: axis: expected an axis, got 'a'", ruled(axis="a")),
    ("PassThrough: expected axes by name, got list", ruled(tensors=["w"])),
    ("PassThrough: w: expected an axis, got 'a'", ruled(tensors={"w": "a"})),
    ("activations: expected a tensor, got list", lambda _: secateurs.angles([[1.0]])),
    ("activations: expected a tensor, got ndarray", lambda _: secateurs.angles(A.numpy())),
    ("activations: expected a dense tensor", lambda _: secateurs.angles(A.to_sparse())),
    (r"activations: .*\(device meta\)", lambda _: secateurs.angles(A.to("meta"))),
    ("activations: expected a tensor", lambda _: secateurs.select(A.numpy())),
    ("incoming: expected a tensor", lambda _: secateurs.select(A, "l1", incoming=[1], keep=3)),
    (
        "incoming: values that are not finite",
        lambda _: secateurs.select(A, "l1", incoming=NAN * A.T, keep=3),
    ),
    ("selection: .* got list", lambda _: secateurs.compensate(A, W, None, [0, 1])),
    ("activations: values that are", lambda _: secateurs.compensate(NAN * A, W, None, chosen())),
    ("weight: values that are not", lambda _: secateurs.compensate(A, NAN * W, None, chosen())),
    ("weight: expected a tensor", lambda _: secateurs.compensate(A, [1], None, chosen())),
    ("bias: expected a tensor", lambda _: secateurs.compensate(A, W, [1.0, 2.0], chosen())),
    ("activations: no sample", lambda _: secateurs.compensate(A[:0], W, None, chosen())),
]


@pytest.mark.parametrize(("message", "call"), WRONG, ids=[message for message, _ in WRONG])
def test_what_is_of_the_wrong_kind_is_named_in_one_line(message: str, call: Call, tmp_path: Path):
    with pytest.raises(InputError, match=message) as refused:
        call(tmp_path)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_an_array_of_numpys_own_type_is_of_the_type_of_the_parameters():
    found = secateurs.inspect(net(), np.zeros((3, 8)))
    assert [(row.name, row.num_units) for row in found.groups] == [("0", 16)]


def test_batches_of_several_shapes_are_pruned_together():
    ran: list[tuple[int, ...]] = []

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        ran.append(tuple(batch.shape))
        return model(batch.mean(1))

    loader = [torch.randn(6, length, 8) for length in (3, 5, 3)]
    small = secateurs.prune(net(), loader, HALF, forward=forward)
    assert small.report["macs"] <= 0.5
    assert {shape[1] for shape in ran} == {3, 5}
