"""The blocks of a network: runs of modules through which one tensor passes after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, samples
from secateurs.nets.layers import LAYERS
from secateurs.nets.trace import eval_mode, is_chain, python_modules
from secateurs.prune.statistics.replay import Uses, is_within, uses_of

MOST_LAYERS = 8  # of a module that is taken as one block
JOINED_LAYERS = 2  # of modules that are joined to one block


@dataclass(frozen=True)
class Block:
    """Modules, by path, that run one after the other, each on what the one before it gave."""

    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its modules in words."""
        first, last = self.paths[0], self.paths[-1]
        return first if first == last else f"{first} to {last}"


def blocks_of(
    model: nn.Module,
    sample: Batch,
    *,
    run: Run,
    may_end: Callable[[str], bool] = lambda path: True,
) -> list[Block]:
    """The blocks of a network that have weights, in running order, found from one sample.

    A block is a module of up to `MOST_LAYERS` weighted layers, as a residual block, or several
    single layers up to `JOINED_LAYERS`, with what lies between and after them, where the output of
    each is only read by the next. A block goes on while `may_end(path)` says that the output of its
    last module cannot be compared. Modules that do not run exactly once are in none.

    >>> from secateurs.nets.batches import forward
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [block.name for block in blocks_of(net, torch.zeros(1, 2), run=forward)]
    ['0 to 3', '4']
    """
    one = samples(sample, slice(0, 1))
    uses, calls = uses_of(model, one, run), _calls(model, one, run)
    parts = sorted(_parts(model, "", uses), key=lambda path: uses.order[path][0])
    num_layers = {path: count_layers(model.get_submodule(path)) for path in parts}
    found: list[list[str]] = []
    for path in parts:
        last = found[-1] if found else None
        if last is not None and _follows(path, last[-1], uses, calls):
            layers = sum(num_layers[one] for one in last)
            small = layers + num_layers[path] <= JOINED_LAYERS
            if small or not num_layers[path] or not may_end(last[-1]):
                last.append(path)
                continue
        found.append([path])
    return [
        Block(tuple(paths))
        for paths in found
        if may_end(paths[-1]) and any(num_layers[path] for path in paths)
    ]


def count_layers(module: nn.Module) -> int:
    """How many weighted layers a module has.

    >>> count_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    1
    """
    return sum(isinstance(inner, LAYERS) for inner in module.modules())


def _parts(module: nn.Module, path: str, uses: Uses) -> list[str]:
    """Paths of the modules that are not opened further."""
    if isinstance(module, torch.jit.ScriptModule):
        return []
    opened = not path or path not in uses.order or is_chain(module)
    opened = opened or count_layers(module) > MOST_LAYERS or _holds_blocks(module)
    if not opened or (path in uses.order and not any(True for _ in module.children())):
        return [path]
    found: list[str] = []
    for name, child in module.named_children():
        found += _parts(child, f"{path}.{name}" if path else name, uses)
    return found


def _holds_blocks(module: nn.Module) -> bool:
    """Whether a module has a sequence or list of blocks of two or more weighted layers."""
    return any(
        sum(count_layers(block) > 1 for block in inner.children()) > 1
        for inner in module.modules()
        if isinstance(inner, nn.Sequential | nn.ModuleList)
    )


@dataclass(frozen=True)
class _Call:
    """What a module was given and gave in one run."""

    args: Sequence[Any]
    kwargs: dict[str, Any]
    output: Any


def _calls(model: nn.Module, sample: Batch, run: Run) -> dict[str, _Call]:
    found: dict[str, _Call] = {}
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def note(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            found[path] = _Call(args, kwargs, output)

        return hook

    try:
        for path, module in python_modules(model):
            handles.append(module.register_forward_hook(note(path), with_kwargs=True))
        with torch.no_grad(), eval_mode(model):
            run(model, sample)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _follows(path: str, before: str, uses: Uses, calls: dict[str, _Call]) -> bool:
    """Whether a module gets what another gave, alone, and nothing else reads that."""
    given, made = calls[path], calls[before].output
    if not isinstance(made, Tensor) or len(given.args) != 1 or given.kwargs:
        return False
    if given.args[0] is not made:
        return False
    writers = uses.writers.get(before, set())
    if writers and given.output is made and all(is_within(one, path) for one in writers):
        return True  # written into, as by a ReLU in place: who reads it then reads the next output
    return all(is_within(reader, path) for reader in uses.readers[before])
