"""Taking units out of a linear layer: which layer consumes them, the cut, and its parity."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.closures import deep_copied
from secateurs.errors import InputError
from secateurs.nets.trace import attribute_memo, is_chain
from secateurs.prune.surgery.parity import compared, double

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.LogSigmoid,
    nn.Dropout,
    nn.AlphaDropout,
    nn.Identity,
)


@dataclass(frozen=True)
class Consumer:
    """The linear layer that reads a layer's units, and the elementwise modules before it."""

    path: str
    layer: nn.Linear
    between: tuple[nn.Module, ...]

    def after(self, output: Tensor) -> Tensor:
        """What the consumer receives for an output of the layer; the output is left as it is."""
        result = output.clone() if self.between else output
        for module in self.between:
            result = module(result)
        return result


def prunable_layers(model: nn.Module) -> tuple[str, ...]:
    """Paths of the linear layers whose units can be removed, in order.

    >>> prunable_layers(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ('0',)
    """
    paths: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and isinstance(_follow(model, path), Consumer):
            paths.append(path)
    return tuple(paths)


def find_consumer(model: nn.Module, path: str) -> Consumer:
    """The linear layer that reads the units of the one at `path`, within a chain of modules.

    Only elementwise modules may stand between. Raises InputError for an unknown layer, one that is
    not linear, and one whose consumer cannot be found (what is in the way, and what would do).

    >>> find_consumer(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "0").path
    '2'
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if path not in modules or path == "":
        possible = prunable_layers(model)
        near = difflib.get_close_matches(path, possible, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise InputError(f"layer {path!r} is unknown{hint} {_possible(possible)}")
    if not isinstance(modules[path], nn.Linear):
        raise InputError(
            f"layer {path}: expected a Linear, got {type(modules[path]).__name__} "
            f"{_possible(prunable_layers(model))}"
        )
    found = _follow(model, path)
    if isinstance(found, str):
        raise InputError(
            f"layer {path}: no linear layer found that reads its units, {found} "
            f"{_possible(prunable_layers(model))}"
        )
    return found


def _possible(paths: tuple[str, ...]) -> str:
    return f"(layers that can be pruned: {', '.join(paths) or 'none'})"


def _follow(model: nn.Module, path: str) -> Consumer | str:
    """Walk on from `path`; return the consumer or, in words, what stands in the way."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if sum(module is modules[path] for module in modules.values()) > 1:
        return "the layer is used more than once"
    top = path
    while top and is_chain(modules[top.rpartition(".")[0]]):
        top = top.rpartition(".")[0]
    if top == path:
        return "it does not stand in a chain (nn.Sequential)"
    chain = _chain(modules[top], top)
    position = [name for name, _ in chain].index(path)
    between: list[nn.Module] = []
    for name, module in chain[position + 1 :]:
        if isinstance(module, nn.Linear):
            if sum(other is module for other in modules.values()) > 1:
                return f"{name} that follows is used more than once"
            return Consumer(name, module, tuple(between))
        if not isinstance(module, ELEMENTWISE):
            return f"{type(module).__name__} ({name}) stands between"
        between.append(module)
    return "it is the last of its sequence"


def _chain(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """The modules that run one after the other in nested nn.Sequential, with their paths."""
    if not is_chain(module):
        return [(prefix, module)]
    steps: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        steps += _chain(child, f"{prefix}.{name}" if prefix else name)
    return steps


def check_survivors(survivors: Tensor, num_units: int) -> Tensor:
    """Return int64 unit indices; raises InputError when empty, repeated or outside the layer."""
    if survivors.ndim != 1 or survivors.is_floating_point() or survivors.dtype == torch.bool:
        raise InputError(
            f"survivors: expected a 1-D tensor of unit indices, got {survivors.dtype} "
            f"of shape {tuple(survivors.shape)}"
        )
    survivors = survivors.long()
    if len(survivors) == 0:
        raise InputError("survivors: every unit would be removed; keep at least one")
    least, most = int(survivors.min()), int(survivors.max())
    if least < 0 or most >= num_units:
        wrong = least if least < 0 else most
        raise InputError(f"survivors: unit {wrong} is outside 0..{num_units - 1}")
    if len(survivors.unique()) != len(survivors):
        raise InputError("survivors: a unit is listed twice")
    return survivors


def remove_units(
    model: nn.Module,
    path: str,
    survivors: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    incoming_weight: Tensor | None = None,
    incoming_bias: Tensor | None = None,
) -> nn.Module:
    """A copy of `model` whose linear layer at `path` has only the units in `survivors`.

    `weight` (outputs, survivors) and `bias` (outputs,) replace those of the layer that reads them;
    without, its columns and bias stay as they are. `incoming_weight` (survivors, inputs) and
    `incoming_bias` (survivors,) replace the survivors' own. Nothing is shared with the model given,
    which is not changed. Raises InputError as `find_consumer` does, and when no unit would
    survive or a shape does not fit.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> remove_units(model, "0", torch.tensor([0, 2]))[2]
    Linear(in_features=2, out_features=2, bias=True)
    """
    consumer = find_consumer(model, path)
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    survivors = check_survivors(survivors, layer.out_features)
    following = consumer.layer
    shape = (following.out_features, len(survivors))
    if weight is not None and weight.shape != shape:
        raise InputError(f"weight: expected shape {shape}, got {tuple(weight.shape)}")
    if bias is not None and bias.shape != shape[:1]:
        raise InputError(f"bias: expected shape {shape[:1]}, got {tuple(bias.shape)}")
    inside = (len(survivors), layer.in_features)
    if incoming_weight is not None and incoming_weight.shape != inside:
        raise InputError(
            f"incoming_weight: expected shape {inside}, got {tuple(incoming_weight.shape)}"
        )
    if incoming_bias is not None and incoming_bias.shape != inside[:1]:
        raise InputError(
            f"incoming_bias: expected shape {inside[:1]}, got {tuple(incoming_bias.shape)}"
        )
    rows = survivors.to(layer.weight.device)
    columns = survivors.to(following.weight.device)
    new_weight = following.weight.detach()[:, columns] if weight is None else weight
    new_bias = following.bias if bias is None else bias
    # Known to deepcopy beforehand, so that the large weights are never copied only to be cut.
    memo = attribute_memo(model) | {
        id(layer): _linear(
            layer,
            layer.weight.detach()[rows] if incoming_weight is None else incoming_weight,
            _rows(layer.bias, rows) if incoming_bias is None else incoming_bias,
        ),
        id(following): _linear(following, new_weight, new_bias),
    }
    return deep_copied(model, memo)


def _rows(bias: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if bias is None else bias.detach()[rows]


def _linear(like: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with copies of these parameters, otherwise as `like`."""
    layer = nn.Linear(1, 1, bias=bias is not None, device="meta")
    layer.out_features, layer.in_features = weight.shape
    for name, value in (("weight", weight), ("bias", bias)):
        if value is None:
            continue
        old = getattr(like, name)
        old = like.weight if old is None else old
        fresh = value.detach().to(device=old.device, dtype=old.dtype).clone()
        setattr(layer, name, nn.Parameter(fresh, requires_grad=old.requires_grad))
    layer.train(like.training)
    return layer


def parity(
    model: nn.Module,
    path: str,
    survivors: Tensor,
    inputs: Tensor,
    *,
    run: Callable[[nn.Module, Tensor], Tensor] | None = None,
    pruned: nn.Module | None = None,
) -> float:
    """Largest difference of outputs between removing units and zeroing them after activation.

    Relative to how far zeroing them moves the outputs (see `parity.compared`), in float64 copies,
    so that anything above 1e-5 is a wrong cut and no rounding. `pruned` (default: made here by
    `remove_units`) must have its units dropped without compensation. `inputs` is one batch for
    `run(model, inputs)`, by default the model itself.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> parity(model, "0", torch.tensor([0, 2]), torch.ones(5, 4)) < 1e-5
    True
    """
    units = find_consumer(model, path).layer.in_features
    mask = torch.zeros(units, dtype=torch.bool)
    mask[check_survivors(survivors, units).cpu()] = True

    @contextmanager
    def zeroing(network: nn.Module) -> Generator[None]:
        def zero(_: nn.Module, received: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            gone = (~mask).nonzero().flatten().to(received[0].device)
            return (received[0].index_fill(-1, gone, 0.0), *received[1:])

        handle = find_consumer(network, path).layer.register_forward_pre_hook(zero)
        try:
            yield
        finally:
            handle.remove()

    def narrowed(network: nn.Module) -> nn.Module:
        return remove_units(network, path, survivors) if pruned is None else double(pruned)

    return compared(model, inputs, zeroing, narrowed, run=run or _call, redrawn=pruned is None)


def _call(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)
