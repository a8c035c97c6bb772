"""How much a network's outputs, or a loss of the user's own, move with what each layer gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import Batch, Run, forward, map_tensors, num_samples, samples
from secateurs.nets.layers import LAYERS, batched, channel_axis, width_of
from secateurs.nets.strided import safe_strides
from secateurs.nets.trace import eval_mode, first_line, python_modules, tensors_of
from secateurs.prune.statistics.forced_gradients import KeptHistory

PROBED = 48  # samples whose gradients are taken
PROBED_AT_ONCE = 16  # at most
NO_GRADIENT = "loss: it does not depend on the network's layers by gradients"

Loss = Callable[[nn.Module, Batch], object]


@dataclass(frozen=True)
class Importance:
    """How much a network's answers move with what each layer gives, by layer.

    `each` (outputs,) is for errors that are independent from place to place. `together` is how many
    times as much an error moves them that is the same in all places of a sample, at least 1: of a
    map that is averaged at the end it is up to the number of its places.
    """

    each: dict[str, Tensor]
    together: dict[str, float]


def importance(
    model: nn.Module,
    paths: Sequence[str],
    batches: Sequence[Batch],
    *,
    run: Run = forward,
    seed: int = 0,
    num_images: int = PROBED,
    loss: Loss | None = None,
    at_once: int | None = None,
) -> Importance:
    """How much the network's answers move with each output of the layers.

    The mean over samples of the squared derivative of a random combination (signs +1 and -1) of the
    logits, summed over positions: times a mean squared error of the output it is, to first order
    and with errors that are independent, the mean squared change of the logits' sum. Needs no
    labels, and does not vanish where a network is sure of itself. Taken on every k-th sample, at
    most `at_once` at once.

    With a `loss(model, batch)`, a scalar, it is the mean squared derivative of that, which is the
    diagonal of the empirical Fisher information of the outputs. The loss is called with one sample
    at a time, so that a mean over a batch and a sum are the same. Raises InputError where it is no
    finite scalar with gradients.
    """
    most = min(PROBED_AT_ONCE, at_once or PROBED_AT_ONCE)
    parts = probed(batches, num_images, most if loss is None else 1)
    sums: dict[str, Tensor] = {}
    together: dict[str, float] = {}
    seen: list[tuple[str, Tensor, float]] = []  # of the part that runs

    def watch(path: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        axis = channel_axis(layer)

        def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
            if not output.requires_grad:  # what does not depend on the sample, as Swin V2's biases
                output = output.detach().requires_grad_(True)

            def add(gradient: Tensor) -> None:
                by_place = batched(layer, gradient.float()).movedim(axis, -1)
                by_place = by_place.reshape(len(by_place), -1, by_place.shape[-1])
                found = by_place.square().sum((0, 1))
                seen.append((path, found, float(by_place.sum(1).square().sum())))

            output.register_hook(add)
            return output

        return layer.register_forward_hook(hook)

    trained = {p: p.requires_grad for p in model.parameters()}
    handles = [watch(path, model.get_submodule(path)) for path in paths]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for _ in gradients(model, parts, [], run=run, seed=seed, loss=loss, again=seen.clear):
            for path, found, same in seen:
                sums[path] = sums[path] + found if path in sums else found
                together[path] = together.get(path, 0.0) + same
    finally:
        for handle in handles:
            handle.remove()
        for parameter, wanted in trained.items():
            parameter.requires_grad_(wanted)
    if loss is not None and not sums:
        raise InputError(NO_GRADIENT)
    # A layer without a gradient has no part in the answers, as what only keeps a feature map.
    nothing = {path: _no_part(model.get_submodule(path)) for path in paths}
    alone = {path: float(found.sum()) for path, found in sums.items()}
    return Importance(
        {path: sums.get(path, none) / _total(parts) for path, none in nothing.items()},
        {p: max(1.0, same / alone[p]) if alone[p] > 0 else 1.0 for p, same in together.items()},
    )


def gradients(
    model: nn.Module,
    parts: Sequence[Batch],
    wanted: Sequence[Tensor],
    *,
    run: Run = forward,
    seed: int = 0,
    loss: Loss | None = None,
    again: Callable[[], None] = lambda: None,
) -> Generator[Sequence[Tensor | None], None, None]:
    """Differentiate a random combination of the answers, or a loss, to each part of the samples.

    Yields the derivatives with respect to the tensors `wanted`; without any, hooks see theirs, and
    forget `again` what they have seen of the part. Raises InputError as `importance` does.
    """
    generator = torch.Generator().manual_seed(seed)
    ways, refused = [*WAYS], None
    for part in parts:
        found: Sequence[Tensor | None] | None = None
        while found is None:
            before = generator.get_state()
            again()
            try:
                found = _derivatives(model, part, wanted, ways[0], run, generator, loss)
            except _NoDerivativesError as error:
                refused = refused or error
                if len(ways) == 1:
                    raise InputError(str(refused)) from error
                ways = ways[1:]
                generator.set_state(before)
            finally:
                _forget_history(model)
        yield found


class _NoDerivativesError(InputError):
    """A network that does not run with gradients, or cannot be differentiated, in one way."""


@contextmanager
def _copies_saved() -> Generator[None]:
    """What a network writes into later is kept for its derivatives as it was."""
    with KeptHistory(), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept):
        yield


# How a network is run for its derivatives: each way where the one before does not do.
WAYS: tuple[Callable[[], AbstractContextManager[object]], ...] = (
    KeptHistory,
    _copies_saved,
    nullcontext,
)


def _derivatives(
    model: nn.Module,
    part: Batch,
    wanted: Sequence[Tensor],
    way: Callable[[], AbstractContextManager[object]],
    run: Run,
    generator: torch.Generator,
    loss: Loss | None,
) -> Sequence[Tensor | None]:
    followed = map_tensors(part, _followed)
    with eval_mode(model), safe_strides(model), torch.enable_grad():
        with way(), warnings.catch_warnings():
            # A network that reads a number from a tensor is warned of its gradient.
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
            total = (
                _combination(_answers(run, model, followed), generator)
                if loss is None
                else _scalar(loss, model, followed)
            )
        if loss is not None and not bool(total.detach().isfinite()):
            value = total.detach().item()
            raise InputError(f"loss: {value:g} for a sample, expected a finite number")
        try:
            if wanted:
                return list(torch.autograd.grad(total, wanted, allow_unused=True))
            total.backward()
        except RuntimeError as error:
            raise _NoDerivativesError(
                f"the network's answers cannot be differentiated ({first_line(error)})"
            ) from error
    return []


def probed(batches: Sequence[Batch], num_samples: int, most: int) -> list[Batch]:
    """Samples for derivatives: every k-th, about so many, in parts of at most `most`."""
    return _parts(batches, max(1, _total(batches) // num_samples), most)


def _answers(run: Run, model: nn.Module, batch: Batch) -> list[Tensor]:
    try:
        return tensors_of(run(model, batch))
    except InputError:
        raise
    except Exception as error:  # as where it turns tensors to NumPy
        raise _NoDerivativesError(
            f"the network does not run with gradients ({type(error).__name__}: {first_line(error)})"
        ) from error


def _forget_history(model: nn.Module) -> None:
    """Cut what a network keeps from run to run off from the run that computed it."""
    for _, module in python_modules(model):
        for name, tensor in module.named_buffers(recurse=False):
            if tensor.grad_fn is not None:
                setattr(module, name, tensor.detach())
        for name, value in [*vars(module).items()]:
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())


def _combination(answers: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The sum of all numbers with random signs."""
    total = torch.zeros(())
    for logits in answers:
        if logits.requires_grad:
            signs = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
            total = total.to(logits) + (logits * signs.to(logits)).sum()
    if not total.requires_grad:
        raise InputError("the network's answers do not depend on its layers by gradients")
    return total


def _scalar(loss: Loss, model: nn.Module, sample: Batch) -> Tensor:
    """The loss of one sample."""
    try:
        found = loss(model, sample)
    except InputError:
        raise
    except Exception as error:  # whatever a function of the user's raises
        raise InputError(
            f"loss: it failed on a sample ({type(error).__name__}: {first_line(error)})"
        ) from error
    if not isinstance(found, Tensor) or found.numel() != 1:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"loss: expected a scalar tensor, got {given}")
    if not found.requires_grad:
        raise InputError(NO_GRADIENT)
    return found.sum()


def _parts(batches: Sequence[Batch], every: int, most: int) -> list[Batch]:
    """Every k-th sample of each batch, in parts of at most `most`."""
    found: list[Batch] = []
    for batch in batches:
        places = torch.arange(0, num_samples(batch), every)
        found += [samples(batch, part) for part in places.split(most)]
    return found


def _followed(tensor: Tensor) -> Tensor:
    """The same values, followed by gradients where they are numbers that have any."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def _no_part(layer: nn.Module) -> Tensor:
    assert isinstance(layer, LAYERS)
    return torch.zeros(width_of(layer), device=layer.weight.device)


def _total(batches: Sequence[Batch]) -> int:
    return sum(num_samples(batch) for batch in batches)
