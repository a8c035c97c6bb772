"""Features at every depth in one pass, the probe on them, and the head that it gives."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from random_values import with_random_values
from secateurs.errors import InputError
from secateurs.fit.confidence import fit_temperature
from secateurs.fit.images import Images
from secateurs.fit.probe import pooling
from secateurs.fit.probe.classifier import fit_classifier
from secateurs.fit.probe.head import Head, can_start, start_head
from secateurs.fit.probe.pooling import borders, pooled_features
from secateurs.fit.probe.probing import fit_head, probe
from secateurs.nets.backbones import build
from secateurs.nets.chain import chain
from secateurs.nets.depth import num_depths, split_at
from secateurs.nets.several_depths import EPSILON, pooled_maps, stock_tensors
from secateurs.stopping import StopFlag, StopRequested

CPU = torch.device("cpu")


def _images(num: int, size: int = 64) -> Images:
    generator = np.random.default_rng(0)
    labels = np.arange(num) % 3
    pixels = generator.integers(0, 60, (num, size, size, 3))
    pixels[np.arange(num), :, :, labels] += 120
    pixels = pixels.astype(np.uint8)
    return Images(
        pixels=pixels,
        eval_pixels=pixels,
        ids=np.arange(num, dtype=np.uint64),
        sizes=np.full((num, 2), size),
        labels=labels.astype(np.int64),
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
    )


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, 3)


@pytest.mark.parametrize(
    ("name", "depths"), [("mobilenet_v3_small", (0, 1, 13, 40)), ("squeezenet1_1", (1, 7, 13, 25))]
)
def test_one_pass_gives_what_each_prefix_gives(name: str, depths: tuple[int, ...]):
    model, images = _network(name).eval(), _images(5)
    found = pooled_features(
        model, name, borders(model, name, depths), images, mirrored=True, device=CPU
    )
    batch = images.eval_views(slice(None), CPU)
    for depth, features in zip(depths, found, strict=True):
        prefix, _ = split_at(model, name, depth)
        with torch.no_grad():
            for view, given in enumerate((batch, batch.flip(-1))):
                maps = prefix(given)
                expected = [maps.mean((2, 3))]
                if depth < num_depths(model, name) - 1:
                    expected.append((maps.var((2, 3), unbiased=False) + EPSILON).sqrt())
                assert torch.allclose(features[view], torch.cat(expected, 1), atol=1e-4), depth


def test_depths_behind_one_that_a_head_reads_are_probed_where_they_are():
    name, depths, images = "squeezenet1_1", (4, 7, 13, 16, 19), _images(5)
    reads = f"{name}+features.4+features.7"
    model, stock = _network(reads).eval(), _network(name).eval()
    own = model.state_dict()
    for key, place in stock_tensors(_network(name), name, ("features.4", "features.7")).items():
        own[place].copy_(stock.state_dict()[key])
    found, expected = (
        pooled_features(one, its, borders(one, its, depths), images, mirrored=False, device=CPU)
        for one, its in ((model, reads), (stock, name))
    )
    for depth, features, wanted in zip(depths, found, expected, strict=True):
        assert torch.allclose(features, wanted, atol=1e-5), depth


def test_features_beyond_the_memory_lie_in_a_file(monkeypatch: pytest.MonkeyPatch):
    name = "squeezenet1_1"
    model, images = _network(name).eval(), _images(5)
    places = borders(model, name, (1, 7, 25))
    held = pooled_features(model, name, places, images, mirrored=True, device=CPU)
    monkeypatch.setattr(pooling, "MEMORY_BYTES", 100)
    mapped = pooled_features(model, name, places, images, mirrored=True, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(held, mapped, strict=True))


def test_the_last_depth_is_what_the_head_receives():
    name = "mobilenet_v3_small"
    model, images = _network(name).eval(), _images(4)
    last = num_depths(model, name) - 1
    [features] = pooled_features(
        model, name, borders(model, name, [last]), images, mirrored=False, device=CPU
    )
    head = model.get_submodule("classifier.3")
    with torch.no_grad():
        given = model(images.eval_views(slice(None), CPU))
        assert torch.allclose(head(features[0]), given, atol=1e-5)


def test_transformers_are_probed_between_their_layers():
    name = "vit_b_16"
    model = with_random_values(name, 3)
    found = borders(model, name, (1, 19, 37))
    assert [place.path for place in found] == [None, None, "heads.head"]
    steps = [step for step, _ in chain(model, name)]
    assert steps[found[1].num_steps] == "encoder.layers.encoder_layer_6"
    assert {place.layout for place in found} == {"last"}


def test_positions_are_pooled_by_layout():
    maps = torch.arange(24.0).view(2, 3, 2, 2)
    deviations = maps.std((2, 3), unbiased=False)
    expected = torch.cat([maps.mean((2, 3)), deviations], 1)
    assert torch.allclose(pooled_maps(maps, "first"), expected)
    assert torch.allclose(pooled_maps(maps.permute(0, 2, 3, 1), "last"), expected)
    assert torch.equal(pooled_maps(maps, "first", deviations=False), maps.mean((2, 3)))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_the_head_that_is_started_gives_the_probes_scores(name: str):
    model, images = _network(name), _images(24)
    last = num_depths(model, name) - 1
    groups = [str(k // 3) for k in range(24)]
    result = probe(model, name, (0, last), images, images, num_classes=3, groups=groups)
    assert [depth.depth for depth in result.depths] == [0, last]
    assert result.depths[0].train.accuracy == 1  # the classes are colours
    assert model.training
    assert result.head is not None
    started = start_head(model, name, result.head).eval()
    with torch.no_grad():
        logits = started(images.eval_views(slice(None), CPU)).double()
    expected = result.depths[-1].val_scores / result.head.temperature + result.head.shift
    assert torch.allclose(logits, expected, atol=1e-3)
    assert (result.head.shift > 0) == (name == "squeezenet1_1")
    assert not any(
        torch.equal(a, b)
        for (path, a), b in zip(model.named_parameters(), started.parameters(), strict=True)
        if path in ("classifier.3.weight", "classifier.1.weight")
    )
    plain = result.to_json()
    assert [row["depth"] for row in plain] == [0, last]
    assert 0 <= plain[1]["val_low"] <= plain[1]["val_accuracy"] <= plain[1]["val_high"] <= 1


def test_the_temperature_minimises_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    scores = 40 + 30 * torch.randn(80, 4, generator=generator, dtype=torch.float64)
    labels = np.where(np.arange(80) % 3 == 0, np.arange(80) % 4, scores.argmax(1).numpy())
    target = torch.from_numpy(labels)
    found = fit_temperature(scores, labels)
    grid = torch.logspace(-2, 4, 3000, dtype=torch.float64)
    losses = torch.stack([functional.cross_entropy(scores / t, target) for t in grid])
    assert abs(found / float(grid[losses.argmin()]) - 1) < 0.003


def test_scores_that_are_always_right_or_all_alike_give_a_finite_temperature():
    right = torch.eye(3, dtype=torch.float64)
    assert 0 < fit_temperature(right, np.arange(3)) < 0.05
    assert 0 < fit_temperature(torch.zeros(3, 3), np.arange(3)) < np.inf
    assert fit_temperature(right, np.array([1, 2, 0])) > 100


def test_heads_that_do_not_fit_are_refused():
    model = _network("mobilenet_v3_small")
    head = Head(torch.zeros(3, 7), torch.zeros(3), 1.0)
    words = "mobilenet_v3_small: the probe's head is (3, 7), classifier.3 needs (3, 1024)"
    with pytest.raises(InputError, match=re.escape(words)):
        start_head(model, "mobilenet_v3_small", head)
    assert can_start(model, "mobilenet_v3_small")
    model.set_submodule("classifier.3", nn.Linear(1024, 3, bias=False))
    assert not can_start(model, "mobilenet_v3_small")


def test_it_can_be_stopped_and_needs_images():
    model, images = _network("mobilenet_v3_small"), _images(4)
    stop = StopFlag()
    stop.request()
    with pytest.raises(StopRequested):
        probe(model, "mobilenet_v3_small", (1,), images, images, num_classes=3, stop=stop)
    with pytest.raises(InputError, match="no validation image"):
        empty = images.take(np.arange(0))
        probe(model, "mobilenet_v3_small", (1,), images, empty, num_classes=3)
    with pytest.raises(InputError, match="depth 99 is outside"):
        probe(model, "mobilenet_v3_small", (99,), images, images, num_classes=3)


def test_a_network_with_two_heads_is_probed_and_starts_none():
    pytest.importorskip("timm")
    name = "deit_tiny_distilled_patch16_224"
    model, images = _network(name), _images(8, 224)
    result = probe(model, name, (9,), images, images, num_classes=3, groups=None)
    assert [depth.depth for depth in result.depths] == [9] and result.head is None
    assert num_depths(model, name) == 50


def _noisy(num: int) -> Images:
    """Images whose classes are colours, with noise, so that no classifier is always right."""
    images = _images(num)
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 200, images.pixels.shape)
    pixels[np.arange(num), :, :, images.labels] += 8
    pixels = pixels.astype(np.uint8)
    return replace(images, pixels=pixels, eval_pixels=pixels)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_earlier_depths_are_tried_beside_the_last_features(name: str):
    model, images = _network(name), _noisy(24)
    last = num_depths(model, name) - 1
    result = probe(model, name, (0, 4, 10, last), images, images, num_classes=3)
    places = borders(model, name, (4, 10, last))
    early, late, end = pooled_features(model, name, places, images, mirrored=True, device=CPU)
    errors = {
        num: min(
            fit_classifier(torch.cat([end, late, early][: num + 1], 2), images.labels, 3).errors
        )
        for num in range(3)
    }
    num = min(errors, key=lambda one: errors[one])
    found, single = result.earlier, result.depths[-1]
    assert single.error == pytest.approx(errors[0])
    assert found is not None and len(found.paths) == num > 0
    assert found.probe.error == pytest.approx(errors[num])
    assert found.gain.difference == pytest.approx(
        found.probe.train.accuracy - single.train.accuracy
    )
    reads = "+".join([name, *found.paths])
    torch.manual_seed(0)
    network = build(reads, 3)
    own = network.state_dict()
    for key, place in stock_tensors(_network(name), name, found.paths).items():
        own[place].copy_(model.state_dict()[key])
    with pytest.raises(InputError, match="not of a network that reads these depths"):
        start_head(network, reads, Head(found.head.weight, found.head.bias, 1.0))
    started = start_head(network, reads, found.head).eval()
    with torch.no_grad():
        logits = started(images.eval_views(slice(None), CPU)).double()
    expected = found.probe.val_scores / found.probe.temperature
    assert torch.allclose(logits, expected, atol=2e-3)
    fitted = fit_head(network, reads, images, num_classes=3)
    assert fitted is not None and fitted.center is not None and fitted.scale is not None
    assert torch.allclose(fitted.weight, found.head.weight, atol=1e-4)
    again = Head.from_tensors(fitted.tensors())
    assert again.digest() == fitted.digest()
    assert replace(again, center=fitted.center + 1).digest() != fitted.digest()
    own_probe = probe(network, reads, (0, last), images, images, num_classes=3)
    assert own_probe.earlier is None
    assert torch.allclose(own_probe.depths[-1].val_scores, found.probe.val_scores, atol=1e-3)
