"""Stop a process at a chosen system call that changes files: ptrace and seccomp, Linux on x86-64.

The kernel stops the process before each such call, whoever makes it: Python, NumPy, the Rust code
of safetensors, or another thread. The state of the disk before call n + 1 is that after call n, so
a kill before each call covers the time after each as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64"
# Number of each call on x86-64, and which arguments are (folder handle, path) or a file handle.
OPEN, OPENAT = 2, 257
BY_PATH = {
    OPEN: ("open", None, 0), OPENAT: ("openat", 0, 1), 85: ("creat", None, 0),
    82: ("rename", None, 0), 264: ("renameat", 0, 1), 316: ("renameat2", 0, 1),
    87: ("unlink", None, 0), 263: ("unlinkat", 0, 1), 83: ("mkdir", None, 0),
    258: ("mkdirat", 0, 1), 84: ("rmdir", None, 0), 86: ("link", None, 0), 265: ("linkat", 0, 1),
    88: ("symlink", None, 1), 266: ("symlinkat", 1, 2), 76: ("truncate", None, 0),
    90: ("chmod", None, 0), 268: ("fchmodat", 0, 1), 280: ("utimensat", 0, 1),
}  # fmt: skip
BY_HANDLE = {
    1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 328: "pwritev2", 77: "ftruncate",
    285: "fallocate", 74: "fsync", 75: "fdatasync", 91: "fchmod", 73: "flock",
}  # fmt: skip
RECEIVES = {40: ("sendfile", 0), 326: ("copy_file_range", 2)}  # with the handle written to
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_TRACEME, _CONT, _GETREGS, _SETOPTIONS = 0, 7, 12, 0x4200
_FORKS = 0x2 | 0x4 | 0x8  # PTRACE_O_TRACEFORK, TRACEVFORK, TRACECLONE
_TRACESECCOMP, _EXITKILL = 0x80, 0x100000
_EVENT_SECCOMP = 7
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_TRACE, _ALLOW = 0x7FF00000, 0x7FFF0000
_WALL = 0x40000000
_REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
)  # fmt: skip
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10")


class _Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in _REGISTERS]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, process: int, data: int | ctypes.c_void_p | None = None) -> None:
    if _libc.ptrace(request, process, None, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _filter() -> bytes:
    """A BPF program that has the kernel report the calls above, and no call that only opens."""
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    numbers = sorted({*BY_PATH, *BY_HANDLE, *RECEIVES} - {OPEN, OPENAT})
    code = [(load, 0, 0, 0)]
    for number, offset in ((OPENAT, 32), (OPEN, 24)):  # where the flags are: args[2], args[1]
        code.append((equal, 0, 4, number))
        code.append((load, 0, 0, offset))
        code.append((any_bit, 0, 1, CHANGING))
        code += [(give, 0, 0, _TRACE), (give, 0, 0, _ALLOW)]
    for place, number in enumerate(numbers):
        code.append((equal, len(numbers) - place, 0, number))
    code += [(give, 0, 0, _ALLOW), (give, 0, 0, _TRACE)]
    return b"".join(struct.pack("HBBI", *step) for step in code)


def be_traced() -> None:
    """In a forked process: let the parent watch it, from here on."""
    code = _filter()
    kept = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(kept, ctypes.c_void_p))
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)  # until the parent has set its options
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(
        _SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


@dataclass(frozen=True)
class Call:
    """A call that a thread is about to make: its place in the row, its name and its file."""

    number: int
    name: str
    path: Path
    thread: int
    registers: dict[str, int]

    def half(self) -> tuple[int, bytes] | None:
        """Offset and bytes of the first half of a write; None for others and single bytes."""
        length = self.registers["rdx"] // 2
        if self.name not in ("write", "pwrite64") or not length:
            return None
        offset = self.registers["r10"]
        if self.name == "write":
            handle = Path(f"/proc/{self.thread}/fdinfo/{self.registers['rdi']}")
            about = dict(line.split(":", 1) for line in handle.read_text().splitlines())
            offset = int(about["pos"])
            if int(about["flags"], 8) & os.O_APPEND:
                offset = self.path.stat().st_size
        return offset, _memory(self.thread, self.registers["rsi"], length)


def follow(
    process: int, below: Path, at: Callable[[Call], bool], *, seconds: float = 300
) -> tuple[int, Call | None]:
    """Follow a process that called `be_traced` to its end.

    `at(call)` is asked before each call that changes something below a folder, and kills the
    process with all its threads when it returns True. Returns the exit code, minus the signal's
    number where one ended the process, and the call at which it was killed.
    """
    end, seen, killed_at = time.monotonic() + seconds, 0, None
    os.waitpid(process, 0)
    _ptrace(_SETOPTIONS, process, _FORKS | _TRACESECCOMP | _EXITKILL)
    _resume(process)
    while True:
        if time.monotonic() > end:
            os.killpg(process, signal.SIGKILL)
        thread, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread == process:
                return os.waitstatus_to_exitcode(status), killed_at
            continue
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP and killed_at is None:
            call = _call(thread, str(below), seen + 1)
            if call is not None:
                seen += 1
                if at(call):
                    killed_at = call
                    os.killpg(process, signal.SIGKILL)
        _resume(thread, 0 if event or number in (signal.SIGSTOP, signal.SIGTRAP) else number)


def _resume(thread: int, number: int = 0) -> None:
    with contextlib.suppress(ProcessLookupError):  # killed meanwhile: its end is reported next
        _ptrace(_CONT, thread, number)


def _call(thread: int, below: str, place: int) -> Call | None:
    """The call that a thread is about to make, None when its file is elsewhere."""
    found = _Registers()
    try:
        _ptrace(_GETREGS, thread, ctypes.cast(ctypes.byref(found), ctypes.c_void_p))
        registers = {name: int(getattr(found, name)) for name in _REGISTERS}
        given = [registers[name] for name in _ARGUMENTS]
        number = registers["orig_rax"]
        if number in BY_PATH:
            name, folder, which = BY_PATH[number]
            path = _memory(thread, given[which], 4096).split(b"\0")[0].decode(errors="replace")
            if not path.startswith("/"):
                handle = -1 if folder is None else ctypes.c_int(given[folder]).value
                base = "cwd" if handle < 0 else f"fd/{handle}"
                path = f"{Path(f'/proc/{thread}/{base}').readlink()}/{path}"
        else:
            name, which = RECEIVES.get(number) or (BY_HANDLE[number], 0)
            path = str(Path(f"/proc/{thread}/fd/{given[which]}").readlink())
    except (ProcessLookupError, FileNotFoundError):
        return None
    if not path.startswith(below):
        return None
    return Call(place, name, Path(path), thread, registers)


def _memory(thread: int, address: int, length: int) -> bytes:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        memory.seek(address)
        return memory.read(length)
