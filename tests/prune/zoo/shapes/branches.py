"""Control flow that depends on values, and other things that a run on shapes cannot follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats


def branching(run: Callable[[Net, Tensor], Any], groups: dict[str, int] | None = None) -> Entry:
    """Two layers and a head, run in a way that depends on values."""
    return Entry(
        lambda: Net(run, a=nn.Linear(6, 12), b=nn.Linear(12, 10), head=nn.Linear(10, 3)),
        lambda samples: (torch.randn(samples, 6) + 1,),
        groups or {"a": 12, "b": 10},
    )


def by_mean(net: Net, x: Tensor) -> Tensor:
    if x.mean() > 0:  # as all inputs of the zoo are
        x = x * 2
    return net.head(net.b(net.a(x).relu()).relu())


def by_item(net: Net, x: Tensor) -> Tensor:
    scale = x.abs().max().item() + 1
    return net.head(net.b((net.a(x) / scale).relu()).relu())


def by_list(net: Net, x: Tensor) -> Tensor:
    rows = [1.0 if value > 0 else 0.5 for value in x[:, 0].tolist()]
    return net.head(net.b(net.a(x).relu()).relu()) * torch.tensor(rows).to(x)[:, None]


def by_length(net: Net, x: Tensor) -> Tensor:
    for _ in range(int(x.abs().mean().clamp(1, 3))):
        x = x * 0.9
    return net.head(net.b(net.a(x).relu()).relu())


def checked(net: Net, x: Tensor) -> Tensor:
    if not torch.isfinite(x).all():
        raise ValueError("values that are not finite")
    return net.head(net.b(net.a(x).relu()).relu())


def by_rows(net: Net, x: Tensor) -> Tensor:
    """Rows chosen by a mask go through the second layer; their number is not known."""
    chosen = x.sum(1) > 0
    x = net.a(x).relu()
    out = x.new_zeros(len(x), net.b.out_features)
    out[chosen] = net.b(x[chosen]).relu()
    return net.head(out)


def early_exit(net: Net, x: Tensor) -> Tensor:
    sure = float(x.mean()) > 0
    x = net.a(net.before(x).relu()).relu()
    return net.head_early(x) if sure else net.head(net.b(x).relu())


def routed(net: Net, x: Tensor) -> Tensor:
    gates = net.route(x).softmax(1)
    x = net.a(x).relu()
    experts = torch.stack([expert(x) for expert in net.experts], 1)
    return net.head((experts * gates[..., None]).sum(1).relu())


def routed_sparsely(net: Net, x: Tensor) -> Tensor:
    """Each row goes to the experts with the two largest gates."""
    gates, chosen = net.route(x).softmax(1).topk(2, 1)
    x = net.a(x).relu()
    out = x.new_zeros(len(x), net.head.in_features)
    for number, expert in enumerate(net.experts):
        rows, places = (chosen == number).nonzero(as_tuple=True)
        if len(rows):
            out[rows] += gates[rows, places, None] * expert(x[rows])
    return net.head(out.relu())


def largest_places(net: Net, x: Tensor) -> Tensor:
    """The tokens with the largest scores are kept."""
    x = net.a(x).relu()
    best = net.score(x).squeeze(2).topk(3, 1).indices
    x = x.gather(1, best[..., None].expand(-1, -1, x.shape[2]))
    return net.head(net.b(x).relu().mean(1))


def looked_up(net: Net, x: Tensor) -> Tensor:
    """Each row is changed by the row of another sample."""
    x = net.a(x).relu()
    return net.head(net.b(x + x[torch.arange(len(x)).flip(0)]).relu())


def experts() -> nn.ModuleList:
    return nn.ModuleList([nn.Linear(12, 10), nn.Linear(12, 10), nn.Linear(12, 10)])


def with_experts(run: Callable[[Net, Tensor], Tensor]) -> Entry:
    return Entry(
        lambda: Net(
            run,
            a=nn.Linear(6, 12),
            route=nn.Linear(6, 3),
            experts=experts(),
            head=nn.Linear(10, 3),
        ),
        floats(6),
        {"a": 12, "experts.0": 10, "experts.2": 10},
    )


BRANCHES = {
    "branch_on_mean": branching(by_mean),
    "scale_by_item": branching(by_item),
    "values_as_list": branching(by_list),
    "loop_of_unknown_length": branching(by_length),
    "check_of_values": branching(checked),
    "rows_by_mask": branching(by_rows),
    "early_exit": Entry(
        lambda: Net(
            early_exit,
            before=nn.Linear(6, 8),
            a=nn.Linear(8, 12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
            head_early=nn.Linear(12, 3),
        ),
        floats(6),
        {"before": 8},
        {"a": "a part that did not run reads it"},
    ),
    "mixture_of_experts": with_experts(routed),
    "sparse_mixture_of_experts": with_experts(routed_sparsely),
    "largest_tokens": Entry(
        lambda: Net(
            largest_places,
            a=nn.Linear(6, 12),
            score=nn.Linear(12, 1),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(5, 6),
        {"a": 12, "b": 10},
    ),
    "rows_of_others": branching(looked_up),
}
