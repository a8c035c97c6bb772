"""Networks that trials start from, kept, and networks written while the next trial runs."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from secateurs.study.trials import store as store_module
from secateurs.study.trials.starting import StartingNetworks
from secateurs.study.trials.store import Store, WeightsWriter, load_weights, save_weights


class Setting:
    """As much of a trial context as a starting network depends on."""

    def __init__(self):
        self.asked = []
        self.device, self.head = torch.device("cpu"), None
        self.config = SimpleNamespace(backbone="small")
        self.dataset = SimpleNamespace(classes=("a", "b"))
        self.weights = SimpleNamespace(loaded=("conv1",), sha256="0" * 64)

    def new_model(self, *, seed, pretrained):
        self.asked.append((seed, pretrained))
        with torch.random.fork_rng([]):
            torch.manual_seed(seed + 100 * pretrained)
            return nn.Linear(3, 2)


def test_a_kept_network_is_what_a_new_one_would_be_and_the_callers_own():
    setting, networks = Setting(), StartingNetworks(keeps_on=("cpu",))
    for seed, pretrained in [(0, True), (0, False), (0, True), (0, False)]:
        network = networks.get(setting, seed=seed, pretrained=pretrained)
        expected = Setting().new_model(seed=seed, pretrained=pretrained)
        assert torch.equal(network.weight, expected.weight)
        with torch.no_grad():
            network.weight.zero_()  # as training would change it
    assert setting.asked == [(0, True), (0, False)]
    networks.get(setting, seed=1, pretrained=True)  # the one used longest ago makes room
    networks.get(setting, seed=0, pretrained=False)
    networks.get(setting, seed=0, pretrained=True)
    assert setting.asked[2:] == [(1, True), (0, True)]


def test_other_weights_are_another_network_and_a_cpu_makes_each_anew():
    setting, networks = Setting(), StartingNetworks(keeps_on=("cpu",))
    networks.get(setting, seed=0, pretrained=True)
    setting.weights = SimpleNamespace(loaded=("conv1",), sha256="1" * 64)
    networks.get(setting, seed=0, pretrained=True)
    assert len(setting.asked) == 2
    plain = StartingNetworks()
    for _ in range(2):
        plain.get(setting, seed=0, pretrained=True)
    assert len(setting.asked) == 4


@pytest.mark.parametrize("at_once", [(), ("cpu",)])
def test_a_network_is_written_as_it_was_when_it_was_given(tmp_path, at_once, monkeypatch):
    (tmp_path / "trials").mkdir()
    store, started, may_go = Store(tmp_path), threading.Event(), threading.Event()
    real = store_module._write

    def slow(state, path):
        started.set()
        assert may_go.wait(10)
        real(state, path)

    if not at_once:
        monkeypatch.setattr(store_module, "_write", slow)
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with WeightsWriter(store, writes_at_once_on=at_once) as writer:
        writer.save(model, "a")
        assert at_once or started.wait(10)
        with torch.no_grad():
            model.weight.zero_()
        assert store.weights("a").exists() == bool(at_once)
        may_go.set()
    again = nn.Linear(2, 2)
    load_weights(again, store.weights("a"))
    assert torch.equal(again.weight, before)
    with WeightsWriter(store, writes_at_once_on=at_once) as writer:
        writer.save(model, "b")
        writer.remove("b")  # not written again after this
        writer.remove("a")
    assert not store.weights("a").exists() and not store.weights("b").exists()


def test_an_error_of_writing_is_raised_by_the_next_call_and_on_leaving(tmp_path, monkeypatch):
    def full(state, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "_write", full)
    model = nn.Linear(2, 2)
    in_thread = {"writes_at_once_on": ()}
    with (
        pytest.raises(OSError, match="No space left"),
        WeightsWriter(Store(tmp_path), **in_thread) as writer,
    ):
        writer.save(model, "a")
    # The block's own error comes first.
    with pytest.raises(KeyError), WeightsWriter(Store(tmp_path), **in_thread) as writer:
        writer.save(model, "a")
        raise KeyError("own")
    with pytest.raises(OSError, match="No space left"):
        save_weights(model, tmp_path / "x")
