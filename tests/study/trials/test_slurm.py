"""What the driver does with what Slurm's commands say; the commands are doubles on the path."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kept_notes import KeptNotes
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.trials import slurm, slurm_queue
from secateurs.study.trials.slurm import Slurm, open_slurm
from secateurs.study.trials.slurm_queue import (
    GONE,
    JobState,
    Partition,
    choose,
    read_jobs,
    read_partitions,
)
from secateurs.study.trials.spool import ANSWER
from secateurs.study.trials.task import Resources, Task

pytest.importorskip("submitit", reason="needs pip install 'secateurs[slurm]'")
unix = pytest.mark.skipif(os.name == "nt", reason="commands are shell scripts")
DONE: dict[str, Any] = {"kind": "done", "record": {}, "log": [], "fetched": 0, "node": "box"}


def _commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        path.write_text(f"#!{sys.executable} -S\nimport sys\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


SINFO = r"print('main*|infinite|2|(null)\nmain*|infinite|8|(null)\ngpu|2:00:00|4|gpu:a100:2(S:0)')"


@unix
def test_partitions_and_jobs_are_read_from_what_slurm_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    squeue = r"print('7|PENDING|Priority\n8|RUNNING|None\n9|TIMEOUT|TimeLimit')"
    _commands(tmp_path, monkeypatch, sinfo=SINFO, squeue=squeue)
    assert read_partitions() == [
        Partition("main", None, 8, 0, True),
        Partition("gpu", 120, 4, 2, False),
    ]
    jobs = read_jobs()
    assert jobs is not None and list(jobs) == ["7", "8", "9"]
    assert [job.ended for job in jobs.values()] == [False, False, True]
    _commands(tmp_path, monkeypatch, squeue="sys.exit(1)", sinfo="sys.exit(1)")
    assert read_jobs() is None and read_partitions() == []
    monkeypatch.setenv("PATH", "")
    assert read_jobs() is None


def test_a_partition_is_chosen_by_name_and_refused_where_no_node_has_the_resources():
    both = [Partition("main", None, 8, 0, True), Partition("gpu", 120, 4, 2, False)]
    assert choose(both, "", Resources(8)) == both[0]
    assert choose(both, "gpu", Resources(4, 2.0)) == both[1]
    assert choose([], "anything", Resources(99)) is None
    with pytest.raises(InputError, match="no partition 'cpu'; there are main, gpu"):
        choose(both, "cpu", Resources(1))
    with pytest.raises(InputError, match="main has 9 CPUs for a trial; the most is 8 CPUs and 0"):
        choose(both, "", Resources(9))
    with pytest.raises(InputError, match="main has 1 CPU and 1 GPU for a trial"):
        choose(both, "", Resources(1, 1.0))


@pytest.mark.parametrize(
    ("reason", "ever", "unusual"),
    [
        ("Priority", False, False),
        ("Resources", False, False),
        ("PartitionDown", False, True),
        ("PartitionTimeLimit", True, True),
        ("QOSMaxCpuPerJobLimit", True, True),
        ("BadConstraints", True, True),
        ("AssocGrpCpuLimit", False, True),
    ],
)
def test_a_job_that_waits_for_ever_is_told_from_one_that_waits(
    reason: str, ever: bool, unusual: bool
):
    found = JobState("PENDING", reason)
    assert (found.waits_for_ever, found.waits_unusually, found.ended) == (ever, unusual, False)
    assert not JobState("RUNNING", reason).waits_for_ever


class Queue:
    """submitit's executor and Slurm's queue: each job has the states of a script, look by look."""

    def __init__(self, script: Callable[[int, Path], str | None]) -> None:
        self.script, self.numbers = script, itertools.count(1)
        self.jobs: dict[str, Path] = {}
        self.cancelled: list[str] = []

    def submit(self, command: Any) -> Any:
        number = next(self.numbers)
        folder = Path(command.command[-1])
        if self.script(-number, folder) == "refused":
            from submitit.core.utils import FailedJobError

            raise FailedJobError(
                "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: no more"
            )
        self.jobs[str(number)] = folder
        cancel = lambda: self.cancelled.append(str(number))  # noqa: E731
        return SimpleNamespace(job_id=str(number), cancel=cancel)

    def read(self) -> dict[str, JobState] | None:
        found: dict[str, JobState] = {}
        for number, folder in self.jobs.items():
            state = self.script(int(number), folder)
            if state is not None:
                word, _, reason = state.partition(" ")
                found[number] = JobState(word, reason)
        return found


def _run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[int, Path], str | None],
    *keys: str,
    stop: StopFlag | None = None,
    state: Path | None = None,
) -> tuple[Queue, list[Any], list[str]]:
    for name in ("LOOK_S", "QUEUE_S", "UNSEEN_S", "LATE_S"):
        monkeypatch.setattr(slurm, name, 0.0)
    queue, lines = Queue(script), KeptNotes()
    crew = Slurm(Resources(), queue, tmp_path, 8, read=queue.read)
    tasks = [Task(key, f"trial {key}", "", {}, state=state) for key in keys]
    found = [
        (task.key, answer.place.attempts)
        for task, answer in crew.run(iter(tasks), stop=stop or StopFlag(), progress=lines)
    ]
    return queue, found, lines.notes


def _answers(folder: Path, answer: dict[str, Any] = DONE) -> str:
    write_json(folder / ANSWER, answer)
    return "RUNNING"


@pytest.mark.parametrize("end", ["TIMEOUT", "CANCELLED", "NODE_FAIL", None])
def test_a_job_that_ends_or_vanishes_without_an_answer_is_submitted_again(
    end: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def script(number: int, folder: Path) -> str | None:
        return end if number == 1 else _answers(folder) if number > 0 else ""

    _, found, notes = _run(tmp_path, monkeypatch, script, "a")
    assert found == [("a", 2)]
    word = end or GONE
    assert notes == [
        f"trial a: its job 1 ended without an answer ({word}) (attempt 1 of 4); running it again"
    ]
    with pytest.raises(InputError, match=r"ended without an answer .* given up"):
        _run(tmp_path, monkeypatch, lambda number, folder: end, "a")


def test_a_job_that_will_never_run_is_said_and_the_others_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    queue = Queue(lambda number, folder: "PENDING PartitionTimeLimit")
    monkeypatch.setattr(slurm, "QUEUE_S", 0.0)
    crew = Slurm(Resources(), queue, tmp_path, 8, read=queue.read)
    monkeypatch.setattr(slurm, "LOOK_S", 0.0)
    with pytest.raises(InputError, match=r"job 1 will never run \(PartitionTimeLimit\)"):
        list(crew.run(iter([Task("a", "a", "", {}), Task("b", "b", "", {})]), stop=StopFlag()))
    assert queue.cancelled == ["1", "2"]


def test_an_unusual_wait_is_said_once_and_a_controller_without_answer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks = itertools.count()

    def script(number: int, folder: Path) -> str | None:
        if number < 0:
            return ""
        return "PENDING PartitionDown" if next(looks) < 6 else _answers(folder)

    queue, found, notes = _run(tmp_path, monkeypatch, script, "a", "b")
    assert sorted(found) == [("a", 1), ("b", 1)]
    assert notes == ["slurm: job 1 waits (PartitionDown)"]
    away = iter([None, None])
    crew = Slurm(Resources(), queue, tmp_path, 8, read=lambda: next(away, queue.read()))
    ((task, _),) = crew.run(iter([Task("c", "c", "", {})]), stop=StopFlag())
    assert task.key == "c"


def test_a_limit_on_jobs_is_kept_and_a_refusal_of_the_first_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def script(number: int, folder: Path) -> str | None:
        if number < 0:
            return "refused" if number == -3 else ""
        return _answers(folder)

    _, found, notes = _run(tmp_path, monkeypatch, script, *"abcd")
    assert sorted(found) == [(key, 1) for key in "abcd"]
    assert notes == ["slurm: no more than 2 jobs at once (no more)"]
    with pytest.raises(InputError, match=r"slurm: a job is refused \(no more\)"):
        _run(tmp_path, monkeypatch, lambda number, folder: "refused", "a")


def test_a_training_at_the_end_of_its_time_goes_on_and_that_is_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    state = tmp_path / "a.state"
    stopped = DONE | {"kind": "stopped", "text": ""}

    def script(number: int, folder: Path) -> str | None:
        if number < 0:
            return ""
        if number <= 6:
            state.write_text(str(number))
            return _answers(folder, stopped)
        return _answers(folder)

    queue, found, notes = _run(tmp_path, monkeypatch, script, "a", state=state)
    assert found == [("a", 1)] and len(notes) == 6
    assert len(set(queue.jobs.values())) == 7  # an answer of one job is not read as the next one's
    assert notes[0] == "trial a: stopped on box; it goes on from there"

    # One that learns nothing is given up.
    with pytest.raises(InputError, match=r"stopped on box, by whoever manages it .* given up"):
        _run(tmp_path, monkeypatch, lambda n, f: _answers(f, stopped) if n > 0 else "", "b")


def test_a_stop_waits_until_the_jobs_have_left_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stop, looks = StopFlag(), itertools.count()

    def script(number: int, folder: Path) -> str | None:
        stop.request()
        return "RUNNING" if next(looks) < 4 else "CANCELLED"

    with pytest.raises(StopRequested):
        _run(tmp_path, monkeypatch, script, "a", "b", stop=stop)
    assert next(looks) > 4


@unix
def test_jobs_ask_for_no_more_time_than_their_partition_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _commands(tmp_path / "bin", monkeypatch, sinfo=SINFO, sbatch="", squeue="", srun="")
    asked: dict[str, Any] = {}

    class Auto:
        def __init__(self, **words: Any) -> None:
            asked.update(words)

        def update_parameters(self, **words: Any) -> None:
            asked.update(words)

    monkeypatch.setattr("submitit.AutoExecutor", Auto)
    with open_slurm("gpu", Resources(4, 2.0), tmp_path) as crew:
        assert crew._read is slurm_queue.read_jobs
    assert (asked["timeout_min"], asked["slurm_partition"]) == (120, "gpu")
    assert asked["slurm_additional_parameters"] == {"signal": "TERM@60"}
    with open_slurm("", Resources(), tmp_path):
        assert asked["timeout_min"] == 24 * 60
