"""The order in which a network's modules run, found without computing anything."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from secateurs.closures import deep_copied
from secateurs.errors import InputError

DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
PLAIN = frozenset({bool, int, float, str, type(None)})  # they hold no tensors


@dataclass(frozen=True)
class Trace:
    """What one forward pass of a network showed.

    `order` is every module's path in the order in which it first runs (a module that is never
    called itself, such as a container or the output projection of an attention, stands where the
    nearest enclosing one that is called stands); `weighted` the convolution and linear layers of
    it; `state_layer` maps a module's path to the weighted layer with which the parameters it owns
    are frozen, `mode_layer` to the one with which its mode (statistics, dropout) is fixed, both as
    places in `weighted`; `inputs` and `outputs` are the shapes of the tensors that went in and out
    of each module called with one tensor; `output` is the network's.
    """

    order: tuple[str, ...]
    weighted: tuple[str, ...]
    state_layer: dict[str, int]
    mode_layer: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    output: tuple[int, ...]


@contextmanager
def eval_mode(model: nn.Module) -> Generator[None]:
    """Put a model in eval mode; every module's own mode is restored after, also on an error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_device(model: nn.Module, batch: object) -> None:
    """Raise InputError when a model and a batch are on different devices, or it has no values.

    >>> check_device(nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 2, 2))
    """
    devices = {tensor.device: None for tensor in tensors_of(batch)}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise InputError(f"{name}: the model has shapes and no values (device meta); load it")
        for device in devices:
            if tensor.device != device:
                raise InputError(
                    f"{name} of the model is on {tensor.device} and the batch is on {device}: "
                    f"move one to the other with .to({str(device)!r})"
                )


def skeleton(model: nn.Module) -> nn.Module:
    """A copy of a model in eval mode whose tensors have shapes and no values.

    >>> next(skeleton(nn.Linear(3, 2)).parameters()).device.type
    'meta'
    """
    bare = copied(model, lambda tensor: torch.empty_like(tensor, device="meta")).eval()
    if next(bare.parameters(), None) is None:
        raise InputError("the network has no parameters: there is nothing to follow or to cut")
    return bare


def copied(
    model: nn.Module, change: Callable[[Tensor], Tensor] = lambda tensor: tensor.clone()
) -> nn.Module:
    """A copy of a model whose parameters, buffers and other tensors went through `change`.

    `change` gets each tensor detached and returns a new one. Tensors that modules keep as plain
    attributes, such as a feature map of the last run, are copied without their history. Raises
    InputError for a model that cannot be copied: compiled by TorchScript as a whole, or with layers
    that are not initialised yet.

    >>> copied(nn.Linear(3, 2), lambda tensor: tensor.double()).weight.dtype
    torch.float64
    """
    memo = attribute_memo(model, change)
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise InputError(f"{name}: not initialised yet; run the network on an image first")
        memo[id(parameter)] = nn.Parameter(
            change(parameter.detach()), requires_grad=parameter.requires_grad
        )
    for name, buffer in model.named_buffers():
        if isinstance(buffer, UninitializedBuffer):
            raise InputError(f"{name}: not initialised yet; run the network on an image first")
        memo[id(buffer)] = change(buffer.detach())
    try:
        return deep_copied(model, memo)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"the network cannot be copied ({type(error).__name__}: {first_line(error)})"
        ) from error


def attribute_memo(
    model: nn.Module, change: Callable[[Tensor], Tensor] = lambda tensor: tensor.clone()
) -> dict[int, object]:
    """What `copy.deepcopy` has to know of tensors that modules keep as plain attributes.

    Each, without its history, goes through `change`: a tensor with a history cannot be copied. So
    do the tensors of parts that TorchScript compiled, which are copied here. Raises InputError for
    a model that TorchScript compiled as a whole.
    """
    memo: dict[int, object] = {}
    compiled: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{known}.") for known in compiled):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            if not path:
                raise InputError(
                    "the network: compiled by TorchScript, so that its layers cannot be cut; give "
                    "the module that it was made from"
                )
            compiled.append(path)
            memo[id(module)] = _compiled_copy(module, change)
            continue
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                for tensor in tensors_of(value):
                    memo[id(tensor)] = change(tensor.detach())
    return memo


def python_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with its path, but those that TorchScript compiled, which take no hooks.

    >>> [path for path, _ in python_modules(nn.Sequential(nn.ReLU()))]
    ['', '0']
    """
    return [
        (path, module)
        for path, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
    ]


def _compiled_copy(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a part that TorchScript compiled, its tensors gone through `change`."""
    made = copy.deepcopy(module)
    for part in made.modules():
        inner: Any = getattr(part, "_c")  # noqa: B009 (no other way sets them)
        own = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
        for name, tensor in own.items():
            inner.setattr(name, change(tensor.detach()).requires_grad_(tensor.requires_grad))
    return made


def put_forward(module: nn.Module, forward: object) -> None:
    """Give a module back the `forward` of its own that it had beside its class's; None for none.

    >>> module = nn.ReLU()
    >>> module.forward = lambda x: x
    >>> put_forward(module, None)
    >>> "forward" in vars(module)
    False
    """
    if forward is None:
        vars(module).pop("forward", None)
    else:
        vars(module)["forward"] = forward


def is_chain(module: nn.Module) -> bool:
    """Whether a module's children run one after the other and nothing else happens in it.

    An EfficientNet stage, a ConvNormActivation or an MLP is an `nn.Sequential` too; a class or an
    object with a `forward` of its own is not one any more.

    >>> is_chain(nn.Sequential(nn.ReLU())), is_chain(nn.ReLU())
    (True, False)
    """
    if isinstance(module, torch.jit.ScriptModule):
        return False
    return type(module).forward is nn.Sequential.forward and "forward" not in vars(module)


def tensors_of(result: object) -> list[Tensor]:
    """All tensors in nested lists, tuples, mappings, records and plain objects, in order.

    >>> len(tensors_of({"out": torch.zeros(2), "aux": [torch.zeros(1), None]}))
    2
    """
    return _tensors_of(result, set())


def _tensors_of(result: object, seen: set[int]) -> list[Tensor]:
    if type(result) in PLAIN:  # most attributes of modules
        return []
    if isinstance(result, Tensor):
        return [result]
    parts: list[object] = []
    if id(result) in seen or isinstance(result, nn.Module | type):
        return []
    if isinstance(result, Mapping):
        parts = list(result.values())
    elif isinstance(result, list | tuple | set | frozenset):
        parts = list(result)
    else:
        parts = [getattr(result, name, None) for name in record_fields(result)]
    seen = seen | {id(result)}
    return [tensor for part in parts for tensor in _tensors_of(part, seen)]


def record_fields(value: object) -> list[str]:
    """The names of what a dataclass or a namespace holds; of anything else none.

    >>> record_fields(SimpleNamespace(image=1, size=2)), record_fields("words")
    (['image', 'size'], [])
    """
    if is_dataclass(value) and not isinstance(value, type):
        return [one.name for one in fields(value)]
    return list(vars(value)) if isinstance(value, SimpleNamespace) else []


def first_line(error: BaseException) -> str:
    """The first line of what an exception says.

    >>> first_line(ValueError("wrong\\nand more"))
    'wrong'
    """
    return (str(error).strip().splitlines() or [""])[0]


def trace(model: nn.Module, *, size: int) -> Trace:
    """Run a model's shapes (no values) on an input of (2, 3, size, size); it is left untouched.

    >>> trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), size=8).output
    (2, 4, 6, 6)
    """
    bare = skeleton(model)
    started: dict[str, int] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    outputs: dict[str, tuple[int, ...]] = {}

    def watch(path: str, module: nn.Module) -> None:
        def before(_: nn.Module, args: tuple[object, ...]) -> None:
            started.setdefault(path, len(started))
            if len(args) == 1 and isinstance(args[0], Tensor):
                inputs.setdefault(path, tuple(args[0].shape))

        def after(_: nn.Module, args: tuple[object, ...], result: object) -> None:
            if isinstance(result, Tensor):
                outputs.setdefault(path, tuple(result.shape))

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    modules = dict(bare.named_modules())
    for path, module in modules.items():
        watch(path, module)
    first = next(bare.parameters())
    with torch.no_grad():
        result = bare(torch.empty(2, 3, size, size, dtype=first.dtype, device="meta"))
    order = _order(tuple(modules), started)
    weighted = tuple(p for p in order if isinstance(modules[p], nn.Conv2d | nn.Linear))
    state_layer, mode_layer = _owners(modules, order, weighted)
    shape = tuple(result.shape) if isinstance(result, Tensor) else ()
    return Trace(order, weighted, state_layer, mode_layer, inputs, outputs, shape)


def _order(paths: tuple[str, ...], started: dict[str, int]) -> tuple[str, ...]:
    def start(path: str) -> int:
        while path and path not in started:
            path = path.rpartition(".")[0]
        return started[path]

    # sorted() is stable: modules that start together keep their order of registration.
    return tuple(sorted(paths, key=start))


def _owners(
    modules: dict[str, nn.Module], order: tuple[str, ...], weighted: tuple[str, ...]
) -> tuple[dict[str, int], dict[str, int]]:
    rank = {path: place for place, path in enumerate(order)}
    ranks = [rank[path] for path in weighted]
    last = len(weighted) - 1
    state_layer: dict[str, int] = {}
    mode_layer: dict[str, int] = {}
    for path, module in modules.items():
        prefix = f"{path}." if path else ""
        within = [i for i, p in enumerate(weighted) if p == path or p.startswith(prefix)]
        if within:
            # A class token, a layer scale, an attention's input projection: frozen with the first
            # layer of the block that owns it; the block's own mode is fixed when all of it is.
            state_layer[path], mode_layer[path] = within[0], within[-1]
            continue
        following = bisect_left(ranks, rank[path])
        # A norm belongs to the layer before it, a dropout to the layer that it feeds.
        state_layer[path] = max(following - 1, 0)
        mode_layer[path] = (
            min(following, last) if isinstance(module, DROPOUTS) else max(following - 1, 0)
        )
    return state_layer, mode_layer
