"""A network as a list of steps that run one after the other."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor, nn

from secateurs.nets.backbones import InputTransform, preprocessing, trace_of
from secateurs.nets.trace import Trace, eval_mode, is_chain

WHOLE = "model"
_GLUE = {
    "transform_input": InputTransform,
    "relu": nn.ReLU,
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": lambda: nn.Flatten(1),
}
_PLANS: dict[tuple[str, tuple[str, ...]], tuple[tuple[str, str], ...]] = {}


def chain(model: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The model as (name, module) steps whose composition gives exactly the model's output.

    A step's name is its module's path; what a network does between modules (flatten, a pooling by
    function) is a step of its own without parameters. Containers are opened as far as their parts
    simply run in order. That the steps agree with the model is checked on random images, once for
    each network; where they do not, the whole model is the only step, named "model".

    >>> from secateurs.nets.backbones import build
    >>> [name for name, _ in chain(build("alexnet", 3), "alexnet")][12:16]
    ['features.12', 'avgpool', 'flatten', 'classifier.0']
    """
    seen = trace_of(model, name)
    key = (name, seen.order)
    if key not in _PLANS:
        _PLANS[key] = _plan(model, seen, size=preprocessing(name).size)
    return _steps(model, _PLANS[key])


def _steps(model: nn.Module, plan: tuple[tuple[str, str], ...]) -> list[tuple[str, nn.Module]]:
    # A plan's entry is ("path", where) or ("glue", kind).
    return [
        (where, model.get_submodule("" if where == WHOLE else where))
        if sort == "path"
        else (where, _GLUE[where]())
        for sort, where in plan
    ]


def _plan(model: nn.Module, seen: Trace, *, size: int) -> tuple[tuple[str, str], ...]:
    for plan in _candidates(model, seen):
        if _agrees(model, plan, size=size):
            return plan
    return (("path", WHOLE),)


def _candidates(model: nn.Module, seen: Trace) -> Generator[tuple[tuple[str, str], ...]]:
    """Plans worth trying: the parts in running order, with what must lie between their shapes."""
    parts = [p for p in _parts(model, "", seen) if p in seen.inputs]
    if not parts or any(p not in seen.outputs for p in parts):
        return
    wanted = [*(seen.inputs[p] for p in parts[1:]), seen.output]
    between = [_between(seen.outputs[p], shape) for p, shape in zip(parts, wanted, strict=True)]
    pools = any("pool" in kinds for kinds in between if kinds)
    for before_pool in ((), ("relu",)) if pools else ((),):
        plan = [("glue", "transform_input")] if getattr(model, "transform_input", False) else []
        for part, kinds in zip(parts, between, strict=True):
            if kinds is None:
                return
            plan.append(("path", part))
            plan += [("glue", kind) for kind in (before_pool if "pool" in kinds else ())]
            plan += [("glue", kind) for kind in kinds]
        yield tuple(plan)


def opened_parts(model: nn.Module, seen: Trace) -> list[str]:
    """Paths of the modules of which a network is made, in running order: blocks, layers, glue.

    Whatever holds a list of blocks is opened, also where more happens in it.
    """
    return _parts(model, "", seen, deep=True)


def _parts(module: nn.Module, path: str, seen: Trace, *, deep: bool = False) -> list[str]:
    """Paths of the modules below `module`, plain sequences and lists opened, in running order."""
    place = {path: rank for rank, path in enumerate(seen.order)}
    found: list[str] = []
    for name, child in module.named_children():
        where = f"{path}.{name}" if path else name
        plain = is_chain(child) or isinstance(child, nn.ModuleList)
        plain = plain or (deep and holds_blocks(child))
        found += _parts(child, where, seen, deep=deep) if plain else [where]
    return sorted(found, key=place.__getitem__)


def holds_blocks(module: nn.Module) -> bool:
    """Whether a module has a sequence or list of blocks, each with two or more weighted layers."""
    return any(
        sum(isinstance(inner, nn.Conv2d | nn.Linear) for inner in block.modules()) > 1
        for child in module.children()
        if is_chain(child) or isinstance(child, nn.ModuleList)
        for block in child.children()
    )


def _between(given: tuple[int, ...], wanted: tuple[int, ...]) -> list[str] | None:
    if given == wanted:
        return []
    if len(given) == 4 and wanted == (given[0], given[1]) and given[2] * given[3] > 1:
        return ["pool", "flatten"]
    if len(given) == 4 and wanted == (given[0], given[1] * given[2] * given[3]):
        return ["flatten"]
    return None


def _agrees(model: nn.Module, plan: tuple[tuple[str, str], ...], *, size: int) -> bool:
    first = next(model.parameters())
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    images = images.to(first.device, first.dtype)
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with eval_mode(model), torch.no_grad(), flags:
        expected: Tensor = model(images)
        got = images
        for _, step in _steps(model, plan):
            got = step(got)
        return torch.equal(got, expected)
