"""The largest memory of this process."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_mib() -> float:
    """Largest resident size of this process since the last `reset_peak`, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> None:
    """Start the peak again where the system can; elsewhere it is that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
