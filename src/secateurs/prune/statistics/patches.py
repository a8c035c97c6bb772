"""What a layer multiplies its weights with: patches of its input at some positions, as rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import (
    Batch,
    Run,
    all_finite,
    copied_batch,
    forward,
    num_samples,
    samples,
)
from secateurs.nets.layers import LAYERS, matrix
from secateurs.nets.trace import check_device, eval_mode, skeleton, tensors_of
from secateurs.prune.statistics.parts import parts_of
from secateurs.prune.statistics.products import is_plain, product
from secateurs.prune.statistics.rows import by_place, mean_rows, outputs_at
from secateurs.prune.statistics.rows import rows_of as rows_of

Visit = Callable[[str, Tensor, Tensor, int], None]


class _Reached(Exception):
    """Every layer asked for has run: the rest of the network is not needed."""


def _check_rows(path: str, layer: nn.Module, rows: Tensor, outputs: Tensor) -> None:
    """Raise InputError where a layer of its own class does not multiply the rows by its weights."""
    if is_plain(layer):
        return
    assert isinstance(layer, LAYERS)
    bias = 0 if layer.bias is None else layer.bias
    expected = rows @ matrix(layer).T + bias
    scale = max(float(expected.abs().max()), float(outputs.abs().max())) if len(rows) else 0.0
    if not torch.allclose(expected, outputs, rtol=0, atol=1e-2 * scale):
        raise InputError(
            f"layer {path}: its class {type(layer).__name__} does more than multiply its input by "
            "its weights, which is not known"
        )


def visit_rows(
    model: nn.Module,
    layers: Mapping[str, int],
    batches: Sequence[Batch],
    visit: Visit,
    *,
    run: Run = forward,
    seed: int = 0,
    drawn_as: Mapping[str, str] | None = None,
    repeats: Mapping[str, int] | None = None,
    at_once: int | None = None,
    known: bool = False,
    unrun: bool = False,
    means: Callable[[str, Tensor], None] | None = None,
    advance: Callable[[int], None] = lambda samples: None,
) -> None:
    """Run the batches and call `visit(path, rows, outputs, samples)` for each layer and batch.

    `layers` says at how many positions of a sample each is looked at (all when it has fewer). The
    positions depend on the seed, the layer's path, the size of its output and the batch's number
    alone, so that another network of the same layers is looked at in the same places; `drawn_as`
    looks at a layer in the places of another. `repeats` says how often layers run that run more
    than once: their rows of all runs come together, one run's positions after the other's. No batch
    runs further than the last of the layers. No more than `at_once` samples run at once, which
    changes no position. With `unrun` a batch ends before a layer asked for alone, where that works
    as PyTorch's class does and runs once; then `outputs` has no columns. `means(path, rows)` gets
    before the rows of a layer that runs once their mean (samples, inputs) over all places, where
    there are several. Raises InputError when one of the layers does not run as often, and for
    batches as `check_batches` does, unless they are `known` to be right.
    """

    def give(path: str, rows: Tensor, outputs: Tensor, number: int) -> None:
        # A network in float32 may compute in half precision by itself.
        visit(path, wide(rows), wide(outputs), number)

    seen: dict[str, int] = {}
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    often = {path: (repeats or {}).get(path, 1) for path in layers}
    drawn = _Positions(seed)
    if not known:
        check_batches(model, batches)

    def before(path: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        assert isinstance(layer, LAYERS)
        bare = skeleton(layer)

        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            received = args[0] if args else kwargs["input"]
            blank = torch.empty_like(received, dtype=layer.weight.dtype, device="meta")
            shape = bare.forward(blank).shape  # without hooks of its own
            output = received.new_empty(shape)  # never written: memory is not taken
            place = (drawn_as or {}).get(path, path)
            position = drawn.of(layer, output, layers[path], place)
            rows = rows_of(layer, received, output, position)
            give(path, rows, rows[:, :0], len(position))
            raise _Reached

        return layer.register_forward_pre_hook(hook, with_kwargs=True)

    def watch(path: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(
            _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
        ) -> None:
            seen[path] = seen.get(path, 0) + 1
            if seen[path] > often[path]:
                raise InputError(f"layer {path} runs more often for some samples than for others")
            place = (drawn_as or {}).get(path, path)
            made = product(layer, args, kwargs, output, path=path)
            position = drawn.of(made.layer, made.output, layers[path], place)
            rows = rows_of(made.layer, made.received, made.output, position)
            outputs = outputs_at(made.layer, made.output, position)
            _check_rows(path, layer, rows, outputs)
            if (
                means is not None
                and often[path] == 1
                and by_place(made.layer, made.output).shape[1] > 1
            ):
                mean = mean_rows(made.layer, made.received, made.output)
                if mean is not None:
                    means(path, wide(mean))
            if often[path] > 1:
                parts.setdefault(path, []).append((rows, outputs))
                if len(parts[path]) < often[path]:
                    return
                rows, outputs = map(torch.cat, zip(*parts[path], strict=True))
            give(path, rows, outputs, len(position))
            if seen == often:
                raise _Reached

        return layer.register_forward_hook(hook, with_kwargs=True)

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for path in layers:
        layer = model.get_submodule(path)
        early = unrun and often == {path: 1} and is_plain(layer)
        handles.append(before(path, layer) if early else watch(path, layer))
    try:
        with torch.no_grad(), eval_mode(model):
            for part in drawn.parts(batches, at_once):
                seen.clear()
                parts.clear()
                try:
                    run(model, part)
                except _Reached:
                    advance(num_samples(part))
                    continue
                missing = next(path for path in layers if seen.get(path) != often[path])
                raise InputError(
                    f"layer {missing} runs more often for some samples than for others"
                    if missing in seen
                    else f"layer {missing} does not run"
                )
    finally:
        for handle in handles:
            handle.remove()


def wide(tensor: Tensor) -> Tensor:
    """Numbers of half precision as float32, others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def count_runs(
    model: nn.Module, paths: Sequence[str], batches: Sequence[Batch], *, run: Run = forward
) -> dict[str, list[int]]:
    """How often each layer runs in each of the batches, by path.

    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> count_runs(net, ["0"], [torch.zeros(1, 2)])
    {'0': [1]}
    """
    counts: dict[str, list[int]] = {path: [] for path in paths}

    def count(path: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            counts[path][-1] += 1

        return hook

    handles = [model.get_submodule(p).register_forward_hook(count(p)) for p in paths]
    try:
        with torch.no_grad(), eval_mode(model):
            for batch in batches:
                for path in paths:
                    counts[path].append(0)
                run(model, copied_batch(batch))
    finally:
        for handle in handles:
            handle.remove()
    return counts


def unknown_products(
    model: nn.Module, paths: Sequence[str], batch: Batch, *, run: Run = forward
) -> dict[str, str]:
    """Why the rows of some layers cannot be found, by path: those whose class does more.

    >>> unknown_products(nn.Sequential(nn.Linear(2, 2)), ["0"], torch.zeros(1, 2))
    {}
    """
    odd = {path: layer for path in paths if not is_plain(layer := model.get_submodule(path))}
    reasons: dict[str, str] = {}
    drawn = _Positions(0)

    def watch(path: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> None:
            try:
                made = product(layer, args, kwargs, output, path=path)
                position = drawn.of(made.layer, made.output, 16, path)
                rows = rows_of(made.layer, made.received, made.output, position)
                _check_rows(path, layer, rows, outputs_at(made.layer, made.output, position))
            except InputError as error:
                reasons[path] = str(error)

        return layer.register_forward_hook(hook, with_kwargs=True)

    handles = [watch(path, layer) for path, layer in odd.items()]
    try:
        if odd:
            with torch.no_grad(), eval_mode(model):
                for part in drawn.parts([batch], None):
                    run(model, copied_batch(part))
    finally:
        for handle in handles:
            handle.remove()
    return reasons


def check_batches(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Raise InputError unless there are samples, all finite, on the model's device."""
    if not any(num_samples(batch) for batch in batches):
        raise InputError("batches: no samples to measure anything on")
    check_device(model, batches[0])
    for batch in batches:
        if not all_finite(batch):
            raise InputError("batches: values that are not finite (NaN or infinite)")


def fewest_positions(
    model: nn.Module, paths: Sequence[str], batches: Sequence[Batch], *, run: Run = forward
) -> dict[str, int]:
    """The least number of positions that each layer has in a sample of any batch.

    Looked up in one sample of each size that occurs. Empty where all samples are of one size.
    """
    sizes = {_sizes(batch): batch for batch in reversed(batches) if num_samples(batch)}
    if len(sizes) < 2:
        return {}
    found: dict[str, int] = {}

    def watch(path: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            num = by_place(layer, output).shape[1]
            found[path] = min(num, found.get(path, num))

        return layer.register_forward_hook(hook)

    handles = [watch(path, model.get_submodule(path)) for path in paths]
    try:
        with torch.no_grad(), eval_mode(model):
            for batch in sizes.values():
                run(model, samples(batch, slice(0, 1)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _sizes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    """The sizes of a sample's tensors."""
    return tuple(tuple(tensor.shape[1:]) for tensor in tensors_of(batch))


class _Positions:
    """Where layers are looked at: places drawn for each batch, however it is run."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number, self.start, self.num, self.whole = seed, 0, 0, 0, 0
        self.drawn: dict[tuple[str, int, int], Tensor] = {}

    def parts(self, batches: Sequence[Batch], at_once: int | None) -> Generator[Batch]:
        """The batches in parts; what is drawn meanwhile is for the part given last."""
        for self.number, batch in enumerate(batches):
            self.drawn.clear()
            self.start, self.whole = 0, num_samples(batch)
            for part in parts_of(batch, at_once):
                self.num = num_samples(part)
                yield part
                self.start += self.num

    def of(self, layer: nn.Module, output: Tensor, wanted: int, path: str) -> Tensor:
        """Places (samples, positions) in the flattened space of a layer's output."""
        images, total = by_place(layer, output).shape[:2]
        each, rest = divmod(images, self.num) if self.num else (0, 1)
        if rest:  # what does not depend on the samples
            return self._draw(images, total, wanted, path, output.device)
        found = self._draw(each * self.whole, total, wanted, path, output.device)
        return found[each * self.start :][:images]

    def _draw(
        self, images: int, total: int, wanted: int, path: str, device: torch.device
    ) -> Tensor:
        if total <= wanted:
            return torch.arange(total, device=device).expand(images, -1)
        key = (path, images, total)
        if key not in self.drawn:
            seed = zlib.crc32(f"{self.seed} {path} {self.number}".encode())
            generator = torch.Generator().manual_seed(seed)
            # The numbers are the same on every device; a graphics card orders them faster.
            draws = torch.rand(images, total, generator=generator).to(device)
            self.drawn[key] = draws.topk(wanted, dim=1).indices.sort(1).values
        return self.drawn[key]
