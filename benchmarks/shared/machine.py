"""The machine that a measurement ran on."""

from __future__ import annotations

import os
import platform

import torch


def machine() -> str:
    """Cores, kind of processor, and the graphics card where there is one."""
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores, {platform.machine()}{card}"
