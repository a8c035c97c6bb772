"""Which arithmetic training uses: float32, or bfloat16 products where the processor has them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from secateurs.errors import InputError

Precision = Literal["float32", "bfloat16"]


def resolve_device(text: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; InputError when CUDA is asked for and missing.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if text == "cpu":
        return torch.device("cpu")
    if text not in ("auto", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {text!r}")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if text == "cuda":
        raise InputError("device cuda was asked for, but PyTorch finds no CUDA device here")
    return torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capability = torch.cpu.get_capabilities()
    return bool(capability.get("avx512_bf16") or capability.get("amx_bf16"))


def resolve_precision(text: str, device: torch.device) -> Precision:
    """The arithmetic for `auto`, `float32` or `bfloat16` on a device.

    `auto` is bfloat16 where the device has it in hardware.
    """
    if text == "float32":
        return "float32"
    if text == "bfloat16":
        return "bfloat16"
    if text != "auto":
        raise InputError(f"precision must be auto, float32 or bfloat16, got {text!r}")
    return "bfloat16" if has_bfloat16(device) else "float32"


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which forward passes run: autocast for bfloat16, nothing for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
