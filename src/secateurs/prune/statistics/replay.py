"""Batches run again and again up to one layer after another, what has run before kept.

When layers are changed in running order, a module that has returned before the next layer runs
gives the same output in every later run. Its output is kept and returned without running it.
Outputs that only modules read whose own outputs are kept are let go: what stays is the frontier.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from secateurs.nets.batches import Batch, Run, map_tensors, num_samples, samples
from secateurs.nets.trace import eval_mode, put_forward, python_modules, tensors_of

Hook = torch.utils.hooks.RemovableHandle


class Replay:
    """The kept outputs of modules for some batches; `memory` bounds them (bytes).

    `reach` says which layer the next pass over the batches is for; `run` then takes the place of
    the network's own run, batch after batch in their order, and the pass may end where that layer
    is reached. Modules are known by their paths, so that a changed copy of the network can take its
    place, as long as all layers that have run before stay as they are. Nothing is kept of modules
    that run more than once in a forward pass.
    """

    def __init__(self, batches: Sequence[Batch], run: Run, *, memory: int) -> None:
        self.batches, self.own_run, self.memory = batches, run, memory
        self.kept: dict[str, list[Any]] = {}  # outputs by module, one entry per batch
        self.uses: Uses | None = None
        self.new: dict[str, list[Any]] = {}  # what this pass keeps
        self.number = 0

    def fork(self) -> Replay:
        """The same for another copy of the network."""
        other = Replay(self.batches, self.own_run, memory=self.memory)
        other.kept = {path: [*outputs] for path, outputs in self.kept.items()}
        other.uses = self.uses
        return other

    def reach(self, model: nn.Module, path: str) -> None:
        """Prepare a pass up to the layer `path`: what returns before it and fits is kept.

        Where the frontier at that layer does not fit, the latest one before it that does is kept.
        """
        if self.uses is None:
            self.uses = uses_of(model, samples(self.batches[0], slice(0, 1)), self.own_run)
        if self.new and self.number:  # the pass before broke off: what it let go is lost
            self.kept = {}
        self.number, self.new = 0, {}
        order = self.uses.order
        for end in sorted((order[m][1] for m in self.uses.returned_before(path)), reverse=True):
            returned = {module for module, (_, last) in order.items() if last <= end}
            self.new = {
                module: []
                for module in sorted(returned, key=order.__getitem__)
                if not _is_in_any(_parent(module), returned) and not self._is_kept(module)
            }
            while refused := [module for module in self.new if not self._may_skip(module)]:
                for module in refused:
                    del self.new[module]
            if not self.new or self._frontier() <= self.memory:
                return
        self.new = {}

    def _frontier(self) -> int:
        """The size of what is still read when what is new is kept (bytes)."""
        assert self.uses is not None
        num = sum(map(num_samples, self.batches))
        skipped = {*self.kept, *self.new}
        return sum(
            self.uses.sample_bytes[path] * num if path in self.new else _bytes(self.kept[path])
            for path in skipped
            if not _is_in_any(_parent(path), skipped) and not self._only_skipped(path, skipped)
        )

    def run(self, model: nn.Module, batch: Batch) -> object:
        """Run the next batch; modules whose outputs are kept are not run."""
        number, self.number = self.number, self.number + 1
        given: dict[str, Any] = {}  # what modules return in this batch
        handles: list[Hook] = []
        skipped: dict[nn.Module, object] = {}
        try:
            for path, outputs in self.kept.items():
                module = model.get_submodule(path)
                # A copy, because what follows may work in place.
                given[path] = map_tensors(outputs[number], _own)
                skipped[module] = vars(module).get("forward")
                module.forward = _returning(given[path])
                # Its own hooks have changed the output already.
                handles.append(module.register_forward_hook(_returning(given[path])))
            for path in self.new:
                handles.append(
                    model.get_submodule(path).register_forward_hook(self._note(path, given))
                )
            return self.own_run(model, batch)
        finally:  # also where the layer asked for has been reached
            for module, forward in skipped.items():
                put_forward(module, forward)
            for handle in handles:
                handle.remove()
            self._settle(given, number)
            self._let_go(number)
            if number == len(self.batches) - 1:
                self._end_pass()

    def _note(self, path: str, given: dict[str, Any]) -> Callable[..., None]:
        dead = self._only_skipped(path, {*self.kept, *self.new})

        def hook(_: nn.Module, __: object, output: object) -> None:
            given[path] = output
            self.new[path].append(map_tensors(output, _shape_only if dead else torch.clone))

        return hook

    def _settle(self, given: dict[str, Any], number: int) -> None:
        """Keep as it is now what was written into by modules that will not run again."""
        assert self.uses is not None
        skipped = {*self.kept, *self.new}
        for path, output in given.items():
            writers = self.uses.writers.get(path, set())
            if writers and all(_is_in_any(writer, skipped) for writer in writers):
                outputs = self.new[path] if path in self.new else self.kept[path]
                if len(outputs) > number and not self._only_skipped(path, skipped):
                    outputs[number] = map_tensors(output, _own)

    def _let_go(self, number: int) -> None:
        """Give back the memory of a batch's outputs that are not read any more."""
        if all(len(outputs) > number for outputs in self.new.values()):
            skipped = {*self.kept, *self.new}
            for path, outputs in self.kept.items():
                if _is_in_any(_parent(path), skipped) or self._only_skipped(path, skipped):
                    outputs[number] = map_tensors(outputs[number], _shape_only)

    def _may_skip(self, module: str) -> bool:
        """Whether what a module writes into the outputs of others is kept as well.

        An output is not kept where some that write into it are skipped and others run.
        """
        assert self.uses is not None
        skipped = {*self.kept, *self.new}
        for path, writers in self.uses.writers.items():
            inside = [_is_in_any(writer, skipped) for writer in writers]
            if path == module and any(inside) and not all(inside):
                return False
            writes = any(is_within(writer, module) for writer in writers)
            kept = _is_in_any(path, skipped) and all(inside)
            if writes and not is_within(path, module) and not kept:
                return False
        return True

    def _end_pass(self) -> None:
        if any(len(outputs) != len(self.batches) for outputs in self.new.values()):
            self.kept = {}  # a module did not run on some batch
        else:
            for path, outputs in self.new.items():
                for inner in [known for known in self.kept if is_within(known, path)]:
                    del self.kept[inner]
                self.kept[path] = outputs
        self.new = {}

    def _is_kept(self, path: str) -> bool:
        return _is_in_any(path, self.kept)

    def _only_skipped(self, path: str, skipped: set[str]) -> bool:
        """Whether only modules that are not run read the output of one."""
        assert self.uses is not None
        return all(_is_in_any(reader, skipped) for reader in self.uses.readers[path])


def _is_in_any(path: str, others: Container[str]) -> bool:
    while path and path not in others:
        path = _parent(path)
    return path in others


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def is_within(path: str, other: str) -> bool:
    """Whether a module is another or lies within it, by their paths."""
    return path == other or path.startswith(f"{other}.")


def _returning(output: Any) -> Callable[..., Any]:
    return lambda *_, **__: output


def _own(tensor: Tensor) -> Tensor:
    """A copy, but of what has a shape only."""
    return tensor if _is_shape(tensor) else tensor.clone()


def _shape_only(tensor: Tensor) -> Tensor:
    """A tensor of the same shape that takes no memory."""
    return torch.zeros(1, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def _is_shape(tensor: Tensor) -> bool:
    return tensor.numel() > 1 and not any(tensor.stride())


def _bytes(output: Any) -> int:
    return sum(
        0 if _is_shape(tensor) else tensor.numel() * tensor.element_size()
        for tensor in tensors_of(output)
    )


@dataclass(frozen=True)
class Uses:
    """What one forward pass shows of each module that runs once, by path.

    `readers` are the modules whose own operations read its output ("" where the network itself
    does or returns it), `writers` those whose operations change it in place; `sample_bytes` is the
    size of its output for one sample; `order` has for each module the places among all beginnings
    and ends at which it begins and returns.
    """

    readers: dict[str, set[str]]
    writers: dict[str, set[str]]
    sample_bytes: dict[str, int]
    order: dict[str, tuple[int, int]]

    def returned_before(self, path: str) -> list[str]:
        """Modules that have returned when the layer `path` begins."""
        begin = self.order[path][0] if path in self.order else -1
        return [module for module, (_, end) in self.order.items() if end < begin]


def uses_of(model: nn.Module, sample: Batch, run: Run) -> Uses:
    """Run one sample and note which modules read the outputs of which."""
    mode = _UseMode()
    handles: list[Hook] = []
    try:
        for path, module in python_modules(model):
            if path:
                handles.append(module.register_forward_pre_hook(mode.enter(path)))
                handles.append(module.register_forward_hook(mode.leave))
        with torch.no_grad(), eval_mode(model), mode:
            mode.read(run(model, sample), "")
    finally:
        for handle in handles:
            handle.remove()
    once = [path for path, places in mode.order.items() if len(places) == 2]
    return Uses(
        {path: mode.readers[path] for path in once},
        {path: mode.writers[path] for path in once if path in mode.writers},
        {path: mode.sizes[path] for path in once},
        {path: (mode.order[path][0], mode.order[path][1]) for path in once},
    )


class _UseMode(TorchDispatchMode):
    """Sees every operation, and knows the module that it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.order: dict[str, list[int]] = {}
        self.places = 0
        self.sizes: dict[str, int] = {}
        self.made: dict[int, set[str]] = {}  # the modules that returned a tensor, by identity
        self.readers: dict[str, set[str]] = {}
        self.writers: dict[str, set[str]] = {}
        self.held: list[Tensor] = []  # so that no other tensor gets the same identity

    def enter(self, path: str) -> Callable[..., None]:
        """A hook for the beginning of a module."""

        def hook(*_: object) -> None:
            self.stack.append(path)
            self._place(path)

        return hook

    def leave(self, _: nn.Module, __: object, output: object) -> None:
        """A hook for its end."""
        path = self.stack.pop()
        self._place(path)
        self.readers.setdefault(path, set())
        self.sizes[path] = _bytes(output)
        for tensor in tensors_of(output):
            self.held.append(tensor)
            self.made.setdefault(id(tensor), set()).add(path)

    def read(self, value: object, reader: str) -> None:
        """Note the reader of all tensors in a structure."""
        sources: set[str] = set()
        for tensor in tensors_of(value):
            sources |= self.made.get(id(tensor), set())
        for path in sources:
            self.readers[path].add(reader)

    def _place(self, path: str) -> None:
        self.order.setdefault(path, []).append(self.places)
        self.places += 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        here = self.stack[-1] if self.stack else ""
        self.read((args, kwargs), here)
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in tensors_of(changed):
                    for path in self.made.get(id(tensor), set()):
                        self.writers.setdefault(path, set()).add(here)
        out = func(*args, **kwargs)
        given: dict[int, set[str]] = {}  # the modules that returned what lies in a storage
        for tensor in tensors_of((args, kwargs)):
            place = tensor.untyped_storage().data_ptr()
            given.setdefault(place, set()).update(self.made.get(id(tensor), set()))
        for tensor in tensors_of(out):
            self.held.append(tensor)
            place = tensor.untyped_storage().data_ptr()
            if place in given:  # a view is read in the place of what it is a view of
                self.made.setdefault(id(tensor), set()).update(given[place])
        return out
