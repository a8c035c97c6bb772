from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secateurs.errors import InputError
from secateurs.fit.config import FitConfig
from secateurs.fit.images import Images, ViewPlan
from secateurs.fit.inputs import Inputs
from secateurs.fit.recipe import (
    Average,
    Recipe,
    balanced_weights,
    draw_mix,
    parameter_groups,
    rate_shares,
)
from secateurs.fit.train import Fit, epoch_order, fit
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.setup.config import from_json, from_preset

CPU = torch.device("cpu")
NUM, BATCH, EPOCHS = 22, 8, 4
STEPS = -(-NUM // BATCH)
PLAIN = FitConfig(lr=1e-2, epochs=EPOCHS, batch_size=BATCH)
EVERYTHING = Recipe(
    layer_decay=0.3, l2_sp=5.0, mixup=0.4, average=0.9, class_weights="balanced", norms="fixed"
)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    # No bias before the norm: its gradient is zero but for rounding, which Adam would follow.
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 3)
    )


def make_images(num: int = NUM, seed: int = 0) -> Images:
    draws = np.random.default_rng(seed)
    pixels = draws.integers(0, 255, (num, 2, 2, 3)).astype(np.uint8)
    return Images(
        pixels=pixels,
        eval_pixels=pixels,
        ids=draws.integers(0, 2**62, num).astype(np.uint64),
        sizes=np.full((num, 2), 2),
        labels=(draws.random(num) < 0.7).astype(np.int64) + (np.arange(num) % 5 == 0),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def run(
    config: FitConfig, *, state_file: Path | None = None, stop_after: int | None = None
) -> tuple[nn.Sequential, Fit]:
    net, images, stop = make_net(), make_images(), StopFlag()
    val = make_images(9, seed=1)
    inputs = Inputs(
        images=images,
        plan=ViewPlan(seed=0, augmentation=None),
        num_views=1,
        device=CPU,
        precision="float32",
        val=val.eval_views(slice(None), CPU),
        stored=[images.eval_views(slice(None), CPU)],
        rest=nn.Sequential(),
    )
    left = stop_after

    def train_mode() -> None:
        net.train()

    class Counted(Inputs):
        def batch(self, epoch: int, rows: np.ndarray) -> Tensor:
            nonlocal left
            if left is not None:
                left -= 1
                if left == 0:
                    stop.request()
            return super().batch(epoch, rows)

    result = fit(
        net,
        Counted(**vars(inputs)),
        val.labels,
        config,
        train_mode=train_mode,
        state_file=state_file,
        stop=stop,
    )
    return net, result


def step_batches(epoch: int) -> list[np.ndarray]:
    order = epoch_order(NUM, seed=0, epoch=epoch)
    return [order[first : first + BATCH] for first in range(0, NUM, BATCH)]


def plain_loop(recipe: Recipe) -> list[float]:
    """Validation losses of the loop that the recipe describes, written out without mixup."""
    net, images, val = make_net(), make_images(), make_images(9, seed=1)
    start = [p.detach().clone() for p in net.parameters()]
    shares = [0.3 ** (1 - number / 2) if recipe.layer_decay != 1 else 1.0 for number in range(3)]
    weighted = [net[1], net[2], net[3]]
    optimizer = torch.optim.Adam(
        [
            {"params": list(part.parameters()), "lr": 1e-2 * share}
            for part, share in zip(weighted, shares, strict=True)
        ]
    )
    labels = torch.from_numpy(images.labels)
    counts = [int((labels == label).sum()) for label in range(3)]
    averaged = {name: t.clone() for name, t in net.state_dict().items()}
    losses: list[float] = []
    done = 0
    for epoch in range(EPOCHS):
        net.train()
        if recipe.norms == "fixed":
            net[2].eval()
        for rows in step_batches(epoch):
            logits = net(images.eval_views(rows, CPU))
            target = labels[torch.from_numpy(rows)]
            each = functional.cross_entropy(logits, target, reduction="none")
            if recipe.class_weights == "balanced":
                each = each * torch.tensor([NUM / (3 * counts[t]) for t in target.tolist()])
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()
            with torch.no_grad():
                rates = [1e-2 * share for share in shares for _ in range(2)][1:]  # net[1]: no bias
                for p, origin, rate in zip(net.parameters(), start, rates, strict=True):
                    p.sub_(rate * recipe.l2_sp * (p - origin))
            keep = min(recipe.average, (1 + done) / (10 + done)) if recipe.average else 0.0
            for name, t in net.state_dict().items():
                averaged[name] = keep * averaged[name] + (1 - keep) * t
            done += 1
        judged = make_net()
        judged.load_state_dict(averaged)
        judged.eval()
        logits = judged(val.eval_views(slice(None), CPU))
        losses.append(functional.cross_entropy(logits, torch.from_numpy(val.labels)).item())
    return losses


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(layer_decay=0.3),
        Recipe(l2_sp=5.0),
        Recipe(average=0.9),
        Recipe(class_weights="balanced"),
        Recipe(norms="fixed"),
        replace(EVERYTHING, mixup=0.0),
    ],
)
def test_each_part_is_what_a_loop_written_out_does(recipe: Recipe):
    _, result = run(replace(PLAIN, recipe=recipe))
    assert np.allclose([row.val_loss for row in result.curve], plain_loop(recipe), atol=1e-5)
    if recipe.changes():
        assert not np.allclose(plain_loop(recipe), plain_loop(Recipe()), atol=1e-4)


@pytest.mark.parametrize("stop_after", [1, 4, 8])
def test_stopped_and_resumed_equals_unstopped(tmp_path: Path, stop_after: int):
    config = replace(PLAIN, recipe=EVERYTHING)
    net, whole = run(config)
    state = tmp_path / "state.safetensors"
    with pytest.raises(StopRequested):
        run(config, state_file=state, stop_after=stop_after)
    again, resumed = run(config, state_file=state)
    assert resumed.curve == whole.curve
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_mixed_inputs_and_losses_are_those_of_the_formula():
    batch = torch.arange(12.0).reshape(4, 3)
    mix = draw_mix(4, 0.4, seed=5, device=CPU)
    assert sorted(mix.partners.tolist()) == [0, 1, 2, 3]
    rows = [
        [mix.share * a + (1 - mix.share) * b for a, b in zip(one, other, strict=True)]
        for one, other in zip(batch.tolist(), batch[mix.partners].tolist(), strict=True)
    ]
    assert np.allclose(mix.inputs(batch), rows)
    assert draw_mix(4, 0.4, seed=5, device=CPU).share == mix.share


def test_the_share_has_the_larger_half_of_a_beta_distribution():
    shares = np.array([draw_mix(2, 0.4, seed=s, device=CPU).share for s in range(3000)])
    reference = np.random.default_rng(0).beta(0.4, 0.4, 200_000)
    reference = np.maximum(reference, 1 - reference)
    assert shares.min() >= 0.5
    for level in (0.25, 0.5, 0.75):
        # Three standard errors of a quantile's level.
        below = (shares < np.quantile(reference, level)).mean()
        assert abs(below - level) < 3 * np.sqrt(level * (1 - level) / 3000)


def test_a_class_weighs_by_one_over_its_size():
    labels = torch.tensor([2, 0, 0, 2, 0, 0, 0])
    weights = balanced_weights(labels, 4)
    assert np.allclose(weights, [7 / (2 * 5), 0, 7 / (2 * 2), 0])
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_rates_lie_on_a_geometric_row_and_one_group_serves_equal_ones():
    net = make_net()
    shares = rate_shares(net, 0.25)
    assert list(shares) == [name for name, _ in net.named_parameters()]
    assert sorted(set(shares.values())) == pytest.approx([0.25, 0.5, 1.0])
    assert shares["1.weight"] == 0.25
    assert shares["3.bias"] == 1.0
    net[1].requires_grad_(False)
    assert set(rate_shares(net, 0.25).values()) == {0.25, 1.0}
    (group,) = parameter_groups(net, lr=1.0, layer_decay=1.0)
    assert len(group["params"]) == 4  # without the frozen matrix


def test_an_average_forgets_its_start():
    average = Average({"w": torch.zeros(1), "n": torch.tensor(0)}, 0.999)
    for step in range(40):
        average.add({"w": torch.ones(1), "n": torch.tensor(step)}, step)
    assert float(average.state["w"]) > 0.999
    assert int(average.state["n"]) == 39


def test_a_recipe_that_changes_nothing_names_the_same_training():
    plain = {name: value for name, value in asdict(PLAIN).items() if name != "recipe"}
    assert PLAIN.identity() == plain
    assert replace(PLAIN, recipe=Recipe(mixup=0.2)).identity() == plain | {"recipe": {"mixup": 0.2}}


def test_a_configuration_keeps_its_recipe_in_its_record():
    config = from_preset("quick", mixup=0.2, norms="fixed", l2_sp=None)
    assert config.recipe == Recipe(mixup=0.2, norms="fixed")
    assert from_json(config.to_json()) == config
    assert "recipe" not in from_preset("quick").to_json()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"class_weights": "some"}, "class_weights must be none or balanced, got 'some'"),
        ({"norms": 1}, "norms must be auto, trained or fixed, got 1"),
        ({"average": 1.0}, "average is out of range"),
        ({"layer_decay": 0.0}, "layer_decay is out of range"),
    ],
)
def test_bad_recipes(change: dict, text: str):
    with pytest.raises(InputError, match=text):
        Recipe(**change)


@pytest.mark.parametrize("recipe", [3, {"mixing": 1}, {"mixup": "much"}])
def test_a_damaged_record_of_a_recipe(recipe: object):
    plain = from_preset("quick").to_json() | {"recipe": recipe}
    with pytest.raises(InputError, match="recipe"):
        from_json(plain)
