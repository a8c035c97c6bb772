"""Gradients of the loss with respect to a layer's activations, for first-order Taylor scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateurs.errors import InputError
from secateurs.nets.trace import eval_mode


def loss_gradients(
    run: Callable[[Tensor], Tensor],
    model: nn.Module,
    consumer: nn.Module,
    batches: Sequence[Tensor],
    labels: Tensor,
) -> Tensor:
    """Gradient of each sample's cross-entropy with respect to what `consumer` receives.

    `run` sends a batch through `model`, in eval mode, to logits (samples, classes); `labels`
    (samples,) are class indices in the order of the batches. Returns (samples, units) float32; no
    parameter's gradient is touched. Raises InputError unless there is one label a sample.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> x, y = torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)
    >>> loss_gradients(layer, layer, layer, [x], y).shape
    torch.Size([3, 2])
    """
    num_samples = sum(len(batch) for batch in batches)
    if labels.shape != (num_samples,):
        raise InputError(f"labels: expected ({num_samples},), got {tuple(labels.shape)}")
    received: list[Tensor] = []

    def detach(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        received.append(arguments[0].detach().clone().requires_grad_())
        return (received[-1], *arguments[1:])

    parts: list[Tensor] = []
    start = 0
    handle = consumer.register_forward_pre_hook(detach)
    try:
        with eval_mode(model), torch.enable_grad():
            for batch in batches:
                received.clear()
                answers = labels[start : start + len(batch)].to(batch.device)
                loss = cross_entropy(run(batch), answers, reduction="sum")
                if len(received) != 1:
                    raise InputError(
                        "loss_gradients: expected the layer to run once a batch, "
                        f"it ran {len(received)} times"
                    )
                parts.append(torch.autograd.grad(loss, received[0])[0].float())
                start += len(batch)
    finally:
        handle.remove()
    return torch.cat(parts)
