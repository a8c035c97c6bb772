"""Parity: whether removing units gives what zeroing them gives, on the outputs' own scale.

Outputs are compared in float64. An error is relative to the effect of the cut, which is how far the
outputs move when the units are zeroed: a network whose outputs are tiny or huge is judged as any
other. What rounding alone can do is measured, by changing every weight by one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import Batch, Run, all_finite, copied_batch, map_tensors, shape_words
from secateurs.nets.trace import copied, eval_mode, first_line, tensors_of

PARITY_LIMIT = 1e-5
# An error may be so many times what one rounding of every weight does, by bytes of a number.
SLACK = {8: 1e3, 4: 1e2, 2: 4.0}
ROUNDING = torch.finfo(torch.float64).eps
VISIBLE = 1e-8  # of an output's scale: a cut with less effect shows nothing

Zeroing = Callable[[nn.Module], AbstractContextManager[object]]
Narrowing = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Seen:
    """What a comparison showed.

    `error` is the largest difference of outputs relative to the effect of the cut; `visible` says
    whether the cut changed any output by more than rounding, without which a small error means
    nothing.
    """

    error: float
    visible: bool


class Comparison:
    """A network in float64 and its outputs on one batch, with which any number of cuts is compared.

    A network that does not run in float64 is compared in its own precision. Raises InputError when
    it does not run on the batch, when values of the batch are not finite, and when the network
    gives no tensor of numbers.
    """

    def __init__(self, model: nn.Module, batch: Batch, run: Run) -> None:
        if not all_finite(batch):
            raise InputError("batch: values that are not finite (NaN or infinite)")
        self.run = run
        self.batch = map_tensors(batch, lambda t: t.to(_wider(t)) if _is_number(t) else t)
        self.network = double(model)
        try:
            self.whole = self._outputs(self.network)
        except Exception as error:
            self.batch, self.network = batch, copied(model)
            try:
                self.whole = self._outputs(self.network)
            except Exception:
                raise InputError(
                    f"the network does not run on a batch of {shape_words(batch)} "
                    f"({type(error).__name__}: {first_line(error)})"
                ) from error
        if not self.whole:
            raise InputError("the network gives no tensor of floating-point numbers")

    def compare(self, zeroing: Zeroing, narrowed: Narrowing) -> Seen:
        """Compare the network with units zeroed and the network without them."""
        zeroed = self._zeroed(self.network, zeroing)
        try:
            cut = self._outputs(narrowed(self.network))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a cut that does not run is as wrong as can be
            return Seen(math.inf, visible=True)
        if [part.shape for part in cut] != [part.shape for part in zeroed]:
            return Seen(math.inf, visible=True)
        effects = [_largest(a - b) for a, b in zip(self.whole, zeroed, strict=True)]
        errors = [_error(a, b) for a, b in zip(cut, zeroed, strict=True)]
        visible = any(
            effect > VISIBLE * max(_largest(a), _largest(b))
            for effect, a, b in zip(effects, self.whole, zeroed, strict=True)
        )
        clean = all(
            error <= PARITY_LIMIT * effect for error, effect in zip(errors, effects, strict=True)
        )
        # Only where the effect does not explain the error does rounding have to.
        floors = [0.0] * len(errors) if clean else self._rounding(zeroed, zeroing)
        return Seen(max(map(_relative, errors, effects, floors)), visible)

    def randomize(self, seed: int = 0) -> bool:
        """Draw every weight anew, so that every unit has an effect; False where that is no use.

        Whether a cut is right does not depend on the weights. Dead units, layer scales near zero
        and heads of zeros hide a wrong one.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.network.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point():
                    _draw(parameter, generator)
            for name, buffer in module.named_buffers(recurse=False):
                if name == "running_mean":
                    buffer.zero_()
                elif name == "running_var":
                    buffer.fill_(1.0)
        try:
            self.whole = self._outputs(self.network)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a network that checks its weights
            return False
        return all(bool(part.isfinite().all()) for part in self.whole)

    def _outputs(self, network: nn.Module) -> list[Tensor]:
        with torch.no_grad(), eval_mode(network):
            # A copy, because the first layer may work in place.
            found = tensors_of(self.run(network, copied_batch(self.batch)))
        return [part.double() for part in found if part.is_floating_point() and part.numel()]

    def _zeroed(self, network: nn.Module, zeroing: Zeroing) -> list[Tensor]:
        with zeroing(network):
            return self._outputs(network)

    def _rounding(self, zeroed: Sequence[Tensor], zeroing: Zeroing) -> list[float]:
        """How far rounding may move each output: measured by one rounding of every weight."""
        generator = torch.Generator().manual_seed(0)
        shaken = copied(self.network)
        with torch.no_grad():
            for parameter in shaken.parameters():
                if parameter.is_floating_point():
                    change = torch.randn(parameter.shape, generator=generator).to(parameter)
                    parameter.add_(parameter * change * torch.finfo(parameter.dtype).eps)
        moved = self._zeroed(shaken, zeroing)
        size = max(p.element_size() for p in shaken.parameters() if p.is_floating_point())
        return [
            SLACK.get(size, 1.0) * max(_largest(a - b), ROUNDING * _largest(b))
            for a, b in zip(moved, zeroed, strict=True)
        ]


def compared(
    model: nn.Module,
    batch: Batch,
    zeroing: Zeroing,
    narrowed: Narrowing,
    *,
    run: Run,
    redrawn: bool = True,
) -> float:
    """The error of one cut relative to its effect, see `Comparison`.

    Where the cut has no effect on this batch it is compared with other weights too, if `redrawn`.
    """
    comparison = Comparison(model, batch, run)
    seen = comparison.compare(zeroing, narrowed)
    if seen.visible or seen.error > PARITY_LIMIT or not redrawn or not comparison.randomize():
        return seen.error
    return max(seen.error, comparison.compare(zeroing, narrowed).error)


def double(model: nn.Module) -> nn.Module:
    """A float64 copy, without a float32 copy on the way."""
    return copied(
        model,
        lambda tensor: (
            tensor.to(_wider(tensor), copy=True) if _is_number(tensor) else tensor.clone()
        ),
    )


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wider(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _draw(parameter: Tensor, generator: torch.Generator) -> None:
    """Weights of a usual size in a parameter, in place."""
    if parameter.ndim < 2:
        fresh = torch.rand(parameter.shape, generator=generator) + 0.5
    else:
        inputs = max(1, parameter[0].numel())
        fresh = torch.randn(parameter.shape, generator=generator) * math.sqrt(2 / inputs)
    parameter.data.copy_(fresh)


def _error(got: Tensor, expected: Tensor) -> float:
    """The largest difference; infinite where values are not finite in other places."""
    same = (got == expected) | (got.isnan() & expected.isnan())  # infinite alike
    return _largest(torch.where(same, 0.0, got - expected), otherwise=math.inf)


def _largest(values: Tensor, otherwise: float = 0.0) -> float:
    """The largest magnitude; `otherwise` stands for what is not finite."""
    return float(values.abs().nan_to_num(nan=otherwise, posinf=otherwise).max())


def _relative(error: float, effect: float, rounding: float) -> float:
    """The error relative to the effect; what rounding explains is at most `PARITY_LIMIT`."""
    if error == 0:
        return 0.0
    if error <= PARITY_LIMIT * effect + rounding:
        return error / (effect + rounding / PARITY_LIMIT)
    return error / effect if effect > 0 else math.inf
