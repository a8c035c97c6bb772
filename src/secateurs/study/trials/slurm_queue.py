"""What Slurm says of its partitions and of our jobs, by its own commands.

`squeue` is asked and not `sacct`, which needs an accounting database that many clusters have not.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from secateurs.errors import InputError
from secateurs.study.trials.task import Resources

COMMAND_S = 30.0
ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "SPECIAL_EXIT", "TIMEOUT"),
    )
)
GONE = "gone from the queue"
# Why a job waits that waits for its turn, and why one will wait for ever.
USUAL = frozenset(("", "None", "Resources", "Priority", "BeginTime", "Cleaning", "Prolog"))
_NEVER = re.compile(
    r"BadConstraints|Partition(Time|Node)Limit|Invalid(Account|QOS)|\w*PerJob\w*|\w*Limit\w*PerJob"
)


@dataclass(frozen=True)
class JobState:
    """A job's state in Slurm's word, and why it waits."""

    state: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether it runs no more and will not run."""
        return self.state in ENDED or self.state == GONE

    @property
    def waits_for_ever(self) -> bool:
        """Whether it waits for what no other job's end will bring."""
        return self.state == "PENDING" and _NEVER.fullmatch(self.reason) is not None

    @property
    def waits_unusually(self) -> bool:
        """Whether it waits for something else than its turn, as a partition that is down."""
        return self.state == "PENDING" and self.reason not in USUAL


@dataclass(frozen=True)
class Partition:
    """What the nodes of a partition have: the longest time of a job, the most CPUs and cards."""

    name: str
    minutes: int | None
    cpus: int
    gpus: int
    is_default: bool


def read_partitions() -> list[Partition]:
    """The partitions that `sinfo` names; none where it does not answer."""
    found: dict[str, Partition] = {}
    for line in (_run("sinfo", "-h", "-N", "-o", "%P|%l|%c|%G") or "").splitlines():
        words = line.strip().split("|")
        if len(words) != 4 or not words[2].isdecimal():
            continue
        name, cpus, gpus = words[0].rstrip("*"), int(words[2]), _cards(words[3])
        known = found.get(name)
        if known is not None:
            cpus, gpus = max(cpus, known.cpus), max(gpus, known.gpus)
        found[name] = Partition(name, minutes(words[1]), cpus, gpus, words[0].endswith("*"))
    return list(found.values())


def choose(partitions: list[Partition], name: str, resources: Resources) -> Partition | None:
    """The partition of a name, by default the cluster's; None where nothing is known.

    Raises InputError for one that is not there, and where no node has the resources.
    """
    chosen = next(
        (one for one in partitions if one.name == name or (not name and one.is_default)), None
    )
    if chosen is None:
        if name and partitions:
            known = ", ".join(one.name for one in partitions)
            raise InputError(f"slurm: there is no partition {name!r}; there are {known}")
        return None
    if resources.cpus > chosen.cpus or resources.gpus > chosen.gpus:
        raise InputError(
            f"slurm: no node of partition {chosen.name} has {resources.words()} for a trial; the "
            f"most is {chosen.cpus} CPUs and {chosen.gpus} GPUs"
        )
    return chosen


def read_jobs() -> dict[str, JobState] | None:
    """The jobs of this user by number, and those that have just ended; None without an answer."""
    text = _run("squeue", "-h", "-t", "all", "-u", str(os.getuid()), "-o", "%A|%T|%r")
    if text is None:
        return None
    rows = [line.strip().split("|", 2) for line in text.splitlines()]
    return {row[0]: JobState(row[1], row[2]) for row in rows if len(row) == 3}


def minutes(text: str) -> int | None:
    """Minutes of a time as Slurm writes it; None for no limit.

    >>> minutes("1:00"), minutes("2:30:00"), minutes("1-00:00:00"), minutes("infinite")
    (1, 150, 1440, None)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, rest = (int(found[at] or 0) for at in (1, 2, 3))
    return max(1, (24 * days + hours) * 60 + rest)


def _cards(text: str) -> int:
    """Cards of a node by its generic resources.

    >>> _cards("gpu:a100:4(S:0-1),gpu:2"), _cards("(null)")
    (6, 0)
    """
    plain = re.sub(r"\([^)]*\)", "", text)
    return sum(int(number) for number in re.findall(r"\bgpu(?::[^:,]+)?:(\d+)", plain))


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
