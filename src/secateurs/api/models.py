"""A user's model made ready: unwrapped, copied, in float32, and how it runs on a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from secateurs.errors import InputError
from secateurs.nets.batches import (
    Batch,
    Run,
    Whole,
    all_finite,
    copied_batch,
    map_tensors,
    num_samples,
    samples,
    shape_words,
    zipped,
)
from secateurs.nets.trace import copied, eval_mode, first_line, tensors_of

HALF = (torch.float16, torch.bfloat16)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DataParallel or DistributedDataParallel.

    >>> type(unwrapped(nn.DataParallel(nn.Linear(2, 2)))).__name__
    'Linear'
    """
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def own_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose half-precision parameters and buffers are float32.

    All of its buffers are such as are saved: those that a cut changes are (see `as_unsaved`).
    Raises InputError for a model that cannot be copied, has no parameters, none with values, or one
    that is not finite.
    """
    model = unwrapped(model)
    parameters = dict(model.named_parameters())
    if not parameters:
        raise InputError("model: it has no parameters, so that there is nothing to prune")
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            continue
        if parameter.is_meta:
            raise InputError(f"model: {name} has a shape and no values (device meta)")
        if parameter.is_floating_point() and not bool(parameter.isfinite().all()):
            raise InputError(f"model: {name} has values that are not finite (NaN or infinite)")
    result = copied(
        model,
        lambda tensor: (
            tensor.to(torch.float32, copy=True) if tensor.dtype in HALF else tensor.clone()
        ),
    ).eval()
    for module in result.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            module._non_persistent_buffers_set = set()  # pyright: ignore[reportPrivateUsage]
    return result


def as_unsaved(pruned: nn.Module, model: nn.Module) -> None:
    """Leave out of a pruned model's `state_dict` the buffers that its own model leaves out."""
    own = dict(model.named_modules())
    for path, module in pruned.named_modules():
        if path in own and not isinstance(module, torch.jit.ScriptModule):
            names = own[path]._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
            module._non_persistent_buffers_set = {  # pyright: ignore[reportPrivateUsage]
                name
                for name in names
                if name in module._buffers  # pyright: ignore[reportPrivateUsage]
            }


def half_type(model: nn.Module) -> torch.dtype | None:
    """The half-precision type that most of a model's parameters have; None for other models."""
    counts = {
        dtype: sum(p.numel() for p in model.parameters() if p.dtype == dtype) for dtype in HALF
    }
    most = max(HALF, key=counts.__getitem__)
    return most if counts[most] > sum(p.numel() for p in model.parameters()) / 2 else None


def with_tensors(batch: Any, floats: torch.dtype | None = None) -> Batch:
    """The same structure with tensors in the place of NumPy arrays, of the same type.

    Where `floats` is given, arrays of float64, NumPy's default, become of that type.

    >>> with_tensors({"x": np.zeros(2)}, torch.float32), with_tensors([np.zeros(1, np.int16)])
    ({'x': tensor([0., 0.])}, [tensor([0], dtype=torch.int16)])
    """

    def change(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            tensor = torch.from_numpy(np.array(value))  # a copy: it may be read-only
            return tensor.to(floats) if floats and tensor.dtype == torch.float64 else tensor
        return value

    return zipped(change, batch, leaves=(np.ndarray, np.generic))


def on_device(batch: Batch, model: nn.Module) -> Batch:
    """A batch on the device of a model, its half-precision numbers as float32.

    NumPy arrays become tensors; those of float64 of the type of the model's parameters. Raises
    InputError for tensors that have shapes and no values.
    """
    batch = with_tensors(batch, _array_type(model))
    check_dense(batch, "batch")
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def moved(tensor: Tensor) -> Tensor:
        tensor = tensor.clone() if tensor.is_inference() else tensor
        tensor = tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)
        return tensor.to(device, torch.float32 if tensor.dtype in HALF else tensor.dtype)

    return map_tensors(batch, moved)


def _array_type(model: nn.Module) -> torch.dtype | None:
    """The type that NumPy's default becomes; None where it stays."""
    floats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return None if torch.float64 in floats else next(iter(floats), None)


def check_dense(batch: Batch, words: str) -> None:
    """Raise InputError for tensors without values, and for sparse and nested ones."""
    for tensor in tensors_of(batch):
        if tensor.is_meta:
            raise InputError(f"{words}: its tensors have shapes and no values (device meta)")
        if tensor.is_nested or tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else "sparse"
            raise InputError(
                f"{words}: {kind} tensors cannot be split into samples; give dense ones"
            )


@torch.no_grad()
def check_runs(
    model: nn.Module,
    batch: Batch,
    run: Callable[[nn.Module, Batch], object] | None = None,
    outputs: Callable[[Any], object] | None = None,
) -> None:
    """Raise InputError unless a model runs on a batch and gives floating-point tensors.

    The line says which of the two functions failed, on what, and how.
    """
    with eval_mode(model):
        try:
            found = (run or run_batch)(model, copied_batch(given(batch)))
        except Exception as error:  # whatever a model or a function of the user's raises
            raise InputError(
                f"forward: the model does not run on a batch of {shape_words(batch)}"
                f"{_types(model, batch)} ({type(error).__name__}: {first_line(error)})"
            ) from error
    words = "forward: the model"
    if any(tensor.is_inference() for tensor in tensors_of(found)):
        raise InputError(
            f"{words} runs in torch.inference_mode, in which nothing can be measured; leave that "
            "out, or take torch.no_grad"
        )
    if outputs is not None:
        words = "outputs: it"
        try:
            found = outputs(found)
        except Exception as error:
            raise InputError(
                f"outputs: it fails on what the model returns, {type(found).__name__} "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error
    if not any(tensor.is_floating_point() for tensor in tensors_of(real_numbers(found))):
        raise InputError(
            f"{words} gives no tensor of floating-point numbers, but {type(found).__name__}"
        )


def given(batch: Batch) -> Batch:
    """A batch as the user's functions get it."""
    return batch.parts if isinstance(batch, Whole) else batch


def samples_in_one(
    model: nn.Module,
    batch: Batch,
    run: Callable[[nn.Module, Batch], object] | None = None,
) -> int:
    """How many samples of a batch count as one; 0 for all of it.

    The first axis of the first tensor is that of the samples. Where the model does not run on
    single ones and runs on two and on three of them, as one that squeezes its output, two count as
    one. Where it does not run on these either, or gives values that are not finite or of another
    number, all of the batch is one: the nodes and edges of a graph, points of several clouds one
    after the other, or an image without an axis for samples.
    """
    num = num_samples(batch)
    runs = run or run_batch
    single = [samples(batch, slice(0, 1)), samples(batch, slice(min(1, num - 1), min(3, num)))]
    if num < 2 or all(_numbers(model, part, runs) is not None for part in single):
        return 1
    several = {size: samples(batch, slice(0, size)) for size in (2, 3)} if num > 2 else {}
    found = {size: _numbers(model, part, runs) for size, part in several.items()}
    if found and all(
        tensors is not None and all(len(t) == size for t in tensors if t.ndim)
        for size, tensors in found.items()
    ):
        return 2
    return 0 if _numbers(model, batch, runs) is not None else 1


def grouped(batch: Batch, count: int) -> list[Batch]:
    """A batch whose samples count as one each, or so many of them together; all of it with 0.

    >>> [len(part.parts) for part in grouped(torch.zeros(5), 2)]
    [2, 3]
    """
    num = num_samples(batch)
    if count == 1 or not num:
        return [batch]
    if not count:
        return [Whole(batch)]
    if num < count:  # on which the model does not run
        return []
    starts = range(0, max(num - 1, 1), count)  # no sample has a batch of its own
    stops = [*list(starts)[1:], num]
    parts = zip(starts, stops, strict=True)
    return [Whole(samples(batch, slice(start, stop))) for start, stop in parts]


@torch.no_grad()
def _numbers(
    model: nn.Module, batch: Batch, run: Callable[[nn.Module, Batch], object]
) -> list[Tensor] | None:
    """What a model gives for a batch; None where it does not run or a number is not finite."""
    with eval_mode(model):
        try:
            found = run(model, copied_batch(batch))
            return tensors_of(found) if all_finite(found) else None
        except Exception:  # whatever a model or a function of the user's raises
            return None


def _types(model: nn.Module, batch: Batch) -> str:
    """The types of a batch's tensors where none of them is the type of the parameters."""
    own = {p.dtype for p in model.parameters() if p.is_floating_point()}
    given = {tensor.dtype for tensor in tensors_of(batch)}
    if not own or own & given:
        return ""
    names = [", ".join(sorted(str(one)[len("torch.") :] for one in some)) for some in (given, own)]
    return f" of {names[0]}, its parameters are {names[1]}"


def call_with(example_inputs: Any, model: nn.Module) -> Any:
    """Example inputs as a batch for `call`: a tuple holds all arguments, a mapping all keywords.

    NumPy arrays become tensors as in `on_device`. Raises InputError where there is no tensor among
    them, no sample in these, or a number that is not finite.
    """
    inputs = with_tensors(example_inputs, _array_type(model))
    if not tensors_of(inputs):
        raise InputError(
            "example_inputs: expected a tensor, a tuple of arguments or a mapping of keywords, "
            f"got {type(example_inputs).__name__} without a tensor"
        )
    check_dense(inputs, "example_inputs")
    if not tensors_of(inputs)[0].ndim:
        raise InputError("example_inputs: the first tensor is one number, without samples")
    if not num_samples(inputs):
        raise InputError("example_inputs: no sample, the first axis has length 0")
    if not all_finite(inputs):
        raise InputError("example_inputs: values that are not finite (NaN or infinite)")
    return inputs if isinstance(inputs, tuple | Mapping) else (inputs,)


def call(model: nn.Module, inputs: Any) -> object:
    """Call a model with example inputs: a mapping as keywords, a tuple as all arguments."""
    if isinstance(inputs, Mapping):
        return model(**taken(model, inputs))
    return model(*inputs)


def run_batch(model: nn.Module, batch: Batch) -> object:
    """Run a model on a batch as most loaders give it.

    A mapping is given as keywords, those left out that the model does not take (labels); of a tuple
    or list the first element is given, anything else as it is.

    >>> run_batch(nn.Identity(), ({"input": torch.ones(2), "label": torch.zeros(2)}, "name"))
    tensor([1., 1.])
    """
    if isinstance(batch, Mapping):
        return model(**taken(model, batch))
    if isinstance(batch, tuple | list):
        return run_batch(model, batch[0])
    return model(batch)


def taken(model: nn.Module, keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords that a model's `forward` takes: all of them where it has `**kwargs`."""
    parameters = signature(model.forward).parameters.values()
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
        return keywords
    names = {one.name for one in parameters if one.kind is not Parameter.POSITIONAL_ONLY}
    known = {name: value for name, value in keywords.items() if name in names}
    return known or keywords  # none: the model's own error says what it takes


def run_with(
    run: Callable[[nn.Module, Batch], object] | None, outputs: Callable[[Any], object] | None
) -> Run:
    """How a model is run on a batch, and which part of what it returns has to be kept."""
    plain = run or run_batch
    take = outputs or (lambda found: found)
    # A copy of the batch, because the model may work in place on it.
    return lambda model, batch: real_numbers(take(plain(model, copied_batch(given(batch)))))


def real_numbers(found: Any) -> object:
    """The same structure with pairs of real numbers in the place of complex ones.

    >>> real_numbers(torch.tensor([1 + 2j]))
    tensor([[1., 2.]])
    """
    if not any(tensor.is_complex() for tensor in tensors_of(found)):
        return found
    return map_tensors(
        found, lambda t: torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
    )


def loss_with(
    run: Callable[[nn.Module, Batch], object] | None, loss: Callable[[Any, Batch], object]
) -> Callable[[nn.Module, Batch], object]:
    """A loss of a model's output and the batch as one of the model and the batch."""
    plain = run or run_batch
    return lambda model, batch: loss(plain(model, copied_batch(given(batch))), given(batch))
