"""Rows seen with outputs kept between passes are those of a network that runs from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateurs.nets.batches import forward
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.statistics.replay import Replay, uses_of


class Skips(nn.Module):
    """Concatenation, addition, work in place, and a block that is called by the forward itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(6, 6, 1)
        self.join = nn.Conv2d(12, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        y = self.block(x)
        y += x
        z = self.second(y)
        z.mul_(2)
        z = self.join(torch.cat([z, x], 1))
        return self.head(z.mean((2, 3)))


class Discards(nn.Module):
    """What an activation returns is not used, but what it has changed; a view is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        self.act(x)
        y = self.two(x)
        y[:, 0] = 1.0
        z = self.three(y + x)
        nn.functional.relu_(y)
        return self.four(z + y)


class Twice(nn.Module):
    """An activation that runs in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.act = nn.ReLU()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.act(self.one(batch["x"]))
        return self.three(self.act(self.two(x)) + x)


def rows(model: nn.Module, path: str, batches: list[Any], run: Callable[..., object]) -> Tensor:
    found: list[Tensor] = []
    visit_rows(model, {path: 9}, batches, lambda _, x, y, n: found.append(x), run=run)
    return torch.cat(found)


def layers(model: nn.Module) -> list[str]:
    return [p for p, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("memory", [2**30, 7000, 0])
@pytest.mark.parametrize("kind", [Skips, Discards, Twice])
def test_rows_are_the_same_while_layers_change_in_running_order(kind: type[nn.Module], memory: int):
    torch.manual_seed(0)
    model = kind()
    batches: list[Any] = [torch.rand(n, 3, 5, 5) for n in (4, 4, 2)]
    run = forward
    if kind is Twice:
        batches = [{"x": batch} for batch in batches]
        run = lambda model, batch: model(batch)  # noqa: E731
    replay = Replay(batches, run, memory=memory)
    for path in layers(model):
        replay.reach(model, path)
        assert torch.equal(rows(model, path, batches, replay.run), rows(model, path, batches, run))
        with torch.no_grad():  # as a refit does
            model.get_submodule(path).weight.mul_(1.1)
    assert bool(replay.kept) == (memory > 0)


def counted(path: str, layer: nn.Module, calls: list[str]) -> Callable[..., Tensor]:
    real = type(layer).forward

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        calls.append(path)
        return real(self, x)

    return forward


def test_what_has_run_is_not_run_again():
    model, batches = Skips(), [torch.rand(4, 3, 5, 5)]
    calls: list[str] = []
    for path in layers(model):
        layer = model.get_submodule(path)
        layer.__class__ = type("Counted", (type(layer),), {"forward": counted(path, layer, calls)})
    replay = Replay(batches, forward, memory=2**30)
    for path in layers(model):
        replay.reach(model, path)
        calls.clear()
        rows(model, path, batches, replay.run)
        ran = [*calls]
    # The layer looked at has a class of its own here: once more for what it multiplies.
    assert ran == ["join", "head", "head"]
    assert all("forward" not in vars(module) for module in model.modules())


class Residual(nn.Module):
    """Blocks that add what they receive to what they make, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.Sequential(*(Block() for _ in range(5)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)  # runs twice

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.relu(self.one(x)))
        y += x
        return self.relu(y)


def test_memory_is_for_what_is_still_read(monkeypatch: pytest.MonkeyPatch):
    """Blocks that have run are left behind, also where little more than their outputs fits."""
    torch.manual_seed(0)
    model, batches = Residual(), [torch.rand(2, 3, 5, 5) for _ in range(3)]
    one = 3 * 2 * 4 * 5 * 5 * 4  # bytes of an output, all batches
    replay = Replay(batches, forward, memory=3 * one)
    ran: list[nn.Module] = []
    real = nn.Conv2d._conv_forward

    def noted(layer: nn.Conv2d, *given: Any) -> Tensor:
        ran.append(layer)
        return real(layer, *given)

    for path in layers(model):
        with monkeypatch.context() as patch:
            patch.setattr(nn.Conv2d, "_conv_forward", noted)
            replay.reach(model, path)
            found = rows(model, path, batches, replay.run)
        assert torch.equal(found, rows(model, path, batches, forward))
        assert sum(map(held_bytes, replay.kept.values())) <= 3 * one
        with torch.no_grad():
            model.get_submodule(path).weight.mul_(1.1)
    # Each layer to be looked at, once more with its new weights, and on one sample for its uses.
    most = max(ran.count(model.get_submodule(path)) for path in layers(model))
    assert most <= 2 * len(batches) + 1


def held_bytes(outputs: list[Any]) -> int:
    return sum(t.untyped_storage().nbytes() for t in outputs if t.untyped_storage().nbytes() > 4)


def test_a_pass_that_broke_off_is_made_again():
    torch.manual_seed(0)
    model, batches = Residual(), [torch.rand(2, 3, 5, 5) for _ in range(3)]
    replay = Replay(batches, forward, memory=2**30)
    for path in layers(model):
        replay.reach(model, path)
        with torch.no_grad():
            replay.run(model, batches[0])
        replay.reach(model, path)
        found = rows(model, path, batches, replay.run)
        assert torch.equal(found, rows(model, path, batches, forward))


def test_outputs_that_only_skipped_modules_read_take_no_memory():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)))
    batches = [torch.rand(4, 3, 5, 5)]
    replay = Replay(batches, forward, memory=2**30)
    for path in layers(model):
        replay.reach(model, path)
        rows(model, path, batches, replay.run)
    sizes = {
        path: sum(tensor.untyped_storage().nbytes() for tensor in kept)
        for path, kept in replay.kept.items()
    }
    assert list(sizes) == ["0", "1", "2", "3", "4"]
    assert sizes["4"] == batches[0].nbytes and sum(sizes.values()) < 1.1 * batches[0].nbytes


def test_uses_name_the_modules_that_read_an_output():
    uses = uses_of(Skips(), torch.rand(1, 3, 5, 5), forward)
    assert "act" in uses.readers["first"] and uses.writers["first"] == {"act"}
    assert uses.writers["block"] == {""}  # by the network itself
    assert "block.0" in uses.readers["act"] and "" in uses.readers["act"]  # added and joined
    assert uses.readers["head"] == {""}  # returned
    assert "first" in uses.returned_before("second") and "block" in uses.returned_before("second")
    assert uses.returned_before("first") == []


def test_an_error_on_the_way_leaves_the_network_as_it_was():
    model, batches = Skips(), [torch.rand(2, 3, 5, 5), torch.rand(2, 3, 5, 5)]
    replay = Replay(batches, forward, memory=2**30)
    replay.reach(model, "second")
    rows(model, "second", batches, replay.run)
    replay.reach(model, "join")

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    handle = model.join.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="broken"):
        replay.run(model, batches[0])
    handle.remove()
    assert all("forward" not in vars(module) for module in model.modules())
    replay.reach(model, "join")
    assert torch.equal(
        rows(model, "join", batches, replay.run), rows(model, "join", batches, forward)
    )
