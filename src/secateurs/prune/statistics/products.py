"""The product of a layer with a class of its own: what its weights are really multiplied with.

A class may pad by itself, as TensorFlow and causal convolutions do, or scale what it receives. Its
forward pass is run once more, and the one operation that uses the layer's weight is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.errors import InputError
from secateurs.nets.layers import CONVOLUTIONS, LAYERS, TRANSPOSED, inputs_of, kernel_of, width_of

CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED_CONVOLUTION = (*CONVOLUTION[:5], "output_padding", "groups", "dilation")
NAMES: dict[str, tuple[str, ...]] = {
    "linear": CONVOLUTION[:3],
    **{f"conv{n}d": CONVOLUTION for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": TRANSPOSED_CONVOLUTION for n in (1, 2, 3)},
}


@dataclass(frozen=True)
class Product:
    """A layer of a plain class that gives `output` for what it `received`."""

    layer: nn.Module
    received: Tensor
    output: Tensor


def product(
    layer: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], output: Tensor, *, path: str
) -> Product:
    """The product in a call of a layer: the call itself unless the layer's class is its own.

    Raises InputError, which names the layer by its `path`, for a class that does more than multiply
    something by its weight once and cut its output to size.
    """
    if is_plain(layer):
        return Product(layer, args[0] if args else kwargs["input"], output)
    assert isinstance(layer, LAYERS)
    with _Calls(layer.weight) as calls:
        again = layer.forward(*args, **kwargs)  # without the hooks that called this
    found = calls.found
    # A view of the operation's output is a part of it; anything else has other values.
    if len(found) != 1 or found[0][1].untyped_storage().data_ptr() != _storage(again):
        raise InputError(
            f"layer {path}: its class {type(layer).__name__} does more than multiply its input by "
            "its weights, which is not known"
        )
    given, inner = found[0]
    return Product(_plain(layer, given), given["input"], inner)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer works as PyTorch's class does.

    >>> is_plain(nn.Linear(2, 3))
    True
    """
    own = "forward" in vars(layer)
    return not own and any(type(layer).forward is stock.forward for stock in LAYERS)


def _storage(output: object) -> int:
    return output.untyped_storage().data_ptr() if isinstance(output, Tensor) else 0


def _plain(layer: nn.Module, given: dict[str, Any]) -> nn.Module:
    """A layer of PyTorch's class, without values, that works as an operation was called."""
    widths = inputs_of(layer), width_of(layer)
    if isinstance(layer, nn.Linear):
        return nn.Linear(*widths, device="meta")
    kinds: tuple[type[nn.Module], ...] = (*CONVOLUTIONS, *TRANSPOSED)
    stock = next(kind for kind in kinds if isinstance(layer, kind))
    make: Any = stock
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    words = {n: given[n] for n in names if stock in TRANSPOSED or n != "output_padding"}
    return make(*widths, kernel_of(layer), device="meta", **words)


class _Calls(TorchFunctionMode):
    """Takes note of the operations with one weight, their arguments by name and their outputs."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.found: list[tuple[dict[str, Any], Tensor]] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        names = NAMES.get(getattr(func, "__name__", ""))
        if names is not None:
            standard = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
            given = standard | dict(zip(names, args, strict=False)) | (kwargs or {})
            if given["weight"] is self.weight:
                self.found.append((given, out))
        return out
