"""Bad input: one clear line each, the model given as it was."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_networks import TwoInputs, UNet, tabular
from torch import Tensor, nn

import secateurs
from secateurs.errors import InputError

ROWS = torch.randn(32, 9)
INPUTS = torch.randn(2, 9)
BUDGET = secateurs.Budget(params=0.5, round_to=1, fewest=1)


class Odd(nn.Module):
    """Two layers, and `last` in the end."""

    def __init__(self, last: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(9, 8), nn.Linear(8, 2), last

    def forward(self, x: Tensor) -> Any:
        return self.last(self.second(self.first(x).relu()))


class NoCopy(Odd):
    def __deepcopy__(self, memo: object) -> NoCopy:
        raise RuntimeError("there is one of me\nonly")


class Locked(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Switched(Odd):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def with_nan() -> nn.Module:
    model = tabular()
    model[3].bias.data[1] = float("nan")
    return model


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(tabular())


def failing(model: nn.Module, batch: Tensor) -> object:
    raise TypeError("no such keyword\nas this")


def diverge(pruned: nn.Module, _: nn.Module) -> None:
    for parameter in pruned.parameters():
        parameter.data.fill_(float("nan"))


PRUNE = {  # keywords of prune, and what the line says
    "empty loader": ({"loader": []}, "loader: it gave no batch with a sample"),
    "one sample": ({"loader": [ROWS[:1]]}, "loader: it gave one sample, at least 2"),
    "NaN in a batch": ({"loader": [ROWS * float("nan")]}, "not finite"),
    "NaN in a later batch": (
        {"loader": [ROWS, ROWS.index_fill(0, torch.tensor([0]), float("inf"))]},
        "loader: batch 1 has values that are not finite",
    ),
    "another size": (
        {"loader": [torch.randn(8, 7)]},
        r"forward: the model does not run on a batch of \(4, 7\) \(RuntimeError: .*mat1",
    ),
    "no axis for samples": ({"loader": [ROWS[0]]}, "the model does not run on a batch of"),
    "strings": ({"loader": ["words"]}, "expected a tensor or a structure of tensors"),
    "another type": ({"loader": [ROWS.double()]}, "of float64, its parameters are float32"),
    "whole numbers": ({"loader": [ROWS.long()]}, "of int64, its parameters are float32"),
    "no values": ({"loader": [ROWS.to("meta")]}, "shapes and no values"),
    "no parameters": ({"model": nn.ReLU()}, "model: it has no parameters"),
    "no module": ({"model": "resnet"}, "expected a torch.nn.Module, got str"),
    "NaN in the weights": ({"model": with_nan()}, r"model: 3\.bias has values that are not finite"),
    "weights on meta": ({"model": tabular().to("meta")}, r"model: 0\.weight has a shape and no"),
    "not initialised": (
        {"model": nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 2))},
        "not initialised yet",
    ),
    "scripted": ({"model": scripted()}, "compiled by TorchScript"),
    "not copied": ({"model": NoCopy()}, r"cannot be copied \(RuntimeError: there is one of me\)"),
    "a lock": ({"model": Locked()}, "cannot be copied"),
    "one layer": ({"model": nn.Linear(9, 2)}, "nothing can be pruned"),
    "arguments missing": ({"model": TwoInputs()}, "missing 1 required positional argument"),
    "failing forward": ({"forward": failing}, r"forward: .* \(TypeError: no such keyword\)"),
    "forward without a tensor": ({"forward": lambda m, b: 3.0}, "gives no tensor .* but float"),
    "an array": ({"model": Odd(lambda x: x.detach().numpy())}, "gives no tensor .* but ndarray"),
    "classes": ({"model": Odd(lambda x: x.argmax(1))}, "gives no tensor .* but Tensor"),
    "no gradient": (
        {"model": Odd(lambda x: x.argmax(1).float())},
        "do not depend on its layers by gradients",
    ),
    "failing outputs": (
        {"outputs": lambda out: out["logits"]},
        "outputs: it fails on what the model returns, Tensor",
    ),
    "outputs without numbers": ({"outputs": lambda out: out.argmax(1)}, "outputs: it gives no"),
    "no budget": ({"budget": 0.5}, r"budget: expected a Budget, as Budget\(macs=0.5\), got float"),
    "too small a budget": (
        {"budget": secateurs.Budget(params=0.0001, round_to=1, fewest=1)},
        "the least that cutting can reach",
    ),
    "a loss without evaluation": (
        {"budget": secateurs.Budget(max_loss=1.0)},
        "max_loss needs an evaluation",
    ),
    "a latency without a clock": (
        {"budget": secateurs.Budget(latency=0.5)},
        "latency needs a measurement",
    ),
    "evaluation without a number": (
        {"budget": secateurs.Budget(max_loss=1.0), "evaluate": lambda m: "good"},
        "evaluate: expected a number, got str",
    ),
    "evaluation of NaN": (
        {"budget": secateurs.Budget(max_loss=1.0), "evaluate": lambda m: float("nan")},
        "evaluate: expected a number, got NaN",
    ),
    "evaluation that is infinite": (
        {"budget": secateurs.Budget(max_loss=1.0), "evaluate": lambda m: float("inf")},
        "evaluate: expected a number, got inf",
    ),
    "evaluation that is no function": ({"evaluate": 3}, "evaluate: expected a function, got int"),
    "training that is no function": ({"train": "yes"}, "train: expected a function, got str"),
    "a latency of words": (
        {"budget": secateurs.Budget(latency=0.5), "latency": lambda m, w: "fast"},
        "latency: expected a number, got str",
    ),
    "forward in inference mode": (
        {"forward": torch.inference_mode()(lambda m, b: m(b))},
        "the model runs in torch.inference_mode",
    ),
    "a seed of words": ({"seed": "one"}, "seed: expected a whole number, got str"),
    "training that returns the unpruned model": (
        {"train": lambda m, w: w, "reconstruction": None},
        r"train: its model is not the pruned one: .* has \[.*\], expected \[.*\]",
    ),
    "training that diverges": (
        {"train": diverge, "reconstruction": None},
        "train: .* has values that are not finite",
    ),
    "training that returns words": (
        {"train": lambda m, w: "done"},
        "train: expected the pruned model or None to be returned, got str",
    ),
    "loss without gradient": (
        {"loss": lambda out, batch: 1.0},
        "loss: expected a scalar tensor, got float",
    ),
    "ignored nowhere": ({"ignore": ["nowhere"]}, "the model has no module 'nowhere'"),
    "ignored is no list": ({"ignore": "0"}, "ignore: expected a list"),
    "everything ignored": ({"ignore": ["*"]}, "nothing can be pruned"),
    "ratio nowhere": ({"ratios": {"nowhere": 0.5}}, "no group is named 'nowhere'; there are 0, 3"),
    "ratio too large": ({"ratios": {"0": 1.5}}, "ratios: '0': expected 0..1"),
    "ratio of words": (
        {"ratios": {"0": "half"}},
        "expected names and shares 0..1, got '0': 'half'",
    ),
    "ratio without a name": ({"ratios": 0.5}, "ratios: expected shares by name, got float"),
    "reconstruction": (
        {"reconstruction": "layers"},
        "reconstruction: expected .blocks. or None, got .layers.",
    ),
    "few samples": ({"num_samples": 1}, "num_samples: expected at least 2"),
    "half a sample": ({"num_samples": 2.5}, "num_samples: expected a whole number, got float"),
}


def state_of(model: object) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module):
        return {}
    found = model.state_dict().items()
    return {
        k: v.clone() for k, v in found if not isinstance(v, nn.parameter.UninitializedParameter)
    }


@pytest.mark.parametrize("name", PRUNE)
def test_prune(name: str):
    given, message = PRUNE[name]
    words = dict(given)
    model = words.pop("model", None) or tabular()
    before = state_of(model)
    loader, budget = words.pop("loader", [ROWS]), words.pop("budget", BUDGET)
    with pytest.raises(InputError, match=message) as caught:
        secateurs.prune(model, loader, budget, **words)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    for key, value in state_of(model).items():
        assert value.is_meta or torch.equal(value.nan_to_num(), before[key].nan_to_num())


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (tabular(), torch.randn(2, 4), r"does not run on a batch of \(2, 4\)"),
        (tabular(), {"image": INPUTS}, "unexpected keyword argument 'image'"),
        (tabular(), (INPUTS, INPUTS), "takes 2 positional arguments"),
        (tabular(), "image.png", "got str without a tensor"),
        (tabular(), np.array(["a"]), "got ndarray without a tensor"),
        (tabular(), INPUTS * float("inf"), "not finite"),
        (scripted(), INPUTS, "compiled by TorchScript"),
        (nn.Flatten(), INPUTS, "it has no parameters"),
        (with_nan(), INPUTS, r"3\.bias has values that are not finite"),
        (None, INPUTS, "expected a torch.nn.Module, got NoneType"),
    ],
)
def test_inspect(model: Any, inputs: Any, message: str):
    with pytest.raises(InputError, match=message) as caught:
        secateurs.inspect(model, inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_on_the_processor_and_takes_single(dtype: torch.dtype):
    model = tabular().to(dtype).eval()
    small = secateurs.prune(model, [ROWS], BUDGET)
    assert {p.dtype for p in small.model.parameters()} == {dtype}


def test_outputs_without_gradient_are_followed_all_the_same():
    for model in (Switched(), Odd(lambda x: x.detach())):
        assert secateurs.prune(model, [ROWS], BUDGET).report["parameters"] <= 0.5


def test_parallel_models_are_unwrapped_for_inspection():
    assert len(secateurs.inspect(nn.DataParallel(tabular()), INPUTS).groups) == 2


def test_weights_of_another_model_and_damaged_files(tmp_path: Path):
    path = tmp_path / "small.safetensors"
    secateurs.prune(tabular(), [ROWS], BUDGET).save(path)
    other = nn.Sequential(*tabular()[:5], nn.Linear(24, 3))
    narrower = tabular()
    narrower[0] = nn.Linear(9, 4)
    for model, message in (
        (UNet(), "weights of another model: it has no down.0.weight"),
        (other, r"5\.weight has \(3, 24\), and \(1, 24\) in the model that was pruned"),
        (narrower, r"0\.weight has \(4, 9\), and \(40, 9\) in the model that was pruned"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            secateurs.load_weights(model, path)
        assert "\n" not in str(caught.value)
    for bad, message in (
        (tmp_path / "nowhere.safetensors", "no such file"),
        (tmp_path, "not readable"),
    ):
        with pytest.raises(InputError, match=message):
            secateurs.load_weights(tabular(), bad)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="not readable"):
        secateurs.load_weights(tabular(), path)
