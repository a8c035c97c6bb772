from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from own_networks import Text, UNet, same_weights, tabular
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateurs
from secateurs.api.loading import read_batches
from secateurs.api.models import on_device, run_batch
from secateurs.errors import InputError
from secateurs.nets.batches import joined, map_tensors, num_samples, samples

BUDGET = secateurs.Budget(params=0.6, round_to=1, fewest=1)


class Encoding(UserDict[str, Any]):
    """A mapping of a class of its own, as tokenizers return."""


class Pair(NamedTuple):
    image: Tensor
    label: Tensor


@dataclass(frozen=True)
class Record:
    image: Tensor
    name: str


def test_structures_of_any_kind_are_cut_and_joined_and_keep_their_types():
    x, y = torch.randn(4, 3), torch.arange(4)
    for batch in (
        Encoding(image=x, label=y),
        Pair(x, y),
        Record(x, "a"),
        SimpleNamespace(image=x, rest=[y, "words"]),
        {"image": x, "deep": (y, [x])},
    ):
        assert num_samples(batch) == 4
        parts = [samples(batch, slice(0, 1)), samples(batch, slice(1, 4))]
        assert all(type(part) is type(batch) for part in parts)
        again = joined(parts)
        assert type(again) is type(batch)
        found: list[Tensor] = []
        map_tensors(again, lambda tensor, found=found: found.append(tensor) or tensor)
        assert torch.equal(found[0], x)
        assert num_samples(batch) == 4  # the batch given is as it was


def test_arrays_become_tensors_of_their_own_type():
    model = nn.Linear(3, 2)
    given = on_device(
        {"x": np.zeros((2, 3)), "ids": np.ones(2, np.int32), "name": np.array(["a", "b"])}, model
    )
    assert given["x"].dtype == torch.float32 and given["ids"].dtype == torch.int32
    assert isinstance(given["name"], np.ndarray)
    assert on_device(np.zeros(2, np.float32), model.double()).dtype == torch.float32
    assert on_device(np.zeros(2), model.double()).dtype == torch.float64
    array = np.zeros(2, np.float32)
    on_device(array, model).fill_(1)  # a copy
    assert not array.any()


def test_a_network_is_pruned_on_arrays_as_on_tensors():
    torch.manual_seed(0)
    model, rows = tabular(), torch.randn(60, 9)
    expected = secateurs.prune(model, [(rows[:40], 0), (rows[40:], 1)], BUDGET)
    arrays = [(rows[:40].double().numpy(), 0), (rows[40:].double().numpy(), 1)]
    assert same_weights(secateurs.prune(model, arrays, BUDGET).model, expected.model)


def test_keys_that_the_model_does_not_take_are_left_out():
    model = Text().eval()
    batch = {
        "input_ids": torch.ones(2, 5, dtype=torch.int64),
        "attention_mask": torch.ones(2, 5),
        "labels": torch.zeros(2),
    }
    expected = model(batch["input_ids"], batch["attention_mask"])
    for given in (batch, Encoding(batch), [batch, "rest"]):
        torch.testing.assert_close(run_batch(model, given), expected)

    class Open(Text):
        def forward(self, **words: Tensor) -> Tensor:  # type: ignore[override]
            return words["labels"]

    assert torch.equal(run_batch(Open(), batch), batch["labels"])  # type: ignore[arg-type]
    seen = secateurs.inspect(model, Encoding(batch))
    assert [row.name for row in seen.groups] == ["fc1"]


def tokens(num: int, length: int) -> dict[str, Tensor]:
    return {
        "input_ids": torch.randint(0, 50, (num, length)),
        "attention_mask": torch.ones(num, length),
    }


@pytest.mark.parametrize(
    ("model", "batches"),
    [
        (UNet(), [torch.randn(9, 1, 16, 16), torch.randn(3, 1, 8, 20), torch.randn(1, 1, 8, 8)]),
        (UNet(), [torch.randn(1, 1, 8, 4 * n) for n in range(2, 12)]),
        (Text(), [tokens(11, 4), tokens(7, 9), tokens(2, 1)]),
    ],
)
def test_samples_of_several_sizes(model: nn.Module, batches: list[Any]):
    small = secateurs.prune(model, iter(batches), BUDGET)
    assert small.report["parameters"] <= 0.6 and small.report["parity"] <= 1e-5
    # Weights are drawn: how much remains of the outputs is tested below.
    assert 0 < small.report["change"] < float("inf")


def test_several_sizes_are_refitted_nearly_as_well_as_one():
    torch.manual_seed(0)
    model = UNet().eval()
    budget = secateurs.Budget(macs=0.6, round_to=1)
    one = secateurs.prune(model, [torch.randn(64, 1, 16, 16)], budget)
    several = [torch.randn(16, 1, 16, 8 * n) for n in (1, 2, 3, 4)]
    two = secateurs.prune(model, several, budget)
    fresh = torch.randn(32, 1, 16, 16)
    with torch.no_grad():
        whole = model(fresh)["logits"]
        first, second = (
            float((small.model.eval()(fresh)["logits"] - whole).square().mean() / whole.var())
            for small in (one, two)
        )
    assert second < 2 * first and second < 0.5


def test_held_out_samples_calibrate_nothing():
    model = nn.Linear(2, 2)
    batches = [torch.arange(20.0).view(10, 2), torch.arange(20.0, 26).view(3, 2)]
    calibration, held_out = read_batches(batches, model, 256)
    assert [len(batch) for batch in calibration] == [8, 3] and [len(b) for b in held_out] == [2]
    everything = torch.cat([*calibration, *held_out])
    assert everything.sort(0).values.equal(torch.cat(batches))
    singles, held_out = read_batches([torch.ones(1, 2)] * 10, model, 7)
    assert len(singles) == 6 and len(held_out) == 1


def test_one_batch_a_generator_and_a_data_loader():
    model = tabular()
    data = TensorDataset(torch.randn(50, 9), torch.zeros(50))
    for loader in (DataLoader(data, batch_size=16), iter([torch.randn(40, 9)])):
        assert secateurs.prune(model, loader, BUDGET).report["parameters"] <= 0.6


def broken() -> Iterator[Tensor]:
    yield torch.randn(20, 9)
    raise OSError("no such image: 7.png\nand more")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (broken(), r"loader: batch 1 could not be read \(OSError: no such image: 7.png\)"),
        (torch.randn(20, 9), "expected an iterable of batches, got a Tensor; put it in a list"),
        ({"x": torch.randn(20, 9)}, "expected an iterable of batches, got a dict"),
        (TensorDataset(torch.randn(20, 9)), "got a dataset; give torch.utils.data.DataLoader"),
        (3, "expected an iterable of batches, got int"),
        ([["a", "b"]], "expected a tensor or a structure of tensors"),
        ([np.array(["a", "b"])], "expected a tensor or a structure of tensors"),
        ([torch.zeros(0, 9)], "gave no batch with a sample"),
    ],
)
def test_bad_loaders(loader: Any, message: str):
    with pytest.raises(InputError, match=message) as caught:
        secateurs.prune(tabular(), loader, BUDGET)
    assert "\n" not in str(caught.value)
