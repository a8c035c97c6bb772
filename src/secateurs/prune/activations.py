"""Activations of a layer, collected over batches while the network runs as it would for use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.trace import eval_mode


@contextmanager
def recording(module: nn.Module) -> Generator[list[Tensor]]:
    """Collect each output of `module` while the context is open, copied before anything after it.

    A copy, because the non-linearity that follows may work in place.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        outputs.append(output.detach().clone())

    handle = module.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def collect(
    run: Callable[[Tensor], object],
    module: nn.Module,
    batches: Iterable[Tensor],
    *,
    after: Callable[[Tensor], Tensor] | None = None,
    model: nn.Module | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Activations (samples, units) of `module`, in the order of the batches, on their device.

    `run` sends a batch through the network, for instance the network itself; everything in `model`
    (default: `run` when it is a module, else `module`) is in eval mode meanwhile and gets its own
    modes back. `after` is the elementwise non-linearity that follows. Raises InputError when
    `module` is not reached, gives no (samples, units) output, or there is no batch.

    >>> layer = nn.Linear(2, 3)
    >>> collect(nn.Sequential(layer, nn.ReLU()), layer, [torch.ones(4, 2)], after=torch.relu).shape
    torch.Size([4, 3])
    """
    if model is None:
        model = run if isinstance(run, nn.Module) else module
    parts: list[Tensor] = []
    changed = [model, module, *([after] if isinstance(after, nn.Module) else [])]
    with torch.no_grad(), ExitStack() as stack:
        for part in changed:
            stack.enter_context(eval_mode(part))
        for batch in batches:
            with recording(module) as outputs:
                run(batch)
            if len(outputs) != 1:
                raise InputError(
                    f"collect: expected the layer to run once a batch, it ran {len(outputs)} times"
                )
            output = outputs[0]
            if output.ndim != 2:
                raise InputError(
                    "collect: expected an output of (samples, units), "
                    f"got shape {tuple(output.shape)}"
                )
            parts.append((output if after is None else after(output)).to(dtype))
    if not parts:
        raise InputError("collect: no batch to run")
    return torch.cat(parts)
