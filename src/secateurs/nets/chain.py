"""A network as a list of steps that run one after the other."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor, nn

from secateurs.nets.segments import Segment, segments
from secateurs.nets.stock import InputTransform, preprocessing, trace_of
from secateurs.nets.trace import Trace, eval_mode, is_chain

WHOLE = "model"
BETWEEN = "between "  # before the numbers of steps that are operations of the network itself
_GLUE = {
    "transform_input": InputTransform,
    "relu": nn.ReLU,
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": lambda: nn.Flatten(1),
}
Plan = tuple[Segment | str, ...]  # what of the network runs, and the names of what is in `_GLUE`
_PLANS: dict[tuple[str, tuple[str, ...]], Plan] = {}


def chain(model: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The model as (name, module) steps whose composition gives exactly the model's output.

    A step's name is its module's path; what a network does between modules (flatten, a pooling by
    function, a class token) is a step of its own. Containers are opened as far as their parts
    simply run in order. That the steps agree with the model is checked on random images, once for
    each network; where they do not, and for a model without values, the whole model is the only
    step, named "model".

    >>> from secateurs.nets.stock import build_stock
    >>> [name for name, _ in chain(build_stock("alexnet", 3), "alexnet")][12:16]
    ['features.12', 'avgpool', 'flatten', 'classifier.0']
    """
    seen = trace_of(model, name)
    key = (name, seen.order)
    if key not in _PLANS:
        if next(model.parameters()).is_meta:  # nothing can be compared
            return _steps(model, (Segment("", None),))
        _PLANS[key] = _plan(model, seen, size=preprocessing(name).size)
    return _steps(model, _PLANS[key])


def _steps(model: nn.Module, plan: Plan) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for place, step in enumerate(plan):
        if isinstance(step, Segment):
            found.append((_name(step, place), step.module(model)))
        else:
            found.append((step, _GLUE[step]()))
    return found


def _name(step: Segment, place: int) -> str:
    if step.graph is not None:
        return f"{BETWEEN}{place}"
    return step.path or WHOLE


def _plan(model: nn.Module, seen: Trace, *, size: int) -> Plan:
    images = _images(model, size)
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with eval_mode(model), torch.no_grad(), flags:
        return _opened(model, "", images, model(images), seen) or (Segment("", None),)


def _opened(
    model: nn.Module,
    where: str,
    given: Tensor,
    expected: Tensor,
    seen: Trace,
    *,
    fewest_blocks: int = 0,
) -> Plan | None:
    """The parts of a module, those with blocks opened again; None where they do not agree with it.

    Worth trying are the parts in running order, with what must lie between their shapes, and then
    what the module's own forward does.
    """
    for plan in _plans(model, where, seen):
        results = _results(model, plan, given)
        if results is None or not torch.equal(results[-1], expected):
            continue
        if _num_blocks(model, plan) < fewest_blocks:
            return None  # not worth a name for each
        found: list[Segment | str] = []
        for step, before, after in zip(plan, [given, *results], results, strict=False):
            inner = step.path if isinstance(step, Segment) else None
            parts: Plan | None = None
            module = model.get_submodule(inner or "")
            if inner and seen.weighted[-1].startswith(f"{inner}."):  # the head, and what it is in
                parts = _opened(model, inner, before, after, seen)
            elif inner and _may_open(module):
                parts = _opened(model, inner, before, after, seen, fewest_blocks=2)
            found += parts or [step]
        return tuple(found)
    return None


def _plans(model: nn.Module, where: str, seen: Trace) -> Generator[Plan]:
    yield from _candidates(model, where, seen)
    followed = segments(model, where)
    # A residual connection makes one step of a block, which is better left as the module it is.
    if followed and (not where or not any(_has_layers(model, step) for step in followed)):
        yield followed


def _num_blocks(model: nn.Module, plan: Plan) -> int:
    paths = [step.path for step in plan if isinstance(step, Segment) and step.path]
    return sum(num_weighted(model.get_submodule(path)) > 1 for path in paths)


def _has_layers(model: nn.Module, step: Segment) -> bool:
    return step.graph is not None and num_weighted(step.module(model)) > 0


def _results(model: nn.Module, plan: Plan, given: Tensor) -> list[Tensor] | None:
    """What each step of a plan gives; None where they do not fit each other."""
    results = [given]
    try:
        for _, step in _steps(model, plan):
            results.append(step(results[-1]))
    except Exception:  # whatever modules make of shapes that are not theirs
        return None
    return results[1:]


def _may_open(module: nn.Module) -> bool:
    blocks = sum(num_weighted(child) > 1 for child in module.children())
    return blocks > 1 or holds_blocks(module)


def _candidates(model: nn.Module, where: str, seen: Trace) -> Generator[Plan]:
    """Plans from shapes: the parts in running order, with what must lie between their shapes."""
    module = model.get_submodule(where)
    parts = [p for p in _parts(module, where, seen) if p in seen.inputs]
    output = seen.outputs[where] if where else seen.output
    if not parts or any(p not in seen.outputs for p in parts):
        return
    wanted = [*(seen.inputs[p] for p in parts[1:]), output]
    between = [_between(seen.outputs[p], shape) for p, shape in zip(parts, wanted, strict=True)]
    pools = any("pool" in kinds for kinds in between if kinds)
    for before_pool in ((), ("relu",)) if pools else ((),):
        plan: list[Segment | str] = (
            ["transform_input"] if getattr(module, "transform_input", False) else []
        )
        for part, kinds in zip(parts, between, strict=True):
            if kinds is None:
                return
            plan.append(Segment(part, None))
            plan += before_pool if "pool" in kinds else ()
            plan += kinds
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
        plain = plain or (deep and (isinstance(child, nn.Sequential) or holds_blocks(child)))
        found += _parts(child, where, seen, deep=deep) if plain else [where]
    return sorted(found, key=place.__getitem__)


def num_weighted(module: nn.Module) -> int:
    """How many convolutions and linear layers a module has.

    >>> num_weighted(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    1
    """
    return sum(isinstance(inner, nn.Conv2d | nn.Linear) for inner in module.modules())


def holds_blocks(module: nn.Module) -> bool:
    """Whether a module has a sequence or list of blocks, each with two or more weighted layers."""
    return any(
        num_weighted(block) > 1
        for child in module.children()
        if isinstance(child, nn.Sequential | nn.ModuleList)
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


def _images(model: nn.Module, size: int) -> Tensor:
    first = next(model.parameters())
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    return images.to(first.device, first.dtype)
