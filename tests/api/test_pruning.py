from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from own_networks import Text, TwoInputs, UNet, same_weights, tabular
from torch import Tensor, nn

import secateurs
from secateurs.nets.batches import forward
from secateurs.nets.counting import macs, num_parameters
from secateurs.prune.reconstruction.tuning import Tuned

Case = tuple[Callable[[], nn.Module], list[Any], dict[str, Any]]


def images(n: int = 40, channels: int = 1, high: int = 16, wide: int = 24) -> Tensor:
    return torch.randn(n, channels, high, wide)


def texts(n: int = 40) -> dict[str, Tensor]:
    return {
        "input_ids": torch.randint(0, 50, (n, 7)),
        "attention_mask": torch.randint(0, 2, (n, 7)).clamp_(min=0) | 1,
    }


def both(model: nn.Module, batch: dict[str, Tensor]) -> object:
    return model(batch["image"], batch["facts"])


def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    pairs = [{"image": images(20, 5, 8, 8), "facts": torch.randn(20, 4)} for _ in range(2)]
    return {
        "U-Net": (UNet, [(images(), "label"), (images(9), "label")], {}),
        "U-Net, some outputs": (UNet, [images()], {"outputs": lambda out: out["logits"]}),
        "text": (Text, [texts(), texts(3)], {}),
        "two inputs": (TwoInputs, pairs, {"forward": both}),
        "table": (tabular, [torch.randn(64, 9) for _ in range(3)], {}),
    }


@pytest.mark.parametrize("name", cases())
def test_any_network_is_pruned_and_comes_back_from_its_own_constructor(name: str, tmp_path: Path):
    make, batches, words = cases()[name]
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small = secateurs.prune(
        model, iter(batches), secateurs.Budget(params=0.6, round_to=1, fewest=1), **words
    )
    assert num_parameters(small.model) <= 0.6 * num_parameters(model)
    assert small.report["parameters"] == num_parameters(small.model) / num_parameters(model)
    assert small.report["parity"] <= 1e-5
    assert model.training and small.model.training  # as the model given
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for path, channels in small.kept.items():
        assert len(channels) == len(small.model.get_submodule(path).weight)
    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(make(), tmp_path / "small.safetensors")
    assert same_weights(again, small.model)
    run = words.get("forward", forward)
    with torch.no_grad():
        first, second = (run(net.eval(), batches[0]) for net in (small.model, again))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_refit_is_nearer_than_weights_left_as_they_are():
    torch.manual_seed(1)
    model, batch = UNet(), images(64)
    small = secateurs.prune(model, [batch], secateurs.Budget(macs=0.6, round_to=1))
    with torch.no_grad():
        whole, cut = model.eval()(batch)["logits"], small.model.eval()(batch)["logits"]
    assert float((cut - whole).square().mean()) < 0.3 * float(whole.var())
    assert 0 < small.report["macs"] <= 0.6


def test_a_generator_is_read_once_and_no_further_than_asked():
    read: list[int] = []

    def loader() -> Iterator[Tensor]:
        for number in range(100):
            read.append(number)
            yield torch.randn(16, 9)

    secateurs.prune(tabular(), loader(), secateurs.Budget(params=0.7, round_to=1), num_samples=40)
    assert read == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_any_precision_keep_it(dtype: torch.dtype):
    model = tabular().to(dtype).eval()
    batches = [torch.randn(64, 9).to(dtype)]
    small = secateurs.prune(model, batches, secateurs.Budget(params=0.5, round_to=1, fewest=1))
    assert {p.dtype for p in small.model.parameters()} == {dtype}
    assert not small.model.training
    with torch.no_grad():
        assert small.model(batches[0]).dtype == dtype


def test_wrapped_models_are_unwrapped():
    plain = tabular()
    budget = secateurs.Budget(params=0.5, round_to=1, fewest=1)
    torch.manual_seed(0)
    batches = [torch.randn(64, 9)]
    expected = secateurs.prune(plain, batches, budget).model
    for wrapped in (nn.DataParallel(plain), torch.compile(plain)):
        assert same_weights(secateurs.prune(wrapped, batches, budget).model, expected)


def test_what_is_ignored_stays_and_ratios_are_kept():
    model, batch = UNet(), images()
    budget = secateurs.Budget(macs=0.7, round_to=1, fewest=1)
    small = secateurs.prune(model, [batch], budget, ignore=["down"], ratios={"deep.0": 0.5})
    assert "down.0" not in small.kept and "down.3" not in small.kept
    assert len(small.kept["deep.0"]) == 12
    assert any(left.reason == "ignored, as asked for" for left in small.not_pruned)
    by_type = secateurs.prune(model, [batch], budget, ignore=[nn.BatchNorm2d, model.up])
    assert not set(by_type.kept) & {"down.0", "deep.0", "up.0", "up.3"}


def test_training_and_evaluation_are_the_user_s():
    model, batch = tabular(), torch.randn(100, 9)
    target = torch.randn(100, 1)
    seen: list[nn.Module] = []

    def evaluate(net: nn.Module) -> float:
        with torch.no_grad():
            return 1 - float((net.eval()(batch) - model.eval()(batch)).square().mean())

    def train(net: nn.Module, whole: nn.Module) -> None:
        seen.append(whole)
        with torch.no_grad():
            net[0].weight.fill_(0.5)

    budget = secateurs.Budget(max_loss=5, round_to=1, fewest=1)
    small = secateurs.prune(model, [(batch, target)], budget, evaluate=evaluate, train=train)
    assert bool((small.model[0].weight == 0.5).all())
    assert same_weights(seen[0], model) and seen[0] is not model
    assert num_parameters(small.model) < num_parameters(model)


def test_a_size_in_megabytes_is_met():
    model = tabular()
    wanted = 0.4 * 4 * num_parameters(model) / 1e6
    budget = secateurs.Budget(size_mb=wanted, round_to=1, fewest=1)
    small = secateurs.prune(model, [torch.randn(64, 9)], budget)
    assert 4 * num_parameters(small.model) / 1e6 <= wanted


def test_units_of_a_chain_are_counted_as_the_network_has_them():
    model = tabular()
    small = secateurs.prune(model, [torch.randn(64, 9)], secateurs.Budget(macs=0.5, round_to=4))
    sample = torch.randn(1, 9)
    assert small.report["macs"] == macs(small.model, sample) / macs(model, sample)
    assert all(row["num_kept"] % 4 == 0 for row in small.report["groups"])
    assert "multiply-accumulates" in str(small)


def test_the_package_can_be_called_and_still_is_one():
    import secateurs.prune.selection.pairwise

    assert callable(secateurs.prune) and secateurs.prune.selection is not None
    assert "prune" in secateurs.__all__


def test_units_are_merged_before_a_layer_that_has_lost_outputs():
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
            self.one, self.two = nn.Linear(16, 4), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> list[Tensor]:
            features = self.body(x)
            return [self.one(features), self.two(features)]

    torch.manual_seed(0)
    model, batch = TwoHeads(), torch.randn(200, 6)
    budget = secateurs.Budget(params=0.5, round_to=1, fewest=1)
    small = secateurs.prune(model, [batch], budget)
    assert small.kept.keys() == {"body.0", "body.2"}
    with torch.no_grad():
        for whole, cut in zip(model(batch), small.model(batch), strict=True):
            assert float((whole - cut).square().mean()) < 0.2 * float(whole.var())


def test_a_loss_of_one_s_own_decides_between_groups():
    class TwoBranches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (
                nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2)) for _ in range(2)
            )

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"one": self.one(x), "two": self.two(x)}

    torch.manual_seed(0)
    model, batch = TwoBranches(), (torch.randn(100, 6), torch.randn(100, 2))
    budget = secateurs.Budget(params=0.6, round_to=1, fewest=1)
    kept = [
        secateurs.prune(model, [batch], budget, loss=loss).kept
        for loss in (
            None,
            lambda out, given: (out["one"] - given[1]).square().mean(),
            lambda out, given: (out["two"] - given[1]).square().mean(),
        )
    ]
    sizes = [[len(one.get(f"{name}.0", range(24))) for name in ("one", "two")] for one in kept]
    assert sizes[1][0] > 2 * sizes[1][1] and sizes[2][1] > 2 * sizes[2][0]
    assert sizes[2][0] < sizes[0][0] < sizes[1][0]


def test_blocks_are_tuned_unless_asked_not_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("secateurs.prune.reconstruction.options.STEPS", 60)
    torch.manual_seed(0)
    model, x = tabular(), [torch.randn(200, 9)]
    budget = secateurs.Budget(macs=0.3, round_to=1, fewest=1)
    plain = secateurs.prune(model, x, budget, reconstruction=None)
    tuned = secateurs.prune(model, x, budget)
    assert plain.report["reconstruction"] is None and plain.kept == tuned.kept
    found = tuned.report["reconstruction"]
    assert found["used"] and len(found["blocks"]) == 1  # its units were merged
    assert found["num_samples"] == 160  # one of five is held out
    assert tuned.report["change"] == found["change"]["relative"] < plain.report["change"]


def test_blocks_stay_as_they_were_where_the_outputs_would_move_away(
    monkeypatch: pytest.MonkeyPatch,
):
    torch.manual_seed(0)
    model, x = UNet(), [images(40)]
    monkeypatch.setattr("secateurs.prune.reconstruction.reconstruct.tune", _ruined)
    budget = secateurs.Budget(macs=0.5, round_to=1, fewest=1)
    tuned = secateurs.prune(model, x, budget)
    plain = secateurs.prune(model, x, budget, reconstruction=None)
    assert not tuned.report["reconstruction"]["used"]
    assert tuned.report["change"] == plain.report["change"]
    assert same_weights(plain.model, tuned.model)


def _ruined(problem: Any, **words: object) -> Tuned:
    with torch.no_grad():
        for parameter in problem.parameters:
            parameter.add_(1.0)
    return Tuned(1.0, 0.5, 1)
