"""Batches that are no samples along their first axis: graphs, packed sequences, single images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

import secateurs
from secateurs.api.loading import read_batches
from secateurs.api.models import given, grouped, samples_in_one
from secateurs.errors import InputError
from secateurs.nets.batches import Whole, num_samples, samples
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import narrow

HALF = secateurs.Budget(macs=0.5, round_to=1, fewest=1)


class GraphNet(nn.Module):
    """Sums over the edges of a graph, and a mean over the nodes of each graph of a batch."""

    def __init__(self, first: int = 12, second: int = 10) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, first), nn.Linear(first, second)
        self.head = nn.Linear(second, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        source, target = edge_index
        for layer in (self.a, self.b):
            x = layer(x)
            x = (x + torch.zeros_like(x).index_add(0, target, x[source])).relu()
        graphs = int(batch.max()) + 1
        return self.head(x.new_zeros(graphs, x.shape[1]).index_add(0, batch, x))


def graphs(count: int) -> dict[str, Tensor]:
    batch = torch.arange(count).repeat_interleave(5)
    edges = [5 * k + torch.randint(5, (2, 8)) for k in range(count)]
    return {"x": torch.randn(5 * count, 6), "edge_index": torch.cat(edges, 1), "batch": batch}


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Any) -> Tensor:
        return self.head(self.rnn(x)[1][-1])


def packed(count: int) -> Any:
    lengths = torch.arange(count) % 3 + 2
    return rnn.pack_padded_sequence(torch.randn(count, 5, 6), lengths, True, enforce_sorted=False)


class OneImage(nn.Sequential):
    """A network for one image without an axis for samples."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU())
        self.append(nn.Flatten(0))
        self.append(nn.Linear(8 * 16, 3))


def test_a_graph_is_cut_as_the_narrow_network_by_hand():
    torch.manual_seed(0)
    net, batch = GraphNet().eval(), Whole(graphs(4))
    run = lambda model, batch: model(**given(batch))  # noqa: E731
    groups = checked(net, find_groups(net, batch, run=run), batch, run=run)
    assert [(group.name, group.num_units) for group in groups.found] == [("a", 12), ("b", 10)]
    first, second = torch.tensor([0, 3, 7]), torch.tensor([1, 2, 8, 9])
    small = narrow(net, groups.found, {"a": first, "b": second})

    by_hand, state = GraphNet(3, 4).eval(), net.state_dict()
    by_hand.load_state_dict(
        {
            "a.weight": state["a.weight"][first],
            "a.bias": state["a.bias"][first],
            "b.weight": state["b.weight"][second][:, first],
            "b.bias": state["b.bias"][second],
            "head.weight": state["head.weight"][:, second],
            "head.bias": state["head.bias"],
        }
    )
    with torch.no_grad():
        assert torch.equal(run(small, batch), run(by_hand, batch))


@pytest.mark.parametrize(
    ("make", "inputs", "groups"),
    [
        (GraphNet, graphs, {"a": 12, "b": 10}),
        (Packed, lambda n: (packed(n),), {"rnn": 12}),
        (OneImage, lambda _: (torch.randn(3, 8, 8),), {"0": 12, "2": 8}),
    ],
)
def test_they_are_inspected_pruned_and_come_back(
    make: Any, inputs: Any, groups: dict[str, int], tmp_path: Path
):
    torch.manual_seed(0)
    model = make().eval()
    found = secateurs.inspect(model, inputs(4))
    assert {row.name: row.num_units for row in found.groups} == groups
    call = lambda m, b: m(**b) if isinstance(b, dict) else m(*b)  # noqa: E731
    small = secateurs.prune(model, [inputs(3), inputs(4)], HALF, forward=call, reconstruction=None)
    assert small.report["macs"] <= 0.5
    assert small.report["parity"] <= 1e-5
    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(make().eval(), tmp_path / "small.safetensors")
    with torch.no_grad():
        example = inputs(2)
        assert torch.equal(call(small.model, example), call(again, example))


def test_batches_of_samples_stay_batches_of_samples():
    net, images = nn.Conv2d(3, 4, 3).eval(), torch.randn(4, 3, 8, 8)
    assert samples_in_one(net, images) == 1
    assert samples_in_one(net, torch.randn(4, 5, 8, 8)) == 1  # it does not run at all
    assert samples_in_one(net, images[0]) == 0
    assert grouped(images, 1)[0] is images
    (whole,) = grouped(images[0], 0)
    assert isinstance(whole, Whole)
    assert num_samples(whole) == 1
    assert samples(whole, slice(0, 1)) is whole


def test_an_index_that_is_out_of_bounds_is_one_line():
    batch = graphs(2)
    batch["edge_index"] += 10
    with pytest.raises(InputError, match=r"forward: the model does not run .*out of"):
        secateurs.inspect(GraphNet(), batch)


class Pair(NamedTuple):
    image: Tensor
    size: Tensor | None


@dataclass
class Record:
    image: Tensor
    name: str = "one"


class OfRecords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, record: Any, **words: Tensor) -> Any:
        x = self.head(self.a(record.image).relu())
        return Record(x * words["scale"] if words else x)


@pytest.mark.parametrize(
    "inputs",
    [
        lambda x: (Pair(x, None),),
        lambda x: (Record(x),),
        lambda x: {"record": Record(x), "scale": torch.full((len(x), 1), 2.0)},
    ],
)
def test_records_and_keywords_are_exported_as_plain_inputs(inputs: Any, tmp_path: Path):
    torch.manual_seed(0)
    model, example = OfRecords().eval(), inputs(torch.randn(3, 6))
    found = secateurs.inspect(model, example)
    assert [(row.name, row.num_units) for row in found.groups] == [("a", 12)]
    assert secateurs.export(model, tmp_path / "net.pt2", example).difference <= 1e-5


class Squeezed(nn.Module):
    """A network that squeezes, so that of a single sample no axis of samples is left."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 10, 3), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu().mean((2, 3), keepdim=True).squeeze()
        return self.head(x.permute(0, 1)).log_softmax(1)


def test_a_network_that_does_not_run_on_one_sample_has_two_in_the_place_of_one(tmp_path: Path):
    torch.manual_seed(0)
    model = Squeezed().eval()
    batches = [torch.randn(size, 3, 8, 8) for size in (7, 5, 1)]
    assert samples_in_one(model, batches[0]) == 2
    found = secateurs.inspect(model, batches[0])
    assert {row.name: row.num_units for row in found.groups} == {"a": 12, "b": 10}
    assert found.macs == 3 * 12 * 9 * 36 + 12 * 10 * 9 * 16 + 10 * 2
    calibration, held_out = read_batches(batches, model, 256)
    assert [len(given(part)) for part in (*calibration, *held_out)] == [2, 2, 3, 2, 3]
    small = secateurs.prune(model, batches, HALF)
    assert small.report["macs"] <= 0.5
    assert small.report["parity"] <= 1e-5
    assert small.report["reconstruction"] is not None
    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(Squeezed().eval(), tmp_path / "small.safetensors")
    with torch.no_grad():
        assert torch.equal(small.model(batches[0]), again(batches[0]))
