"""Which channels of which layers go together, found by following units through a run on shapes.

The network runs once on a tensor without values. Every output of a layer gets a number, and each
operation says what becomes of the numbers: moving elements moves them, adding two tensors ties
them, a norm over channels ties all of its channels into one unit. An operation that is not known
makes what goes in stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateurs.errors import InputError
from secateurs.nets.attention import BiasedAttention
from secateurs.nets.batches import Batch, Run, copied_batch, map_tensors
from secateurs.nets.layers import LAYERS
from secateurs.nets.trace import first_line, python_modules, tensors_of
from secateurs.prune.coupling.custom_layers import PassThrough
from secateurs.prune.coupling.layers import MAKING
from secateurs.prune.coupling.norm_layers import NormRules
from secateurs.prune.coupling.numbering import Event, Product
from secateurs.prune.coupling.own_norms import known_rule
from secateurs.prune.coupling.union_find import UnionFind, compact

OUTPUT = "output"
OWN = ("new_", "empty", "zeros", "ones", "full", "rand", "fill")
PLACED = frozenset({"expand_as", "view_as", "reshape_as", "type_as"})
VIEWS = frozenset(
    ["slice", "select", "narrow", "view", "transpose", "permute", "t", "unsqueeze", "squeeze"]
)
LARGER = (1, 2, 4)  # times the size of the sample, on which a network is tried in training


@dataclass(frozen=True)
class Followed:
    """The union-find of numbers, what each layer did, and what was multiplied, in running order.

    `returned` are by module the numbers of each tensor that it gave when it ran last, None where
    none are known of it.
    """

    ties: UnionFind
    events: list[Event]
    products: list[Product]
    contracted: list[Tensor]
    returned: dict[str, list[Tensor | None]]

    @property
    def chose(self) -> bool:
        """Whether units could have gone along another axis of a tensor as well."""
        return self.ties.chose


def follow(
    bare: nn.Module, sample: Batch, run: Run, *, second: bool = False, more: Batch = None
) -> Followed:
    """Run a network without values (see `skeleton`) on a sample without values.

    Returns the ties between numbers, what each convolution, linear layer and batch norm did, in
    the order in which they ran, and the products of those layers and of attention. What the network
    gives is fixed for the reason `OUTPUT`. Where layers do not run on the sample, as experts that
    values choose, the network runs on `more` samples; where they do not run in evaluation, as
    auxiliary heads, in training too: what they read stays as well. Where units could go along one
    of two axes of a tensor, `second` takes the other one.
    """
    flow = _Flow(bare, second=second)
    try:
        _run(flow, bare, sample, run)
    except InputError:
        raise
    except Exception as error:  # as of a network that differentiates itself
        raise InputError(
            "the network does not run without gradients, so that its layers cannot be followed "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    found = Followed(flow.ties, flow.events, flow.products, flow.contracted, {**flow.returned})
    if more is not None and _idle(flow, bare):
        flow.products, flow.stack, flow.inside = [], [], 0
        try:
            _run(flow, bare, copied_batch(more), run)
        except Exception:  # what ran until then is known, and the check comes
            flow.stack, flow.inside = [], 0
    unmet = _unmet(flow, bare)
    if unmet or _idle(flow, bare):
        _train(flow, bare, sample, run, unmet)
    return found


def _idle(flow: _Flow, bare: nn.Module) -> bool:
    """Whether there are layers that have not run."""
    ran = {event.path for event in flow.events}
    return any(
        isinstance(module, LAYERS) and path not in ran for path, module in bare.named_modules()
    )


def _unmet(flow: _Flow, bare: nn.Module) -> set[tuple[str, str]]:
    """Parameters and buffers that modules which have run did not use, by path and name."""
    return {
        (path, name)
        for path, module in python_modules(bare)
        if path in flow.returned and not isinstance(module, LAYERS)
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        )
        if id(tensor) in flow.origins and id(tensor) not in flow.met
    }


def _train(
    flow: _Flow, bare: nn.Module, sample: Batch, run: Run, unmet: set[tuple[str, str]]
) -> None:
    """Fix what layers read that did not run in evaluation, where they run in training.

    Parameters that are `unmet`, which a module uses in training alone, go with its units.
    """
    known, flow.products = len(flow.events), []
    # An auxiliary head may need a larger sample than the network does.
    for times in LARGER if _idle(flow, bare) else LARGER[:1]:
        flow.stack, flow.inside = [], 0
        larger = map_tensors(sample, lambda tensor, times=times: _pair(tensor, times))
        try:
            _run(flow, bare.train(), larger, run)
            break
        except Exception:  # it does not train on such a sample: what ran until then is known
            continue
        finally:
            bare.eval()
    kept: list[Event] = []
    for event in flow.events[known:]:
        if (event.path, event.tensor) in unmet:
            kept.append(event)
        else:
            why = f"{event.path} uses it, which does not run on this sample"
            flow.ties.fix(event.numbers, why)
    flow.events[known:] = kept


def _pair(tensor: Tensor, times: int) -> Tensor:
    """Two samples for one, maps of values `times` as high and wide."""
    if not tensor.ndim:
        return tensor
    places = tensor.shape[1:]
    if tensor.ndim > 3:
        places = (*places[:-2], *(times * side for side in places[-2:]))
    return torch.zeros((2 * len(tensor), *places), dtype=tensor.dtype, device=tensor.device)


def _run(flow: _Flow, bare: nn.Module, sample: Batch, run: Run) -> None:
    handles = [
        module.register_forward_pre_hook(flow.enter(path)) for path, module in python_modules(bare)
    ]
    handles += [module.register_forward_hook(flow.leave) for _, module in python_modules(bare)]
    try:
        with torch.inference_mode(), flow:
            result = run(bare, sample)
    finally:
        for handle in handles:
            handle.remove()
    flow.used(tensors_of(result))
    for tensor in tensors_of(result):
        if (numbers := flow.numbers_of(tensor)) is not None:
            flow.ties.fix(numbers, OUTPUT)


class _Flow(NormRules, TorchDispatchMode):
    """Sees every operation; `kept` holds on to all tensors, so that an identity stays one's own."""

    def __init__(self, bare: nn.Module, *, second: bool = False) -> None:
        NormRules.__init__(self, bare, second=second)
        TorchDispatchMode.__init__(self)
        self.kept: list[Tensor] = []
        self.views: dict[int, _View] = {}
        self.met: set[int] = set()  # tensors that were used, by identity
        self.inside = 0  # how many layers with a rule are running, one within the other
        self.returned: dict[str, list[Tensor | None]] = {}
        self.rules: dict[str, PassThrough] = {}
        for path, module in bare.named_modules():
            if isinstance(module, BiasedAttention):
                self._heads(path, module)
            if (rule := known_rule(module)) is not None:
                self.rules[path] = rule

    def _heads(self, path: str, module: BiasedAttention) -> None:
        """Numbers for the rows of its parameters, of which each head has one."""
        own = list(module.parameters(recurse=False))
        made = self.ties.fresh(len(own[0]))
        self.note(Event(path, "both", made))
        for parameter in own:
            self.numbers[id(parameter)] = made.reshape(-1, *[1] * (parameter.ndim - 1))

    def enter(self, path: str) -> Callable[..., None]:
        """A hook that notes the module whose operations follow."""

        def hook(_: nn.Module, __: object) -> None:
            self.stack.append(path)
            if path in self.rules:
                self.inside += 1

        return hook

    def leave(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        """A hook that notes its end."""
        path = self.stack.pop()
        rule = self.rules.get(path)
        if rule is not None:
            self.inside -= 1
            if not self.inside:
                self._pass_through(path, module, rule, args, output)
        self.returned[path] = [self.numbers_of(tensor) for tensor in tensors_of(output)]

    def _pass_through(
        self,
        path: str,
        module: nn.Module,
        rule: PassThrough,
        args: tuple[object, ...],
        output: object,
    ) -> None:
        """Numbers of what a layer with a rule gives."""
        given = [x for x in args if isinstance(x, Tensor)]
        found = tensors_of(output)
        if not given or len(found) != 1 or (numbers := self.numbers_of(given[0])) is None:
            self._unknown(type(module).__name__, given)
            return
        x, out = given[0], found[0]
        self._unknown(type(module).__name__, given[1:])
        passed = self._channels(numbers, x.shape[rule.axis], rule.axis)
        for name, axis in rule.tensors.items():
            tensor = getattr(module, name)
            whole = self.along(tensor, axis % tensor.ndim, passed)
            self.note(Event(path, "both", whole, name, axis % tensor.ndim, rule.norm))
        if out.shape[rule.axis] != len(passed):
            self._unknown(type(module).__name__, given)
            return
        axis = rule.axis % out.ndim
        self._set(out, passed.reshape([-1 if k == axis else 1 for k in range(out.ndim)]))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        name = name.rstrip("_") if not name.startswith("__") else name
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.met.update(map(id, given))
        if self.inside:
            return self._keep(func(*args, **kwargs))
        if name.startswith(OWN):
            out = self._keep(func(*args, **kwargs))  # a tensor of its own
            if "zeros" in name and isinstance(out, Tensor):
                self.neutral.add(id(out))
            elif ("full" in name or "ones" in name) and isinstance(out, Tensor):
                self.constant.add(id(out))
            return out
        self.used(given)
        numbered = any(id(tensor) in self.numbers for tensor in given)
        if name in PLACED and args and id(args[0]) not in self.numbers:
            numbered = False  # it takes a shape from another tensor
        if name not in MAKING and not numbered:
            if self._rule(name) is None and any(id(tensor) in self.origins for tensor in given):
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            out = self._keep(func(*args, **kwargs))
            of = given[:1] if name in ("index", "index_select", "gather") else given
            zero = bool(given) and all(id(tensor) in self.neutral for tensor in of)
            zero |= name == "mul" and any(id(tensor) in self.neutral for tensor in given)
            if zero or (name == "div" and id(args[0]) in self.neutral):
                if isinstance(out, Tensor):
                    self.neutral.add(id(out))
            elif name in ("cat", "concat"):
                axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
                self.note_pieces(args[0], axis % out.ndim, out)
                self.joined_origins(args[0], axis % out.ndim, out)
            elif any(id(tensor) in self.origins for tensor in given):
                self.move_origins(name, func, list(args), kwargs, out)
            if name in VIEWS and id(args[0]) in self.neutral:
                self._follow_views(name, func, args, kwargs, out)
            return out
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
        if name not in MAKING and any(id(tensor) in self.origins for tensor in given):
            self.move_origins(name, func, list(args), kwargs, out)
        self._follow_views(name, func, args, kwargs, out)
        return out

    def _follow_views(
        self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any
    ) -> None:
        """What is written into a part of a tensor is in the whole tensor as well."""
        if name in VIEWS and isinstance(out, Tensor):
            self.views[id(out)] = _View(args[0], lambda t: func(t, *args[1:], **kwargs))
        if not func._schema.is_mutable or not args or not isinstance(args[0], Tensor):
            return
        part, seen = args[0], set[int]()
        while id(part) not in seen and (view := self.views.get(id(part))) is not None:
            seen.add(id(part))  # under `vmap` a view may be of itself
            written = self.numbers_of(part)
            if written is not None and id(view.of) in self.neutral and _spreads(written, view.of):
                self._set(view.of, written)  # beside zeros, which go with any units
            else:
                full = self._full(view.of).clone()
                view.take(full).copy_(self._full(part))
                self._set(view.of, compact(full))
            part = view.of

    def _keep(self, out: Any) -> Any:
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.kept.append(leaf)
        return out


def _spreads(numbers: Tensor, whole: Tensor) -> bool:
    """Whether numbers of a part of a tensor are numbers of all of it."""
    return numbers.ndim == whole.ndim and all(
        size in (1, of) for size, of in zip(numbers.shape, whole.shape, strict=True)
    )


@dataclass(frozen=True)
class _View:
    """The tensor that another one is a part of, and what takes this part."""

    of: Tensor
    take: Callable[[Tensor], Tensor]
