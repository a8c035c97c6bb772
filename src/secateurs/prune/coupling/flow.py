"""Which channels of which layers go together, found by following units through a run on shapes.

The network runs once on a tensor without values. Every output of a layer gets a number, and each
operation says what becomes of the numbers: moving elements moves them, adding two tensors ties
them, a norm over channels ties all of its channels into one unit. An operation that is not known
makes what goes in stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateurs.nets.attention import BiasedAttention
from secateurs.nets.batches import Batch, Run, map_tensors
from secateurs.nets.layers import BATCH_NORMS, LAYERS, TRANSPOSED
from secateurs.nets.trace import tensors_of
from secateurs.prune.coupling.members import Side
from secateurs.prune.coupling.operations import Operations, Product
from secateurs.prune.coupling.union_find import UnionFind

OUTPUT = "output"
WEIGHTED = {
    *("linear", "convolution", "conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
LARGER = (1, 2, 4)  # times the size of the sample, on which a network is tried in training


@dataclass
class Event:
    """What a layer did: numbers (channels,) of the units it makes, reads or passes on."""

    path: str
    side: Side
    numbers: Tensor


@dataclass(frozen=True)
class Followed:
    """The union-find of numbers, what each layer did, and what was multiplied, in running order."""

    ties: UnionFind
    events: list[Event]
    products: list[Product]


@dataclass
class _Layers:
    """Layers by the identity of the tensors that they compute with."""

    weights: dict[int, tuple[str, nn.Module]] = field(default_factory=dict)
    norms: dict[int, str] = field(default_factory=dict)


def follow(bare: nn.Module, sample: Batch, run: Run) -> Followed:
    """Run a network without values (see `skeleton`) on a sample without values.

    Returns the ties between numbers, what each convolution, linear layer and batch norm did, in
    the order in which they ran, and the products of those layers and of attention. What the network
    gives is fixed for the reason `OUTPUT`. Where layers do not run in evaluation, as auxiliary
    heads, it runs in training too: what they read stays as well.
    """
    flow = _Flow(bare)
    _run(flow, bare, sample, run)
    found = Followed(flow.ties, flow.events, flow.products)
    ran = {event.path for event in flow.events}
    idle = [
        path
        for path, module in bare.named_modules()
        if isinstance(module, LAYERS) and path not in ran
    ]
    if idle:
        _train(flow, bare, sample, run, found.events, set(idle))
    return found


def _train(
    flow: _Flow, bare: nn.Module, sample: Batch, run: Run, first: list[Event], idle: set[str]
) -> None:
    """Fix what layers read that did not run in evaluation, where they run in training."""
    for times in LARGER:  # an auxiliary head may need a larger sample than the network does
        flow.events, flow.products, flow.stack = [], [], []
        larger = map_tensors(sample, lambda tensor, times=times: _pair(tensor, times))
        try:
            _run(flow, bare.train(), larger, run)
            break
        except Exception:  # it does not train on such a sample: what ran until then is known
            continue
        finally:
            bare.eval()
    known = {(event.path, event.side): event.numbers for event in first}
    for event in flow.events:
        same = known.get((event.path, event.side))
        if same is not None and same.shape == event.numbers.shape:
            flow.ties.tie(same, event.numbers)
        elif event.path in idle:
            flow.ties.fix(event.numbers, f"{event.path} reads it, which runs in training only")


def _pair(tensor: Tensor, times: int) -> Tensor:
    """Two samples for one, maps of values `times` as high and wide."""
    if not tensor.ndim:
        return tensor
    places = tensor.shape[1:]
    if tensor.ndim > 3:
        places = (*places[:-2], *(times * side for side in places[-2:]))
    return torch.empty((2 * len(tensor), *places), dtype=tensor.dtype, device=tensor.device)


def _run(flow: _Flow, bare: nn.Module, sample: Batch, run: Run) -> None:
    handles = [
        module.register_forward_pre_hook(flow.enter(path)) for path, module in bare.named_modules()
    ]
    handles += [module.register_forward_hook(flow.leave) for module in bare.modules()]
    try:
        with torch.inference_mode(), flow:
            result = run(bare, sample)
    finally:
        for handle in handles:
            handle.remove()
    for tensor in tensors_of(result):
        if (numbers := flow.numbers_of(tensor)) is not None:
            flow.ties.fix(numbers, OUTPUT)


class _Flow(Operations, TorchDispatchMode):
    """Sees every operation; `kept` holds on to all tensors, so that an identity stays one's own."""

    def __init__(self, bare: nn.Module) -> None:
        Operations.__init__(self)
        TorchDispatchMode.__init__(self)
        self.events: list[Event] = []
        self.kept: list[Tensor] = []
        self.layers = _Layers()
        tied: set[int] = set()  # one weight in several layers
        for path, module in bare.named_modules():
            if isinstance(module, LAYERS):
                # A weight that is computed from others is no parameter, and new in every run.
                weight = dict(module.named_parameters(recurse=False)).get("weight")
                if weight is not None:
                    tied |= {id(weight)} & self.layers.weights.keys()
                    self.layers.weights[id(weight)] = (path, module)
            elif isinstance(module, BATCH_NORMS):
                for tensor in (module.weight, module.running_mean):
                    if tensor is not None:
                        self.layers.norms[id(tensor)] = path
            elif isinstance(module, BiasedAttention):
                self._heads(path, module)
        for weight in tied:
            del self.layers.weights[weight]

    def _heads(self, path: str, module: BiasedAttention) -> None:
        """Numbers for the rows of its parameters, of which each head has one."""
        own = list(module.parameters(recurse=False))
        made = self.ties.fresh(len(own[0]))
        self.events.append(Event(path, "both", made))
        for parameter in own:
            self.numbers[id(parameter)] = made.reshape(-1, *[1] * (parameter.ndim - 1))

    def enter(self, path: str) -> Callable[..., None]:
        """A hook that notes the module whose operations follow."""
        return lambda module, _: self.stack.append(f"{type(module).__name__} {path}".strip())

    def leave(self, *_: object) -> None:
        """A hook that notes its end."""
        self.stack.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        name = name.rstrip("_") if not name.startswith("__") else name
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name.startswith(("new_", "empty", "zeros_like", "ones_like", "full_like", "rand")):
            return self._keep(func(*args, **kwargs))  # a tensor of its own
        layer = name in WEIGHTED or name == "batch_norm"
        if not layer and not any(id(tensor) in self.numbers for tensor in given):
            return self._keep(func(*args, **kwargs))
        rule = self._rule(name)
        if rule is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = self._keep(func(*args, **kwargs))
        try:
            if rule is None:
                raise NotImplementedError(name)
            rule(name, func, list(args), kwargs, out)
        except Exception:  # A form of the operation that the rule does not know.
            self._unknown(name, given)
            for leaf in tree_leaves(out):
                self.numbers.pop(id(leaf), None)
        return out

    def _keep(self, out: Any) -> Any:
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.kept.append(leaf)
        return out

    def _do_linear(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        self._layer(args[0], args[1], out, groups=1)

    def _do_conv2d(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        """Any convolution, by the names that its operation gives its arguments."""
        named = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        named |= dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kw
        transposed = named.get("transposed", "transpose" in func._schema.name)
        self._layer(
            named["input"],
            named["weight"],
            out,
            groups=named["groups"],
            transposed=transposed,
        )

    _do_conv1d = _do_conv3d = _do_convolution = _do_conv2d
    _do_conv_transpose1d = _do_conv_transpose2d = _do_conv_transpose3d = _do_conv2d

    def _layer(
        self, x: Tensor, weight: Tensor, out: Tensor, *, groups: int, transposed: bool = False
    ) -> None:
        known = self.layers.weights.get(id(weight))
        numbers = self.numbers_of(x)
        if known is None or isinstance(known[1], TRANSPOSED) != transposed:
            why = f"{self._where()} reads it with weights that are no layer's"
            for tensor in (x, weight):
                if (some := self.numbers_of(tensor)) is not None:
                    self.ties.fix(some, why)
            return
        path, axis = known[0], 1 - weight.ndim
        outputs, inputs = weight.shape[:2]
        if transposed:
            outputs, inputs = inputs * groups, outputs
        else:
            inputs *= groups
        read = self._channels(numbers, inputs, axis)
        # A transposed convolution multiplies at each place of its input, others of their output.
        places = x.numel() // inputs if transposed else out.numel() // outputs
        kernel = weight[0, 0].numel()
        if groups == 1:
            made = self.ties.fresh(outputs)
            self.multiplied(places * kernel, (outputs, inputs), [(made, (0,)), (read, (1,))])
            if bool(read.any()):
                self.events.append(Event(path, "in", read))
            self.events.append(Event(path, "out", made))
        else:
            # A unit is one of the convolution's groups: what it reads and makes goes together.
            unit = self.ties.fresh(groups)
            rows = read.reshape(groups, -1)
            self.ties.tie(rows, unit[:, None])
            self.ties.fix(unit[(rows == 0).any(1)], f"{self._where()} also reads what has to stay")
            made = unit.repeat_interleave(outputs // groups)
            self.multiplied(places * kernel * (inputs // groups), (outputs,), [(made, (0,))])
            self.events.append(Event(path, "both", made))
        shape = [1] * out.ndim
        shape[axis] = outputs
        self._set(out, made.reshape(shape))

    def _do_batch_norm(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        x = args[0]
        path = next((p for t in (args[1], args[3]) if (p := self.layers.norms.get(id(t)))), None)
        numbers = self.numbers_of(x)
        if numbers is None:
            return
        if path is None:
            self.ties.fix(numbers, f"{self._where()} norms it with what is no layer's")
            return
        passed = self._channels(numbers, x.shape[1], 1)
        for event in self.events:
            if event.path == path:  # its channels would go with the units of both places
                self.ties.fix(event.numbers, f"{self._where()} runs more than once")
                self.ties.fix(passed, f"{self._where()} runs more than once")
        self.events.append(Event(path, "both", passed))
        self._set(out, passed.reshape([1, -1, *[1] * (x.ndim - 2)]))
