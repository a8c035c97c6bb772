"""What a network costs: parameters, multiply-accumulates, bytes, and that in plain words."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateurs.nets.batches import blank_image
from secateurs.nets.counting import macs, num_parameters
from secateurs.nets.trace import skeleton
from secateurs.ship.latency import LatencyRow

NOT_FASTER = 0.97


@dataclass(frozen=True)
class Cost:
    """What a network costs: `macs` are for one image, sizes in bytes, None without a file.

    `activation_bytes` is the most memory that an image and what is computed from it take at once.
    """

    num_parameters: int
    macs: int
    activation_bytes: int | None = None
    file_bytes: int | None = None
    onnx_bytes: int | None = None

    def to_json(self) -> dict[str, int | None]:
        """The record as plain data."""
        return asdict(self)


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, from the first operation on."""

    def __init__(self, without: Sequence[Tensor]) -> None:
        super().__init__()
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.live = self.peak = 0
        for tensor in without:
            self.known.add(tensor.untyped_storage())

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.count(value)
        return result

    def count(self, tensor: Tensor) -> None:
        """Take in a tensor's storage, and notice when it goes."""
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.live -= size


def activation_bytes(model: nn.Module, *, size: int = 224) -> int:
    """The most bytes that one image (3, size, size) and what is computed from it take at once.

    Counted in evaluation on shapes alone, operation by operation, without the parameters: what
    PyTorch needs when every result lives as long as something refers to it, kernels' own workspaces
    left out. Several images take as many times more.

    >>> activation_bytes(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 100)), size=2)
    468
    """
    bare = skeleton(model).eval()
    tensors = [*bare.parameters(), *bare.buffers()]
    image = blank_image(bare, size)
    with torch.no_grad(), _Live(tensors) as live:
        live.count(image)
        bare(image)
    return live.peak


def cost(
    model: nn.Module,
    *,
    size: int = 224,
    file_bytes: int | None = None,
    onnx_bytes: int | None = None,
) -> Cost:
    """A network's cost on images of `size` pixels a side, with the sizes of files that it has."""
    return Cost(
        num_parameters=num_parameters(model),
        macs=macs(model, blank_image(model, size)),
        activation_bytes=activation_bytes(model, size=size),
        file_bytes=file_bytes,
        onnx_bytes=onnx_bytes,
    )


def cost_sentence(before: Cost, after: Cost, latency: Sequence[LatencyRow]) -> str:
    """Plain words about what pruning saved, also when it did not make the network faster.

    It is faster when it takes at most 0.97 of the time and three quarters of the rounds agree,
    slower in the same way from 1.03 on, and not measurably faster in between. Where the median is
    outside of that and the rounds disagree, the times vary too much.

    >>> cost_sentence(Cost(200, 1000), Cost(50, 990), [])
    'Pruning left 25% of the parameters (200 to 50) and 99% of the multiply-accumulates.'
    """
    parameters = after.num_parameters / before.num_parameters
    multiplies = after.macs / before.macs
    text = (
        f"Pruning left {_percent(parameters)} of the parameters "
        f"({_short(before.num_parameters)} to {_short(after.num_parameters)}) and "
        f"{_percent(multiplies)} of the multiply-accumulates."
    )
    return " ".join([text, *(_latency_words(row) for row in latency)])


def cost_lines(sentence: str) -> list[str]:
    """What `cost_sentence` says, a line for the size and one for each latency.

    >>> cost_lines("Pruning left half. With PyTorch it is slower (1.5 ms). With ONNX it is slower.")
    ['Pruning left half.', 'With PyTorch it is slower (1.5 ms).', 'With ONNX it is slower.']
    """
    return sentence.replace(". With ", ".\nWith ").split("\n")


def _latency_words(row: LatencyRow) -> str:
    runtime = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime"}.get(row.runtime, row.runtime)
    where = f"With {runtime} on {row.device} at batch {row.batch} it"
    times = f"{_ms(row.before_ms.median)} before, {_ms(row.after_ms.median)} after"
    if row.ratio > 2 - NOT_FASTER and row.ratio_p25 > 1:
        return f"{where} is slower ({times})."
    if row.ratio > NOT_FASTER or row.ratio_p75 >= 1:
        if not 2 - NOT_FASTER >= row.ratio > NOT_FASTER:
            return f"{where} is not measurably faster: the times vary too much ({times})."
        return f"{where} is not measurably faster ({times})."
    return f"{where} takes {_percent(row.ratio)} of the time ({times})."


def _ms(time_ms: float) -> str:
    return f"{time_ms:.0f} ms" if time_ms >= 100 else f"{time_ms:.3g} ms"


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    return f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.2g}%"


def _short(number: int) -> str:
    for unit, sign in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{sign}"
    return str(number)
