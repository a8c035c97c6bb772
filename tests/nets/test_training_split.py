"""Where training of a network begins whose head reads several depths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateurs.nets.backbones import build
from secateurs.nets.depth import freeze, num_depths, split_at, train_mode, trained_parameters
from secateurs.nets.several_depths import both_depths
from secateurs.nets.stock import build_stock
from secateurs.nets.trace import eval_mode
from secateurs.nets.training_split import packed, training_split, training_stretch, unpacked

TWO = "squeezenet1_1+features.7+features.10"
TOKENS = "vit_tiny_patch16_224+blocks.1+blocks.7"


def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = build(name, 3)
    for both in both_depths(made):
        both.normalise(torch.tensor(0.3), torch.tensor(2.0))
    return made.eval().double()  # so that nothing but rounding differs, and little of that


@pytest.mark.parametrize(
    ("name", "size", "depths"),
    [(TWO, 65, (7, 13, 14, 19, 25)), ("resnet18+layer2.1+layer3.0", 64, (11, 15, 20))],
)
def test_both_parts_give_what_the_network_gives(name: str, size: int, depths: tuple[int, ...]):
    made = _made(name)
    batch = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        expected = made(batch)
        for depth in depths:
            prefix, tail = training_split(made, name, depth)
            torch.testing.assert_close(tail(prefix(batch)), expected, rtol=1e-9, atol=1e-12)
            wanted = {id(p) for p in trained_parameters(made, name, depth)}
            assert wanted <= {id(p) for p in tail.parameters()}, depth
            assert not wanted & {id(p) for p in prefix.parameters()}, depth


def test_tokens_are_cut_behind_a_depth_that_the_head_reads():
    made = _made(TOKENS)
    batch = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        expected = made(batch)
        shapes = {}
        for depth in (34,):
            prefix, tail = training_split(made, TOKENS, depth)
            shapes[depth] = tuple(prefix(batch).shape)
            torch.testing.assert_close(tail(prefix(batch)), expected, rtol=1e-9, atol=1e-12)
    # 197 tokens of 192 values; the 4 * 192 statistics of two depths take 4 more of each token.
    assert shapes == {34: (1, 197, 192 + 4)}


def test_only_what_is_trained_is_left_to_the_tail():
    made = _made(TWO)
    last = num_depths(made, TWO) - 1
    prefix, tail = training_split(made, TWO, last)
    layers = [module for module in tail.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert layers == [made.head]
    # `split_at` alone leaves all layers behind the first depth that is read to the tail.
    assert (
        sum(isinstance(m, nn.Conv2d | nn.Linear) for m in split_at(made, TWO, last)[1].modules())
        > 9
    )
    assert len(prefix) > 1


def test_a_prefix_is_carried_on_from_every_earlier_one():
    made = _made(TWO)
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    depths = (7, 13, 16, 25)
    with torch.no_grad():
        outputs = {depth: training_split(made, TWO, depth)[0](batch) for depth in depths}
        for first in depths:
            for second in (depth for depth in depths if depth >= first):
                found = training_stretch(made, TWO, first, second)(outputs[first])
                torch.testing.assert_close(found, outputs[second], rtol=1e-9, atol=1e-12)
        assert len(training_stretch(made, TWO, depths[-1], depths[-1])) == 0


def test_a_step_of_training_moves_the_same_weights_by_the_same():
    batch = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    gradients = []
    for cut in (split_at, training_split):
        made = _made(TWO)
        freeze(made, TWO, 16)
        train_mode(made, TWO, 16, dropout=False)
        prefix, tail = cut(made, TWO, 16)
        with torch.no_grad(), eval_mode(prefix):
            given = prefix(batch)
        tail(given).square().sum().backward()
        gradients.append({n: p.grad for n, p in made.named_parameters() if p.grad is not None})
    first, second = gradients
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-9, atol=1e-12)


def test_a_stock_network_is_cut_as_ever():
    stock = build_stock("squeezenet1_1", 3)
    parts, usual = (cut(stock, "squeezenet1_1", 7) for cut in (training_split, split_at))
    for part, other in zip(parts, usual, strict=True):
        assert [name for name, _ in part.named_children()] == [n for n, _ in other.named_children()]


@pytest.mark.parametrize("num", [1, 5, 6, 13])
def test_what_is_packed_comes_back(num: int):
    read = torch.randn(2, num)
    for shape, layout in (
        ((2, 3, 2, 3), "first"),
        ((2, 2, 3, 4), "last"),
        ((2, 5, 4), "last"),
        ((2, 7), "first"),
        ((2, 7), "last"),
    ):
        maps = torch.randn(shape)
        found, again = unpacked(packed(maps, read, layout), num, layout)
        assert torch.equal(found, maps), shape
        assert torch.equal(again, read), shape
