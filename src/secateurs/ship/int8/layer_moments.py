"""What a layer of an ONNX graph receives, and what it should give, as sums over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MOST_POSITIONS = 512  # of one image, of a convolution's output


@dataclass(frozen=True)
class LayerShape:
    """How a node computes: its weight as (groups, channels, inputs), and its convolution."""

    kind: str
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    transposed: bool

    @classmethod
    def of(cls, node: Any, weight_shape: tuple[int, ...]) -> LayerShape | None:
        """The shape of a node, or None for what is not handled, as convolutions of volumes."""
        import onnx

        known = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            if len(weight_shape) != 4 or known.get("auto_pad", b"NOTSET") != b"NOTSET":
                return None
            return cls(
                "Conv",
                known.get("group", 1),
                tuple(weight_shape[2:]),
                tuple(known.get("strides", (1, 1))),
                tuple(known.get("pads", (0, 0, 0, 0))),
                tuple(known.get("dilations", (1, 1))),
                transposed=False,
            )
        plain = all(known.get(name, 1) == 1 for name in ("alpha", "beta")) and not known.get(
            "transA", 0
        )
        if len(weight_shape) != 2 or not plain:
            return None
        transposed = not known.get("transB", 0)
        return cls(node.op_type, 1, (), (), (), (), transposed=transposed)

    def rows_of(self, weight: Tensor) -> Tensor:
        """A node's weight as (groups, channels, inputs)."""
        weight = weight.T if self.transposed else weight
        return weight.reshape(self.groups, len(weight) // self.groups, -1)

    def weight_of(self, rows: Tensor, like: Tensor) -> Tensor:
        """What `rows_of` gave, in the form of the node's weight."""
        return (rows[0].T if self.transposed else rows).reshape(like.shape)

    def samples(self, inputs: Tensor, outputs: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (groups, n, inputs) and outputs (groups, n, channels) at the `picked` positions.

        `inputs` and `outputs` are those of the node for a batch; positions count the pixels of a
        convolution's output.
        """
        if self.kind != "Conv":
            return inputs.reshape(1, -1, inputs.shape[-1]), outputs.reshape(
                1, -1, outputs.shape[-1]
            )
        top, left, bottom, right = self.pads
        padded = functional.pad(inputs, (left, right, top, bottom))
        width = outputs.shape[3]
        rows = (picked // width * self.strides[0])[:, None] + (
            torch.arange(self.kernel[0]) * self.dilations[0]
        )
        columns = (picked % width * self.strides[1])[:, None] + (
            torch.arange(self.kernel[1]) * self.dilations[1]
        )
        patches = padded[:, :, rows[:, :, None], columns[:, None, :]]  # (n, c, positions, kh, kw)
        n, channels, positions = patches.shape[:3]
        patches = patches.reshape(n, self.groups, channels // self.groups, positions, -1)
        x = patches.permute(1, 0, 3, 2, 4).reshape(self.groups, n * positions, -1)
        y = outputs.reshape(n, self.groups, outputs.shape[1] // self.groups, -1)[..., picked]
        return x, y.permute(1, 0, 3, 2).reshape(self.groups, n * positions, -1)


@dataclass(frozen=True)
class Moments:
    """Means and central second moments of inputs x and outputs y, float64, by group.

    `xx` (groups, inputs, inputs), `xy` (groups, inputs, channels), `yy` (groups, channels),
    `x` (groups, inputs) and `y` (groups, channels). Where `centred` is False the second moments are
    about zero and the means zero: for a layer without a bias.
    """

    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor

    @classmethod
    def of(
        cls,
        shape: LayerShape,
        inputs: list[Any],
        outputs: list[Any],
        *,
        centred: bool,
        generator: torch.Generator,
    ) -> Moments:
        """Sums over batches (float32 arrays); of large outputs only some positions, at random."""
        total = 0
        sums: list[Tensor] = []
        for given, wanted in zip(inputs, outputs, strict=True):
            target = torch.from_numpy(wanted)
            num = target[0, 0].numel() if shape.kind == "Conv" else 1
            picked = torch.randperm(num, generator=generator)[:MOST_POSITIONS]
            x, y = shape.samples(torch.from_numpy(given), target, picked)
            parts = (
                x.transpose(1, 2) @ x,
                x.transpose(1, 2) @ y,
                y.square().sum(1),
                x.sum(1),
                y.sum(1),
            )
            doubles = [part.double() for part in parts]
            sums = [a + b for a, b in zip(sums, doubles, strict=True)] if sums else doubles
            total += x.shape[1]
        xx, xy, yy, x, y = (one / total for one in sums)
        if not centred:
            return cls(xx, xy, yy, torch.zeros_like(x), torch.zeros_like(y))
        return cls(
            xx - x[:, :, None] * x[:, None],
            xy - x[:, :, None] * y[:, None],
            yy - y.square(),
            x,
            y,
        )

    def relative_error(self, rows: Tensor, bias: Tensor | None) -> float:
        """Squared error of a layer's outputs with weight `rows` and `bias`, over their variance."""
        product = rows @ self.xx
        error = self.yy - 2 * (rows * self.xy.transpose(1, 2)).sum(2) + (product * rows).sum(2)
        if bias is not None:
            error = error + ((rows @ self.x[:, :, None])[:, :, 0] + bias - self.y).square()
        return float(error.clamp_min(0).sum() / self.yy.sum().clamp_min(1e-30))
