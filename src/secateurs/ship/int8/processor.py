"""Whether this processor has instructions for products of 8-bit numbers."""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Names of the instructions as Linux lists them, from what is preferred to what is least.
_X86 = ("amx_int8", "avx512_vnni", "avx_vnni_int8", "avx_vnni")
_ARM = ("i8mm", "asimddp")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Int8Support:
    """A processor and its instructions for int8; `has_instructions` is None where not known."""

    processor: str
    instructions: tuple[str, ...]
    has_instructions: bool | None

    @property
    def saturates(self) -> bool:
        """Whether sums of 8-bit products may overflow their 16 bits: x86 without VNNI."""
        x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
        return x86 and self.has_instructions is False

    @property
    def sentence(self) -> str:
        """What it means for an int8 file, in one sentence."""
        if self.has_instructions is None:
            return f"{self.processor}: not known whether it has instructions for int8"
        if self.has_instructions:
            return f"{self.processor}: has instructions for int8 ({', '.join(self.instructions)})"
        return (
            f"{self.processor}: no instructions for int8 (VNNI or the like), so that int8 saves "
            "bytes, but little or no time here"
        )


def int8_support() -> Int8Support:
    """What is known of the processor that this runs on."""
    machine = platform.machine()
    if _CPUINFO.exists():
        return parse_cpuinfo(_CPUINFO.read_text(encoding="utf-8", errors="replace"), machine)
    if platform.system() == "Darwin" and machine == "arm64":  # all of them have it
        return Int8Support("Apple processor", ("asimddp",), True)
    if platform.system() == "Darwin":
        return parse_cpuinfo("flags: " + _sysctl("machdep.cpu.leaf7_features").lower(), machine)
    return Int8Support(platform.processor() or machine, (), None)


def parse_cpuinfo(text: str, machine: str) -> Int8Support:
    """What the text of /proc/cpuinfo says.

    >>> parse_cpuinfo("model name: A\\nflags: sse2 avx512_vnni", "x86_64").sentence
    'A: has instructions for int8 (avx512_vnni)'
    """
    fields = dict(re.findall(r"^([\w ]+?)\s*: *(.*)$", text, re.MULTILINE))
    flags = fields.get("flags", fields.get("Features", "")).split()
    known = [name for name in (*_X86, *_ARM) if name in flags]
    name = fields.get("model name", machine).strip()
    return Int8Support(name, tuple(known), bool(known) if flags else None)


def _sysctl(name: str) -> str:
    try:
        found = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.replace("AVX512VNNI", "avx512_vnni")
