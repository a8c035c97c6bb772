"""Networks whose head reads features of earlier depths beside the last ones."""

from __future__ import annotations

import reprlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.errors import InputError
from secateurs.nets.chain import BETWEEN, WHOLE, chain, num_weighted
from secateurs.nets.stock import build_stock, trace_of
from secateurs.nets.trace import Trace

Layout = Literal["first", "last"]
EPSILON = 1e-6  # added to a variance, so that the root of a constant map has a gradient
EARLY, LATE = "early.", "both.late."  # before the paths that modules have in a stock network
BOTH = "both"
HEAD = "head"


def layout_before(behind: nn.Module) -> Layout:
    """Which axis of the maps that go into a part of a network has the channels.

    "first" for (n, channels, ...), "last" for tokens (n, ..., channels).

    >>> layout_before(nn.Sequential(nn.Linear(3, 3))), layout_before(nn.Conv2d(3, 3, 1))
    ('last', 'first')
    """
    for module in behind.modules():
        if isinstance(module, nn.Conv2d | nn.Flatten):
            return "first"
        if isinstance(module, nn.Linear):
            return "last"
    return "first"


def pooled_maps(maps: Tensor, layout: Layout, *, deviations: bool = True) -> Tensor:
    """Features (n, f) of maps (n, channels, ...), tokens (n, ..., channels) or features (n, f).

    The channels' means over positions, and with `deviations` behind them the standard deviations.

    >>> pooled_maps(torch.tensor([[[[1.0, 3.0]]]]), "first")
    tensor([[2.0000, 1.0000]])
    """
    if maps.ndim == 2:
        return maps
    flat = maps.flatten(2) if layout == "first" else maps.flatten(1, -2).mT
    mean = flat.mean(2)
    if not deviations:
        return mean
    variance = (flat - mean.unsqueeze(2)).square().mean(2)
    return torch.cat([mean, (variance + EPSILON).sqrt()], 1)


class Steps(nn.Sequential):
    """Steps of a network's chain, or containers of them, that run one after the other."""


class FixedNorm(nn.BatchNorm1d):
    """A batch norm without scale and shift that keeps its statistics in training too."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised features (n, channels)."""
        return F.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)


class BothDepths(nn.Module):
    """The features behind the later part of a network, and statistics of what goes into it.

    Of maps (n, channels, ...), or tokens (n, ..., channels), the channels' means and standard
    deviations over positions, normalised by `norm`, follow the features (n, f) that `late` makes of
    them. A fresh `norm` changes nothing in eval mode.
    """

    norm: FixedNorm
    late: Steps

    def __init__(self, late: Steps, layout: Layout, channels: int) -> None:
        super().__init__()
        self.norm = FixedNorm(2 * channels, affine=False)
        self.late = late
        self.layout: Layout = layout
        self.normalise(torch.tensor(0.0), torch.tensor(1.0))

    @torch.no_grad()
    def normalise(self, center: Tensor, scale: Tensor) -> None:
        """Subtract `center` (2 channels,) from the statistics and divide by `scale`."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        mean.copy_(center.expand_as(mean))
        variance.copy_((scale.square() - self.norm.eps).expand_as(variance))

    def forward(self, maps: Tensor) -> Tensor:
        """Features (n, f + 2 channels)."""
        statistics = self.norm(pooled_maps(maps, self.layout))
        return torch.cat([self.late(maps), statistics], 1)


class SeveralDepths(nn.Sequential):
    """A network in three parts: `early`, `both` with the later layers in it, a linear `head`.

    Where the head reads more than one earlier depth, there is another `both` within the first
    one's later layers. `stock_head` is where the stock network has its last layer.
    """

    both: BothDepths

    def __init__(self, early: Steps, both: BothDepths, head: nn.Linear, stock_head: str) -> None:
        super().__init__(OrderedDict(early=early, both=both, head=head))
        self.stock_head = stock_head


def several_depths(
    model: nn.Module, name: str, paths: Sequence[str], num_classes: int
) -> SeveralDepths:
    """A stock network with a new linear head that also reads what the modules at `paths` give.

    The head reads the last features, then, from the latest of the earlier depths to the earliest,
    the means and standard deviations over positions of the channels there. The parts of `model`
    become parts of it; `paths` are those of steps of its chain whose output has positions, in
    running order. The stock network's last layer, linear or a convolution of kernel 1, is left out.
    After Evci et al. 2022 (Head2Toe), who read all depths through a selection of features. Raises
    InputError when the network cannot be taken apart, has no such step, or for another order.

    >>> made = several_depths(build_stock("squeezenet1_1", 3), "squeezenet1_1", ["features.7"], 3)
    >>> made.head
    Linear(in_features=1024, out_features=3, bias=True)
    """
    if next(model.parameters()).is_meta and [step for step, _ in chain(model, name)] == [WHOLE]:
        with torch.device("cpu"):  # without values the steps cannot be found
            chain(build_stock(name, 2), name)
    places = readable_depths(model, name)
    for path in paths:
        if path not in places:
            can = f"it can read {_shown(places)}" if places else "it can read none"
            raise InputError(f"{name}: a head cannot read {reprlib.repr(path)} too; {can}")
    if list(paths) != [path for path in places if path in paths]:
        raise InputError(f"{name}: name the depths {_shown(paths)} once, in running order")
    seen = trace_of(model, name)
    last = seen.weighted[-1]
    steps = chain(model, name)
    head = model.get_submodule(last)
    assert isinstance(head, nn.Linear | nn.Conv2d)
    with torch.device(head.weight.device):
        whole = _reading([step for step in steps if step[0] != last], paths, seen)
        both = whole[-1]
        assert isinstance(both, BothDepths)
        read = sum(inner.norm.num_features for inner in _both_within(both))
        own = head.in_features if isinstance(head, nn.Linear) else head.in_channels
        fresh = nn.Linear(own + read, num_classes)
    early = Steps(OrderedDict(list(whole.named_children())[:-1]))
    return SeveralDepths(early, both, fresh, last)


def _reading(steps: Sequence[tuple[str, nn.Module]], paths: Sequence[str], seen: Trace) -> Steps:
    """Steps, those behind the first of `paths` within a `BothDepths` at their end."""
    if not paths:
        return _nested(steps)
    at = [step for step, _ in steps].index(paths[0]) + 1
    late = _reading(steps[at:], paths[1:], seen)
    layout = layout_before(late)
    channels = seen.outputs[paths[0]][1 if layout == "first" else -1]
    return _nested([*steps[:at], (BOTH, BothDepths(late, layout, channels))])


def readable_depths(model: nn.Module, name: str) -> tuple[str, ...]:
    """The steps of a stock network that a head can read beside the last features, in order.

    Empty for a network that cannot be taken apart, or with another kind of last layer.

    >>> readable_depths(build_stock("squeezenet1_1", 3), "squeezenet1_1")[-2:]
    ('features.10', 'features.11')
    """
    seen = trace_of(model, name)
    steps = [step for step, _ in chain(model, name)]
    last = seen.weighted[-1]
    if steps == [WHOLE] or last not in steps or not _is_linear(model.get_submodule(last)):
        return ()
    own = dict(chain(model, name))
    weighted = [place for place, step in enumerate(steps) if num_weighted(own[step])]
    # Behind the last layers before the head lies nothing but their pooling.
    return tuple(
        step
        for step in steps[: weighted[-2] if len(weighted) > 1 else 0]
        if not step.startswith(BETWEEN) and len(seen.outputs.get(step, ())) in (3, 4)
    )


def stock_path(path: str, model: nn.Module) -> str:
    """Where a module of a network is in the stock network.

    >>> made = several_depths(build_stock("squeezenet1_1", 3), "squeezenet1_1", ["features.7"], 3)
    >>> [stock_path(path, made) for path in ("both.late.features.9", "early.features.0", "head")]
    ['features.9', 'features.0', 'classifier.1']
    """
    if not isinstance(model, SeveralDepths):
        return path
    if path == HEAD:
        return model.stock_head
    while path.startswith(LATE):
        path = path.removeprefix(LATE)
    return path.removeprefix(EARLY)


def both_depths(model: nn.Module) -> list[BothDepths]:
    """What reads earlier depths in a network, in the order in which the head has them.

    That is from the latest to the earliest; none in a stock network.
    """
    return _both_within(model.both) if isinstance(model, SeveralDepths) else []


def _both_within(both: BothDepths) -> list[BothDepths]:
    found = [module for module in both.modules() if isinstance(module, BothDepths)]
    return found[::-1]


def late_steps(both: BothDepths, where: str = BOTH) -> list[str]:
    """Where the steps behind the earlier depth are, in running order; `where` is that of `both`."""
    return _leaves(both.late, f"{where}.late")


def _leaves(steps: nn.Module, where: str) -> list[str]:
    if isinstance(steps, BothDepths):
        return late_steps(steps, where)
    if not isinstance(steps, Steps):
        return [where]
    return [
        leaf for name, child in steps.named_children() for leaf in _leaves(child, f"{where}.{name}")
    ]


def stock_tensors(model: nn.Module, name: str, paths: Sequence[str]) -> dict[str, str]:
    """The names of a stock network's tensors, its head's left out, with those of `several_depths`.

    >>> stock = build_stock("squeezenet1_1", 3)
    >>> stock_tensors(stock, "squeezenet1_1", ["features.7"])["features.9.squeeze.bias"]
    'both.late.features.9.squeeze.bias'
    """
    made = several_depths(model, name, paths, 2)
    names = {id(tensor): own for own, tensor in made.state_dict(keep_vars=True).items()}
    stock = model.state_dict(keep_vars=True)
    return {key: names[id(tensor)] for key, tensor in stock.items() if id(tensor) in names}


def _is_linear(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _nested(steps: Sequence[tuple[str, nn.Module]]) -> Steps:
    """Steps as sequences within sequences, so that modules keep their paths."""
    whole = Steps()
    for path, module in steps:
        parts, where = path.split("."), whole
        closed = False  # a step of the same container that does not follow its others
        for part in parts[:-1]:
            names = [one for one, _ in where.named_children()]
            if part not in names:
                where.add_module(part, Steps())
            elif part != names[-1]:
                closed = True
                break
            inner = getattr(where, part)
            assert isinstance(inner, Steps)
            where = inner
        if closed:
            whole.add_module(path.replace(".", "/"), module)
        else:
            where.add_module(parts[-1], module)
    return whole


def _shown(places: Sequence[str]) -> str:
    few = places if len(places) <= 8 else [*places[:3], "...", *places[-3:]]
    return ", ".join(few)
