from __future__ import annotations

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.surgery.removal import find_consumer, parity, prunable_layers, remove_units


class Network(nn.Module):
    """Features and a classifier, as torchvision's AlexNet and VGG have them."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(16, 12),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(12, 10),
            nn.ReLU(inplace=True),
            nn.Linear(10, 5),
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def network(seed=0):
    torch.manual_seed(seed)
    return Network()


INPUTS = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_consumer_and_what_stands_between():
    found = find_consumer(network(), "classifier.1")
    assert found.path == "classifier.4"
    assert [type(module).__name__ for module in found.between] == ["ReLU", "Dropout"]
    assert prunable_layers(network()) == ("classifier.1", "classifier.4")


def test_consumer_across_nested_chains():
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Sequential(nn.Identity(), nn.Linear(3, 2))
    )
    assert find_consumer(model, "0.0").path == "1.1"


@pytest.mark.parametrize("path", ["classifier.1", "classifier.4"])
def test_removing_equals_zeroing(path):
    survivors = torch.tensor([0, 3, 4, 8])
    assert parity(network(), path, survivors, INPUTS) <= 1e-5


def test_parity_sees_a_wrong_cut():
    model = network()
    wrong = remove_units(model, "classifier.1", torch.tensor([0, 3, 5]))
    assert parity(model, "classifier.1", torch.tensor([0, 3, 4]), INPUTS, pruned=wrong) > 1e-5


def test_only_two_layers_change_and_the_given_model_does_not():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = remove_units(model, "classifier.1", torch.tensor([1, 2, 7]))
    assert {name for name, value in model.state_dict().items()} == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in pruned.state_dict().items():
        if name.startswith(("classifier.1.", "classifier.4.weight")):
            continue
        assert torch.equal(value, before[name])
    assert torch.equal(pruned.classifier[1].weight, before["classifier.1.weight"][[1, 2, 7]])
    assert torch.equal(pruned.classifier[1].bias, before["classifier.1.bias"][[1, 2, 7]])
    assert torch.equal(pruned.classifier[4].weight, before["classifier.4.weight"][:, [1, 2, 7]])
    pointers = {value.data_ptr() for value in model.state_dict().values()}
    assert pointers.isdisjoint(value.data_ptr() for value in pruned.state_dict().values())


def test_modes_and_gradients_are_taken_over():
    model = network().eval()
    model.classifier[1].weight.requires_grad_(False)
    pruned = remove_units(model, "classifier.1", torch.tensor([0]))
    assert not any(module.training for module in pruned.modules())
    assert not pruned.classifier[1].weight.requires_grad
    assert pruned.classifier[1].bias.requires_grad


def test_new_weight_and_bias_also_where_there_was_none():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    pruned = remove_units(
        model, "0", torch.tensor([0, 2]), weight=torch.ones(2, 2), bias=torch.tensor([1.0, 2.0])
    )
    x = torch.randn(5, 4)
    hidden = torch.relu(x @ model[0].weight[[0, 2]].T)
    torch.testing.assert_close(pruned(x), hidden.sum(1, keepdim=True) + torch.tensor([1.0, 2.0]))


def test_parity_restores_modes():
    model = network().train()
    model.classifier[3].eval()
    parity(model, "classifier.4", torch.tensor([0, 1]), INPUTS)
    assert model.training and not model.classifier[3].training


@pytest.mark.parametrize(
    ("survivors", "words"),
    [
        (torch.tensor([], dtype=torch.int64), "every unit would be removed"),
        (torch.tensor([0, 12]), r"unit 12 is outside 0\.\.11"),
        (torch.tensor([-1]), "unit -1 is outside"),
        (torch.tensor([1, 1]), "listed twice"),
        (torch.ones(12, dtype=torch.bool), "1-D tensor of unit indices"),
    ],
)
def test_bad_survivors(survivors, words):
    with pytest.raises(InputError, match=words):
        remove_units(network(), "classifier.1", survivors)


def test_bad_shapes():
    with pytest.raises(InputError, match=r"weight: expected shape \(10, 2\), got \(10, 3\)"):
        remove_units(network(), "classifier.1", torch.tensor([0, 1]), weight=torch.ones(10, 3))
    with pytest.raises(InputError, match=r"bias: expected shape \(10,\)"):
        remove_units(network(), "classifier.1", torch.tensor([0, 1]), bias=torch.ones(3))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("classifier.11", r"unknown, did you mean classifier.1\? \(layers that can be pruned: "),
        ("fc7", r"unknown \(layers that can be pruned: classifier.1, classifier.4\)"),
        ("classifier.2", "expected a Linear, got ReLU"),
        (
            "classifier.6",
            "no linear layer found that reads its units, it is the last of its sequence",
        ),
        ("", "unknown"),
    ],
)
def test_bad_layers(path, words):
    with pytest.raises(InputError, match=words):
        find_consumer(network(), path)


def test_what_stands_between_is_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"BatchNorm1d \(1\) stands between .*: none\)"):
        find_consumer(model, "0")


def test_a_layer_used_twice_is_refused():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InputError, match="used more than once"):
        find_consumer(model, "0")


class Mlp(nn.Sequential):
    """A chain by another name, as torchvision's MLP is."""


class Doubles(nn.Sequential):
    """A chain no more: what it gives is changed."""

    def forward(self, x):
        return 2 * super().forward(x)


class Inside(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return x + self.part(x)


def perceptron():
    return [nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)]


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Mlp(*perceptron()), {"0": "2"}),
        (nn.Sequential(Mlp(*perceptron()), nn.Linear(4, 2)), {"0.0": "0.2", "0.2": "1"}),
        (Inside(Mlp(*perceptron())), {"part.0": "part.2"}),
        (nn.Sequential(Inside(nn.Sequential(*perceptron()))), {"0.part.0": "0.part.2"}),
        (nn.Sequential(Inside(Mlp(*perceptron())), nn.Linear(4, 2)), {"0.part.0": "0.part.2"}),
        (Doubles(*perceptron()), {}),
        (nn.Sequential(Doubles(*perceptron()), nn.Linear(4, 2)), {}),
        (nn.Sequential(nn.ModuleDict({"a": nn.Linear(4, 4)}), nn.Linear(4, 2)), {}),
    ],
)
def test_a_chain_is_the_same_for_everyone(model, found):
    assert prunable_layers(model) == tuple(found)
    for path, consumer in found.items():
        assert find_consumer(model, path).path == consumer
        inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
        assert parity(model, path, torch.tensor([0, 2]), inputs) <= 1e-5


def test_an_object_with_a_forward_of_its_own_is_no_chain():
    model = nn.Sequential(*perceptron())
    model.forward = lambda x: x
    assert prunable_layers(model) == ()
