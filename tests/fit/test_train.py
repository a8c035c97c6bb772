from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from damage import damaged
from secateurs.data.views import Augmentation
from secateurs.errors import InputError
from secateurs.fit.cache import PrefixCache
from secateurs.fit.config import FitConfig
from secateurs.fit.images import Images, ViewPlan
from secateurs.fit.inputs import Inputs, extend_inputs, prepare_inputs
from secateurs.fit.state import load_state
from secateurs.fit.train import Epoch, Fit, epoch_order, fit
from secateurs.stopping import StopFlag, StopRequested

CPU = torch.device("cpu")


def make_images(num: int, seed: int = 0) -> Images:
    """Two classes, told apart by which half of the picture is bright."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % 2
    pixels = generator.integers(0, 120, (num, 12, 12, 3)).astype(np.uint8)
    pixels[labels == 1, :6] += 100
    pixels[labels == 0, 6:] += 100
    return Images(
        pixels=pixels,
        eval_pixels=pixels[:, 2:10, 2:10].copy(),
        ids=generator.integers(0, 2**62, num).astype(np.uint64),
        sizes=np.full((num, 2), 12),
        labels=labels.astype(np.int64),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


class Net(nn.Module):
    """A frozen convolution and norm, then a trained tail with dropout."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.prefix = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        # No bias before the norm: its gradient is zero but for rounding, which Adam would follow.
        self.tail = nn.Sequential(
            nn.Conv2d(4, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64, 2),
        )
        self.prefix.requires_grad_(False).eval()

    def train_mode(self) -> None:
        self.tail.train()


def run(
    config: FitConfig,
    *,
    cache: PrefixCache | None = None,
    plan: ViewPlan | None = None,
    state_file: Path | None = None,
    stop_after: int | None = None,
    images: Images | None = None,
) -> tuple[Net, Fit]:
    net = Net()
    train, val = images or make_images(22), make_images(10, seed=1)
    plan = plan or ViewPlan(seed=3, num_views=2, augmentation=Augmentation(rotation_deg=5))
    inputs = prepare_inputs(
        train,
        val,
        net.prefix,
        plan,
        num_epochs=config.epochs,
        device=CPU,
        cache=cache,
        key="net",
    )
    stop = StopFlag()
    steps = 0
    original = Inputs.batch

    def counted(self: Inputs, epoch: int, rows: np.ndarray) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            stop.request()
        return original(self, epoch, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inputs, "batch", counted)
        result = fit(
            net.tail,
            inputs,
            val.labels,
            config,
            train_mode=net.train_mode,
            state_file=state_file,
            stop=stop,
        )
    return net, result


CONFIG = FitConfig(lr=1e-2, epochs=6, batch_size=8)


def test_it_learns():
    _, result = run(replace(CONFIG, epochs=12))
    assert result.stopped == "completed"
    assert len(result.curve) == 12
    assert max(row.val_accuracy for row in result.curve) == 1.0
    assert result.curve[-1].train_loss < 0.5 * result.curve[0].train_loss


def test_one_step_is_adams_and_agrees_with_a_plain_loop():
    config = FitConfig(lr=1e-2, epochs=3, batch_size=None, dropout="off")
    net, result = run(config, plan=ViewPlan(seed=0, augmentation=None))
    plain = Net()
    train, val = make_images(22), make_images(10, seed=1)
    optimizer = torch.optim.Adam(plain.tail.parameters(), lr=1e-2)
    curve = []
    for _ in range(3):
        plain.tail.train()
        plain.tail[3].eval()
        logits = plain.tail(plain.prefix(train.eval_views(slice(None), CPU)))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plain.tail.eval()
        with torch.no_grad():
            val_logits = plain.tail(plain.prefix(val.eval_views(slice(None), CPU)))
        val_loss = nn.functional.cross_entropy(val_logits, torch.from_numpy(val.labels))
        curve.append((float(loss.detach()), float(val_loss)))
    ours = [(row.train_loss, row.val_loss) for row in result.curve]
    assert np.allclose(ours, curve, atol=1e-4)
    assert next(net.tail.parameters()).shape == next(plain.tail.parameters()).shape


def test_same_seed_same_numbers_and_another_seed_others():
    _, a = run(CONFIG)
    _, b = run(CONFIG)
    _, c = run(replace(CONFIG, seed=1))
    assert a.curve == b.curve
    assert a.curve != c.curve


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_inputs_in_memory_on_disk_and_computed_give_the_same_curve(tmp_path: Path, precision: Any):
    config = replace(CONFIG, precision=precision)
    _, kept = run(config)
    files = PrefixCache(10**9, tmp_path / "frozen")
    for others in (files, files, PrefixCache(0)):  # written, then found, then not kept
        _, other = run(config, cache=others)
        rows = [[(r.train_loss, r.val_loss) for r in x.curve] for x in (kept, other)]
        assert np.allclose(rows[0], rows[1], atol=1e-6)
    assert len(list((tmp_path / "frozen").glob("*.bin"))) == 2
    files.close()
    assert not (tmp_path / "frozen").exists()


@pytest.mark.parametrize("stop_after", [1, 3, 4, 11, 18])
def test_stopped_and_resumed_equals_unstopped(tmp_path: Path, stop_after: int):
    net, whole = run(CONFIG)
    state = tmp_path / "state.safetensors"
    with pytest.raises(StopRequested):
        run(CONFIG, state_file=state, stop_after=stop_after)
    saved = load_state(state, CONFIG.identity())
    assert saved.epoch * 3 + saved.step == stop_after
    again, resumed = run(CONFIG, state_file=state)
    assert resumed.curve == whole.curve
    assert resumed.best_epoch == whole.best_epoch
    for (name, a), b in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_frozen_parts_stay_bit_identical_also_after_resume(tmp_path: Path):
    before = {name: t.clone() for name, t in Net().prefix.state_dict().items()}
    state = tmp_path / "state.safetensors"
    with pytest.raises(StopRequested):
        run(CONFIG, state_file=state, stop_after=4)
    assert not any("prefix" in name for name in load_state(state, CONFIG.identity()).adam)
    net, _ = run(CONFIG, state_file=state)
    for name, tensor in net.prefix.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not torch.equal(net.tail[0].weight, Net().tail[0].weight)
    assert not torch.equal(net.tail[1].running_mean, Net().tail[1].running_mean)


def test_frozen_parameters_inside_the_tail_get_no_gradient_and_no_optimizer_state(tmp_path: Path):
    net = Net()
    net.tail[0].requires_grad_(False)
    frozen = net.tail[0].weight.clone()
    train, val = make_images(22), make_images(10, seed=1)
    inputs = prepare_inputs(train, val, net.prefix, ViewPlan(seed=0), num_epochs=2, device=CPU)
    stop, state = StopFlag(), tmp_path / "s.safetensors"
    stop.request()
    with pytest.raises(StopRequested):
        fit(
            net.tail,
            inputs,
            val.labels,
            CONFIG,
            train_mode=net.train_mode,
            state_file=state,
            stop=stop,
        )
    assert net.tail[0].weight.grad is None
    assert torch.equal(net.tail[0].weight, frozen)
    names = {key.split(":")[0] for key in load_state(state, CONFIG.identity()).adam}
    assert names == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_the_best_epoch_is_what_is_left():
    net, result = run(FitConfig(lr=5e-2, epochs=8, batch_size=8))
    best = max(result.curve, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert result.best_epoch == best.epoch
    val = make_images(10, seed=1)
    net.tail.eval()
    with torch.no_grad():
        logits = net.tail(net.prefix(val.eval_views(slice(None), CPU)))
    loss = nn.functional.cross_entropy(logits.double(), torch.from_numpy(val.labels))
    assert float(loss) == pytest.approx(best.val_loss, abs=1e-5)


def test_the_last_epoch_is_what_is_left_when_asked_for(tmp_path: Path):
    # Long enough and rough enough that the best epoch is not the last one.
    best = FitConfig(lr=5e-2, epochs=8, batch_size=8)
    last = replace(best, keep="last")
    _, other = run(best)
    net, result = run(last)
    assert result.curve == other.curve
    assert other.best_epoch < result.best_epoch == 7
    val = make_images(10, seed=1)
    net.tail.eval()
    with torch.no_grad():
        logits = net.tail(net.prefix(val.eval_views(slice(None), CPU)))
    loss = nn.functional.cross_entropy(logits.double(), torch.from_numpy(val.labels))
    assert float(loss) == pytest.approx(result.curve[-1].val_loss, abs=1e-5)
    # Stopped within the last epoch and resumed, it is the same network.
    state = tmp_path / "state.safetensors"
    with pytest.raises(StopRequested):
        run(last, state_file=state, stop_after=23)
    again, resumed = run(last, state_file=state)
    assert (resumed.curve, resumed.best_epoch) == (result.curve, 7)
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_last_good_epoch_is_left_of_a_training_that_diverges():
    net, result = run(FitConfig(lr=1e30, epochs=6, batch_size=8, keep="last"))
    assert result.stopped == "diverged"
    assert result.best_epoch == len(result.curve) - 1
    assert all(torch.isfinite(t).all() for t in net.state_dict().values())


def test_patience_stops_after_so_many_epochs_without_a_better_one():
    _, result = run(replace(CONFIG, lr=1e-6, epochs=30, patience=2))
    assert result.stopped == "patience"
    assert len(result.curve) - 1 - result.best_epoch == 2


def test_a_loss_that_is_not_finite_stops_with_a_message_and_a_good_state():
    net, result = run(FitConfig(lr=1e30, epochs=6, batch_size=8))
    assert result.stopped == "diverged"
    assert "not finite in epoch" in result.message
    assert "learning rate 1e+30" in result.message
    assert all(torch.isfinite(t).all() for t in net.state_dict().values())
    assert all(math.isfinite(row.val_loss) for row in result.curve)


def test_dropout_switches():
    curves = [run(replace(CONFIG, dropout=mode))[1].curve for mode in ("on", "off", "first-epoch")]
    on, off, first = curves
    assert on[0] == first[0]
    assert on[1] != first[1]
    assert off[0] != on[0]


def test_whole_views_are_evaluation_views_and_their_mirror_images():
    images, rows = make_images(22), np.arange(5, 15)
    policy = Augmentation(rotation_deg=0, scale=(1.0, 1.0))
    straight = images.eval_views(rows, CPU)
    pair = [
        images.train_views(rows, seed=0, epoch=epoch, augmentation=policy, device=CPU)
        for epoch in (0, 1)
    ]
    for image in range(len(rows)):
        both = (straight[image], straight[image].flip(2))
        seen = [view[image] for view in pair]
        assert any(
            torch.equal(seen[0], a) and torch.equal(seen[1], b) for a, b in (both, both[::-1])
        )
    assert not torch.equal(pair[0], straight)
    assert not torch.equal(pair[1], straight)


def test_every_image_once_in_an_epoch():
    order = epoch_order(17, seed=0, epoch=4)
    assert sorted(order) == list(range(17))
    assert not np.array_equal(order, epoch_order(17, seed=0, epoch=5))


@pytest.mark.parametrize("too_large", [False, True])
@pytest.mark.parametrize("consume", [False, True])
def test_extending_a_prefix_equals_computing_the_deeper_one(consume: bool, too_large: bool):
    net = Net()
    train, val = make_images(9), make_images(4, seed=1)
    plan = ViewPlan(seed=0, num_views=3)
    shallow = nn.Sequential(net.prefix[0])
    rest = nn.Sequential(net.prefix[1], net.prefix[2])
    base = prepare_inputs(train, val, shallow, plan, num_epochs=5, device=CPU)
    within = PrefixCache(0 if too_large else 10**9)
    extended = extend_inputs(base, rest, cache=within, consume=consume)
    assert (len(extended.rest) == 2) == too_large
    direct = prepare_inputs(train, val, net.prefix, plan, num_epochs=5, device=CPU)
    assert direct.stored is not None
    assert len(direct.stored) == direct.num_views == 3
    for epoch in range(5):
        a, b = (x.batch(epoch, np.array([8, 0, 3])) for x in (extended, direct))
        assert len(a) == 3
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.allclose(extended.val, direct.val, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lr": 0.0}, "lr is out of range: 0.0"),
        ({"lr": math.inf}, "lr is out of range: inf"),
        ({"epochs": 0}, "epochs is out of range: 0"),
        ({"label_smoothing": 1.0}, "label_smoothing is out of range"),
        ({"patience": 0}, "patience is out of range"),
        ({"keep": "first"}, "keep is out of range: 'first'"),
        ({"keep": "last", "patience": 3}, "keep last: leave patience out"),
    ],
)
def test_bad_configurations(change: dict, text: str):
    with pytest.raises(InputError, match=text):
        FitConfig(**change)


def test_a_batch_larger_than_the_data():
    with pytest.raises(InputError, match="batch size 64 is larger than the 22 training images"):
        run(FitConfig(epochs=1))


def test_a_state_of_another_configuration_and_a_damaged_one(tmp_path: Path):
    state = tmp_path / "state.safetensors"
    with pytest.raises(StopRequested):
        run(CONFIG, state_file=state, stop_after=2)
    with pytest.raises(InputError, match=r"state\.safetensors: state of a training with another"):
        run(replace(CONFIG, lr=2e-2), state_file=state)
    whole, expected = state.read_bytes(), run(CONFIG)[1]
    for name, content in damaged(whole, flips=10):
        state.write_bytes(content)
        assert load_state(state, CONFIG.identity()) is None, name
        assert not state.exists()
    state.write_bytes(whole[:100])
    assert run(CONFIG, state_file=state)[1].curve == expected.curve


def test_rows_are_reported_as_they_come():
    rows: list[Epoch] = []
    net = Net()
    train, val = make_images(22), make_images(10, seed=1)
    inputs = prepare_inputs(train, val, net.prefix, ViewPlan(seed=0), num_epochs=6, device=CPU)
    result = fit(
        net.tail, inputs, val.labels, CONFIG, train_mode=net.train_mode, on_epoch=rows.append
    )
    assert tuple(rows) == result.curve
