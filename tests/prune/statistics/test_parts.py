from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.nets.batches import forward
from secateurs.prune.statistics import parts
from secateurs.prune.statistics.parts import in_parts, parts_of, samples_at_once
from secateurs.prune.statistics.patches import visit_rows


class Windows(nn.Module):
    """Two windows of each sample stand one after the other on the first axis; a table has none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1)
        self.within, self.table = nn.Linear(5, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(x).flatten(2).transpose(1, 2)
        halves = found.unflatten(1, (2, -1)).flatten(0, 1)
        return self.within(halves) + self.table(torch.ones(1, 1, 3))


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_rows_of_parts_are_those_of_whole_batches(at_once: int):
    torch.manual_seed(0)
    model, batches = Windows(), [torch.randn(5, 2, 6, 6), torch.randn(4, 2, 6, 6)]
    layers = {"first": 7, "within": 5}

    def rows(at_once: int | None) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {path: [] for path in layers}

        def visit(path: str, rows: Tensor, outputs: Tensor, images: int) -> None:
            both = torch.cat([rows, outputs], 1)
            found[path].append(both.view(-1, images, both.shape[1]))

        visit_rows(model, layers, batches, visit, at_once=at_once)
        return {path: torch.cat(parts, 1) for path, parts in found.items()}

    whole = rows(None)
    for path, found in rows(at_once).items():
        torch.testing.assert_close(found, whole[path], rtol=1e-5, atol=1e-6)


def test_parts_are_as_large_as_the_largest_output_allows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "LARGEST", 3 * 4 * 6 * 6 * 4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(144, 2))
    x = torch.randn(8, 3, 6, 6)
    at_once = samples_at_once(model, x, forward)
    assert at_once == 3
    assert [len(part) for part in in_parts([x, x[:2]], at_once)] == [3, 3, 2, 2]
    torch.testing.assert_close(torch.cat(parts_of(x, at_once)), x)
    assert parts_of(x, 8)[0] is x and parts_of(x, None)[0] is x
    assert samples_at_once(model.to("meta"), x, forward) is None  # not a processor


@pytest.mark.parametrize("path", ["first", "within"])
def test_rows_are_the_same_where_the_layer_itself_does_not_run(path: str):
    torch.manual_seed(0)
    model, batches = Windows(), [torch.randn(5, 2, 6, 6)]
    runs: list[int] = []
    found: list[Tensor] = []
    model.get_submodule(path).register_forward_hook(lambda *_: runs.append(1))
    for unrun in (False, True):
        visit_rows(model, {path: 4}, batches, lambda _, rows, *__: found.append(rows), unrun=unrun)
    assert torch.equal(found[0], found[1]) and len(runs) == 1
