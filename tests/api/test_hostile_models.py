"""Models that were written to break the public calls: a cut, or a reason in a row."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs
from secateurs.errors import InputError

BUDGET = secateurs.Budget(macs=0.9, round_to=1, fewest=1)


class Net(nn.Module):
    """Two pairs of layers, `way` between those of the first pair."""

    def __init__(self, way: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.way = way
        self.a, self.h = nn.Linear(6, 12), nn.Linear(12, 3)
        self.c, self.d = nn.Linear(6, 20), nn.Linear(20, 3)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.way(self, self.a(x))) + self.d(self.c(x).relu())


def compiled() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part: Any = torch.jit.script(nn.Sequential(nn.Linear(12, 12), nn.ReLU()))
    return Net(lambda net, x: net.part(x), part=part)


class Asks(nn.Module):
    """Asks its layers what they are."""

    def __init__(self) -> None:
        super().__init__()
        attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.inner = nn.ModuleList([nn.Linear(6, 16), attention, nn.Linear(16, 16)])
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None].expand(-1, 4, -1)
        for layer in self.inner:
            x = layer(x, x, x)[0] if isinstance(layer, nn.MultiheadAttention) else layer(x)
        return self.head(x.mean(1))


class Keeps(nn.Module):
    """A running mean of what it computes, in a buffer, also in evaluation."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h = nn.Linear(6, 12), nn.Linear(12, 3)
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        found = self.a(x).relu()
        self.mean = 0.9 * self.mean + 0.1 * found.detach().mean(0)
        return self.h(found + self.mean)


class Recurrent(nn.Module):
    def __init__(self, **words: Any) -> None:
        super().__init__()
        self.inner = nn.LSTM(6, 12, batch_first=True, **words)
        self.c, self.d, self.h = nn.Linear(6, 20), nn.Linear(20, 3), nn.LazyLinear(3)
        self(torch.zeros(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.inner(x[:, None])[0][:, -1]) + self.d(self.c(x).relu())


class Routed(nn.Module):
    """Each token goes to one of two experts, which its values choose."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.h = nn.Linear(6, 12), nn.Linear(12, 2), nn.Linear(12, 3)
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12)) for _ in range(2)]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x.repeat_interleave(4, 0) + torch.arange(4.0).repeat(len(x))[:, None])
        chosen, out = self.gate(x - x.mean(0)).argmax(-1), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero(as_tuple=True)[0]
            out[rows] = expert(x[rows])
        return self.h(out.unflatten(0, (-1, 4)).sum(1))


def hooked() -> nn.Module:
    part = nn.Linear(12, 12)
    model = Net(lambda net, x: net.part(x.relu()), part=part)
    model.a.register_forward_hook(lambda _, __, output: 2 * output + 0.1)
    part.register_forward_pre_hook(lambda _, args: (args[0].clamp(max=3) + 0.1,))
    return model


class Sorted(nn.Module):
    """A parametrization of weights that no axis keeps its places in."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.flatten().sort().values.view(weight.shape)


def folded() -> nn.Module:
    part = nn.Linear(12, 12)
    nn.utils.parametrize.register_parametrization(part, "weight", Sorted())
    return Net(lambda net, x: net.part(x.relu()).relu(), part=part)


CUT: dict[str, tuple[Callable[[], nn.Module], str, str]] = {  # a row that is not pruned, and why
    "TorchScript": (compiled, "a", "part.0 reads it, which TorchScript compiled"),
    "asks for attention": (Asks, "", ""),
    "NumPy": (lambda: Net(lambda _, x: x * float(x.detach().numpy().mean() > -99)), "", ""),
    "keeps a mean": (Keeps, "", ""),
    "experts": (Routed, "", ""),
    "hooks that change values": (hooked, "", ""),
    "vmap": (lambda: Net(lambda _, x: torch.vmap(torch.relu)(x)), "", ""),
    "sorted": (lambda: Net(lambda _, x: x.sort(-1).values), "a", "does sort with it"),
    "projections": (lambda: Recurrent(proj_size=8), "inner", "this form of LSTM is not known"),
    "weights sorted": (folded, "part", "its weight is computed from other parameters"),
    "a width in the code": (
        lambda: Net(lambda _, x: x.view(-1, 12).relu()),
        "a",
        "have another shape",
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", CUT)
def test_what_can_be_is_cut_and_comes_back(name: str, tmp_path: Path):
    make, left, why = CUT[name]
    torch.manual_seed(0)
    model = make()
    x = torch.randn(20, 6)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = secateurs.inspect(model, x)
    reasons = {row.name: row.reason for row in rows.not_pruned}
    assert rows.groups and (not left or why in reasons[left])
    small = secateurs.prune(model, [x, x + 0.1], BUDGET)
    assert small.report["macs"] <= 0.9 and small.report["parity"] <= 1e-5
    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(make(), tmp_path / "small.safetensors").state_dict()
    for key, value in small.model.state_dict().items():
        assert torch.equal(value, again[key])
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_outputs_of_the_unpruned_model_are_seen_through_hooks_once():
    model, x = hooked(), torch.randn(40, 6)
    small = secateurs.prune(model, [x], secateurs.Budget(params=1, round_to=1, fewest=1))
    assert small.report["change"] < 1e-9


def test_complex_outputs_and_those_without_a_row_per_sample():
    class Steps(nn.Module):
        """Complex numbers, step by step, and the mean over all of the batch."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.h = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 10)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            found = self.h(self.b(self.a(x).relu()).relu()).unflatten(1, (5, 2))
            return torch.view_as_complex(found.transpose(0, 1).contiguous()), found.mean()

    torch.manual_seed(0)
    x = torch.randn(24, 6)
    for outputs in (None, lambda found: found[0], lambda found: found[1]):
        small = secateurs.prune(Steps(), [x], BUDGET, outputs=outputs, reconstruction=None)
        assert small.report["parity"] <= 1e-5 and 0 < small.report["change"] < 0.5


class Energy(nn.Module):
    """Its own derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h = nn.Linear(6, 12), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return torch.autograd.grad(self.h(self.a(x).tanh()).sum(), x, create_graph=True)[0]


ROWS = torch.randn(8, 6)
TOLD: dict[str, tuple[nn.Module, Any, str]] = {
    "differentiates itself": (Energy(), ROWS, "does not run without gradients"),
    "sparse": (Net(lambda _, x: x), ROWS.to_sparse(), "sparse tensors cannot be split"),
    "no sample": (Net(lambda _, x: x), ROWS[:0], "example_inputs: no sample"),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_cannot_be_is_one_line(name: str):
    model, inputs, words = TOLD[name]
    with pytest.raises(InputError, match=words) as error:
        secateurs.inspect(model, inputs)
    assert "\n" not in str(error.value)
    loader = [inputs, inputs] if len(inputs) else [inputs]
    with pytest.raises(
        InputError, match=words if len(inputs) else "no batch with a sample"
    ) as told:
        secateurs.prune(model, loader, BUDGET)
    assert "\n" not in str(told.value)


def test_a_batch_of_nothing_is_not_exported(tmp_path: Path):
    with pytest.raises(InputError, match="example_inputs: no sample"):
        secateurs.export(nn.Linear(6, 2), tmp_path / "small.pt2", ROWS[:0])


def test_a_loss_that_the_model_computes_is_no_obstacle():
    class Labelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.h = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.h(self.a(x).relu())
            return {"logits": logits, "loss": F.cross_entropy(logits, labels)}

    rows = secateurs.inspect(Labelled(), {"x": ROWS, "labels": torch.zeros(8, dtype=torch.int64)})
    assert [row.name for row in rows.groups] == ["a"]
