"""Depth: how many weighted layers, counted from the input, are frozen."""

from __future__ import annotations

from torch import nn

from secateurs.errors import InputError
from secateurs.nets.backbones import layers, num_heads, trace_of
from secateurs.nets.chain import BETWEEN, WHOLE, chain
from secateurs.nets.steps import Step, auto_depths, depth_name, steps
from secateurs.nets.trace import DROPOUTS, Trace

__all__ = [
    "Step",
    "auto_depths",
    "check_depth",
    "depth_name",
    "freeze",
    "num_depths",
    "split_at",
    "step_name",
    "steps",
    "tail_path",
    "train_mode",
    "trained_parameters",
]


def num_depths(model: nn.Module, name: str) -> int:
    """How many depths there are: 0 (all is trained) to `num_depths` - 1 (only the head is).

    >>> from secateurs.nets.backbones import build
    >>> num_depths(build("alexnet", 3), "alexnet")
    8
    """
    return len(trace_of(model, name).weighted) - num_heads(model, name) + 1


def check_depth(model: nn.Module, name: str, depth: int) -> None:
    """Raise InputError, which names the layers, unless `depth` is one of the network's.

    >>> from secateurs.nets.backbones import build
    >>> check_depth(build("squeezenet1_1", 3), "squeezenet1_1", 26)
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: depth 26 is outside 0..25 of squeezenet1_1 \
(features.0, features.3.squeeze, ..., features.12.expand3x3; classifier.1 is the new head)
    """
    aliases = [layer.alias for layer in layers(model, name)]
    last = num_depths(model, name) - 1
    body, head = aliases[:last], " and ".join(aliases[last:])
    if 0 <= depth <= len(body):
        return
    shown = ", ".join(body if len(body) <= 3 else [*body[:2], "...", body[-1]])
    raise InputError(
        f"depth {depth} is outside 0..{len(body)} of {name} ({shown}; {head} is the new head)"
    )


def freeze(model: nn.Module, name: str, depth: int) -> None:
    """Let the first `depth` weighted layers take no gradient, and all that comes after take one.

    A norm is frozen with the layer before it. In place; the modes are `train_mode`'s business.
    Raises InputError for a depth outside 0..num_layers - 1.
    """
    check_depth(model, name, depth)
    seen = trace_of(model, name)
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(seen.state_layer[path] >= depth)
            if not parameter.requires_grad:
                parameter.grad = None


def train_mode(model: nn.Module, name: str, depth: int, *, dropout: bool = True) -> None:
    """Put the trained part in train mode and the frozen part in eval mode.

    In the frozen part batch norm keeps its statistics and dropout does nothing. A dropout belongs
    to the layer that it feeds: at depth 5 of AlexNet the one before fc6 is active. With `dropout`
    False no dropout is active anywhere.
    """
    check_depth(model, name, depth)
    seen = trace_of(model, name)
    for path, module in model.named_modules():
        off = isinstance(module, DROPOUTS) and not dropout
        module.training = seen.mode_layer[path] >= depth and not off


def trained_parameters(model: nn.Module, name: str, depth: int) -> list[nn.Parameter]:
    """The parameters that training changes at `depth`, in the order of registration.

    >>> from secateurs.nets.backbones import build
    >>> [tuple(p.shape) for p in trained_parameters(build("alexnet", 3), "alexnet", 7)]
    [(3, 4096), (3,)]
    """
    check_depth(model, name, depth)
    seen = trace_of(model, name)
    return [
        parameter
        for path, module in model.named_modules()
        for parameter in module.parameters(recurse=False)
        if seen.state_layer[path] >= depth
    ]


def split_at(model: nn.Module, name: str, depth: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The model as (prefix, tail), which share its modules; tail(prefix(x)) equals model(x).

    The prefix is the longest run of steps (see `chain`) from the input that training at `depth`
    cannot change and whose dropout is fixed; it is empty, the identity, at depth 0 and wherever
    the first step is trained in part. The tail starts with the dropout before the first trained
    layer. Use both with the modes that `train_mode` or `eval` set on the model; children are named
    by `step_name`. Raises InputError for a depth outside 0..num_layers - 1.

    >>> from secateurs.nets.backbones import build
    >>> prefix, tail = split_at(build("alexnet", 3), "alexnet", 5)
    >>> [step for step, _ in tail.named_children()]
    ['classifier/0', 'classifier/1', 'classifier/2', 'classifier/3', 'classifier/4', \
'classifier/5', 'classifier/6']
    """
    check_depth(model, name, depth)
    seen = trace_of(model, name)
    steps = chain(model, name)
    num_fixed = 0
    while depth > 0 and num_fixed < len(steps) and is_fixed(*steps[num_fixed], seen, depth):
        num_fixed += 1
    return _sequence(steps[:num_fixed]), _sequence(steps[num_fixed:])


def step_name(path: str) -> str:
    """The name of a step as a child of a prefix or tail: PyTorch allows no dot in it.

    >>> step_name("features.3")
    'features/3'
    """
    return path.replace(".", "/")


def tail_path(tail: nn.Module, path: str) -> str:
    """Where a module of the whole model, given by its path, is in a prefix or tail.

    Raises InputError when it is not in it.

    >>> from secateurs.nets.backbones import build
    >>> prefix, tail = split_at(build("resnet18", 3), "resnet18", 10)
    >>> tail_path(tail, "layer4.1.conv1")
    'layer4/1.conv1'
    """
    for step, module in tail.named_children():
        if step.startswith(BETWEEN) and path in dict(module.named_modules()):
            return f"{step}.{path}"
        where = step.replace("/", ".")
        if step == WHOLE:
            return f"{WHOLE}.{path}"
        if path == where or path.startswith(f"{where}."):
            return step + path[len(where) :]
    raise InputError(f"{path} is not in this part of the network; it is in the other one")


def _sequence(steps: list[tuple[str, nn.Module]]) -> nn.Sequential:
    sequence = nn.Sequential()
    for path, module in steps:
        sequence.add_module(step_name(path), module)
    return sequence


def is_fixed(path: str, step: nn.Module, seen: Trace, depth: int) -> bool:
    """Whether training at `depth` changes nothing of the step at `path` of a network."""
    own = "" if path == WHOLE or path.startswith(BETWEEN) else path
    for inner, module in step.named_modules():
        where = ".".join(part for part in (own, inner) if part)
        if where not in seen.state_layer:
            continue  # A step without a module in the model: flatten, a pooling by function.
        owns = next(module.parameters(recurse=False), None) is not None
        if owns and seen.state_layer[where] >= depth:
            return False
        # A norm's statistics follow its parameters' layer; a dropout its consumer's; a module
        # without either computes the same in both modes.
        chance = getattr(module, "p", 0.0)
        changes = next(module.buffers(recurse=False), None) is not None or (
            isinstance(chance, float) and chance > 0
        )
        if changes and seen.mode_layer[where] >= depth:
            return False
    return True
