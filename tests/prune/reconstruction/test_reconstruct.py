from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.reconstruction.block_samples import in_turns
from secateurs.prune.reconstruction.options import (
    Reconstruction,
    ReconstructionOptions,
    options_of,
)
from secateurs.prune.reconstruction.reconstruct import reconstruct
from secateurs.prune.surgery.narrow import narrow
from secateurs.stopping import StopFlag, StopRequested


class Residual(nn.Module):
    """Two residual blocks and a head on the mean."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(Inner(width), Inner(width))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))


class Inner(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm, self.act = nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True)
        self.two = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.two(self.act(self.norm(self.one(x))))).relu()


def images(num: int = 60, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(num, 3, 6, 6, generator=generator).split(20))


def cut(
    model: nn.Module, batches: list[Tensor], share: float = 0.5, **words: object
) -> tuple[nn.Module, nn.Module, Reconstruction]:
    """A network without some of the units of each group, then tuned."""
    groups = find_groups(model, batches[0]).found
    units = {g.name: torch.arange(g.num_units)[: int(share * g.num_units)] for g in groups}
    small = narrow(model, groups, units)
    options = ReconstructionOptions(**{"steps": 40, "rate": 0.05, **words})
    return small, *reconstruct(
        small, model, groups, units, batches, images(40, seed=3), options=options
    )


def away(model: nn.Module, other: nn.Module, batches: list[Tensor]) -> float:
    with torch.no_grad():
        wanted, found = (torch.cat([net(x) for x in batches]) for net in (model, other))
    return float((found - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean())


def network() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def test_blocks_come_nearer_to_what_they_gave_also_where_the_sums_are_narrowed():
    model, new = network(), images(seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small, tuned, found = cut(model, images())
    state = {name: value.clone() for name, value in small.state_dict().items()}
    assert [row.name for row in found.blocks] == ["stem", "blocks.0", "blocks.1", "head"]
    assert found.blocks[0].before == pytest.approx(0, abs=1e-6)  # nothing before it was cut
    assert all(row.after < 0.7 * row.before for row in found.blocks[1:])
    assert found.num_better == 3 and found.num_samples == 60
    assert away(model, tuned, new) < 0.5 * away(model, small, new)
    assert tuned.blocks[0].two.out_channels == 4  # of the sum
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in small.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in tuned.parameters())
    for name, value in tuned.state_dict().items():
        if "running" in name:
            assert torch.equal(value, small.state_dict()[name])


def test_the_unpruned_network_runs_once_on_each_sample():
    model, runs = network(), {"blocks.0.one": 0, "blocks.1.one": 0}

    def watch(path: str) -> None:
        def count(_: nn.Module, received: tuple[Tensor, ...]) -> None:
            runs[path] += 0 if received[0].is_meta else len(received[0])

        model.get_submodule(path).register_forward_pre_hook(count)

    for path in runs:
        watch(path)
    groups = find_groups(model, images()[0]).found
    units = {g.name: torch.arange(g.num_units)[: g.num_units // 2] for g in groups}
    small = narrow(network(), groups, units)
    runs |= dict.fromkeys(runs, 0)
    reconstruct(
        small,
        model,
        groups,
        units,
        images(),
        images(40, seed=3),
        options=ReconstructionOptions(steps=8),
    )
    assert all(100 <= number <= 103 for number in runs.values())  # and one sample to count costs


def test_steps_towards_the_outputs_bring_these_nearer():
    model, new = network(), images(seed=2)
    _, blocks, _ = cut(model, images(), steps=20)
    _, outputs, found = cut(model, images(), steps=20, final_steps=40)
    assert found.final is not None and found.final.after < found.final.before
    assert away(model, outputs, new) < away(model, blocks, new)


def test_the_same_again_gives_the_same_network():
    _, one, _ = cut(network(), images(), steps=6)
    _, other, _ = cut(network(), images(), steps=6)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_little_memory_takes_fewer_samples():
    model = network()
    _, _, much = cut(model, images(), steps=10)
    _, _, little = cut(model, images(), steps=10, memory=60_000)
    assert [row.name for row in much.blocks] == [row.name for row in little.blocks]
    assert all(row.after <= row.before for row in little.blocks)
    assert much.blocks[1].before != little.blocks[1].before


def test_work_bounds_the_steps():
    _, _, few = cut(network(), images(), work=5e7)
    assert {row.steps for row in few.blocks[1:]} == {11}
    small, tuned, none = cut(network(), images(), work=1e7)
    assert none.blocks[0].skipped == "the work allowed is 2 steps for this network"
    assert away(small, tuned, images()) == 0


def test_few_samples_take_few_passes_unless_the_network_is_small():
    def steps(num: int, **words: object) -> int:
        _, _, found = cut(network(), images(num), **words)
        return found.blocks[-1].steps

    assert steps(20, steps=12) == 12  # little work
    assert steps(20, little_work=0.0) == 8
    many = steps(160, little_work=0.0, passes=2.0)
    assert 8 < many < 20
    assert steps(160, little_work=0.0, passes=3.0) == pytest.approx(1.5 * many, abs=1)


def test_large_networks_are_run_on_fewer_samples():
    _, _, found = cut(network(), images(300), work=5e7)
    assert 10 <= found.num_samples < 120
    assert {row.steps for row in found.blocks[1:]} == {11}


def test_samples_of_both_sides_are_mixed_evenly():
    parts, left = in_turns([torch.ones(1)] * 6, [torch.zeros(1)] * 2)
    assert left == [False, True, False, False, False, True, False, False] or left.count(True) == 2
    assert [bool(part == 0) for part in parts] == left


class Odd(nn.Module):
    """Several outputs, a layer that runs twice, weights that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 8)
        self.rnn = nn.LSTM(8, 6, batch_first=True)
        self.twice = nn.Linear(6, 6)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.last.weight

    def forward(self, signal: Tensor, scale: Tensor) -> dict[str, Tensor]:
        inner = self.last(self.first(signal * scale).relu())
        found, _ = self.rnn(self.tied(inner.relu()))
        return {"all": self.twice(self.twice(found)), "mean": inner.mean(1)}


def test_networks_of_any_kind_are_tuned_where_they_can_be():
    torch.manual_seed(0)
    model = Odd().eval()
    batches = [{"signal": torch.randn(10, n, 5), "scale": torch.ones(10, 1, 1)} for n in (4, 6)]
    groups = find_groups(model, batches[0]).found
    units = {g.name: torch.arange(g.num_units)[: g.num_units // 2] for g in groups}
    tuned, found = reconstruct(
        narrow(model, groups, units), model, groups, units, batches, batches[:1]
    )
    rows = {row.name: row for row in found.blocks}
    assert "twice" not in rows
    assert rows["first"].after <= rows["first"].before
    assert "tied to rnn" in rows
    assert all(row.skipped or row.after <= row.before for row in found.blocks)
    with torch.no_grad():
        assert tuned(**batches[0])["mean"].isfinite().all()


def test_a_few_samples_are_not_enough():
    _, tuned, found = cut(network(), [torch.randn(6, 3, 6, 6)])
    assert found.blocks[0].skipped == "fewer than 10 samples"
    assert tuned.head.weight.shape == (4, 4)


def test_it_stops_when_asked_to():
    stop = StopFlag()
    stop.request()
    model = network()
    with pytest.raises(StopRequested):
        reconstruct(model, model, [], {}, images(), images(), stop=stop)


def test_other_words_are_refused():
    assert options_of(None) is None and options_of("blocks") is not None
    with pytest.raises(InputError, match="reconstruction: expected 'blocks' or None, got 'layers'"):
        options_of("layers")


class Outside(nn.Module):
    """A block that also takes what the network around it has set."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.block = Scaled(self.inner)

    def forward(self, x: Tensor) -> Tensor:
        self.block.scale = x.mean()
        found = self.head(self.block(self.one(x)))
        self.block.scale = None
        return found


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 6), None
        self.last = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).relu() * self.scale)


def test_a_block_that_needs_its_surroundings_is_skipped():
    torch.manual_seed(0)
    model, x = Outside().eval(), [torch.rand(20, 4), 3 * torch.rand(20, 4)]
    model.inner = nn.Identity()
    tuned, found = reconstruct(model, model, [], {}, x, x)
    rows = {row.name: row for row in found.blocks}
    assert rows["block"].skipped == "it depends on more than what it is given"
    assert away(model, tuned, x) == 0
