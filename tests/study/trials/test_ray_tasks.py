"""What the driver does when Ray says that something was lost, is missing, or is slow."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save

from kept_notes import KeptNotes
from secateurs.errors import InputError
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.trials.contents import content_of
from secateurs.study.trials.ray import tasks as ray_tasks
from secateurs.study.trials.ray.board import BoardActor, News
from secateurs.study.trials.ray.failures import loss
from secateurs.study.trials.ray.outputs import RayOutputs
from secateurs.study.trials.ray.tasks import RayCluster
from secateurs.study.trials.task import Resources, Task
from secateurs.study.trials.worker import own_versions

KINDS = (
    *("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError"),
    *("ObjectStoreFullError", "OutOfDiskError", "TaskCancelledError", "TaskUnschedulableError"),
    *("ActorDiedError", "LocalRayletDiedError"),
)
ANSWER: dict[str, Any] = {"kind": "done", "record": {"x": 1}, "log": [], "fetched": 0, "node": "n1"}
Script = Callable[[dict[str, Any], dict[str, list[Any]], int], Any]


class FakeRay:
    """Ray's calls, with results as a script gives them: an answer, an error, or None for never."""

    def __init__(self, script: Script) -> None:
        self.exceptions = SimpleNamespace(RayError=RuntimeError)
        for kind in KINDS:
            setattr(self.exceptions, kind, type(kind, (RuntimeError,), {}))
        self.script, self.numbers = script, itertools.count()
        self.results: dict[Any, Any] = {}
        self.cancelled: list[Any] = []
        self.tensors = save({"t": torch.arange(3.0)})
        self.begun: list[str] = []
        self.left: dict[str, Any] | None = None  # what a task says when it is cancelled
        self.seen: list[tuple[str, Any]] = []

    def remote(
        self, words: dict[str, Any], parts: dict[str, list[Any]], board: Any, given: Any = None
    ) -> Any:
        number = next(self.numbers)
        self.begun.append(words["key"])
        self.seen.append((words["key"], given))
        found = self.script(words, parts, number)
        if found is not None:
            self.results[f"ref{number}"] = found
        self.results[f"tensors{number}"] = self.tensors
        return f"ref{number}", f"tensors{number}"

    def wait(self, refs: list[Any], timeout: float = 0, **_: Any) -> Any:
        ready = [ref for ref in refs if ref in self.results]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Any, timeout: float = 0) -> Any:
        found = self.results[ref]
        if isinstance(found, Exception):
            raise found
        return found

    def put(self, array: Any) -> bytes:
        return array.tobytes()

    def cancel(self, ref: Any, force: bool = False) -> None:
        self.cancelled.append(ref)
        if self.left is not None:
            self.results[ref] = {"kind": "stopped", **self.left}

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": f"n{k}", "Alive": True, "NodeManagerHostname": f"box{k}"}
            | {"Resources": {"CPU": 1.0, "object_store_memory": 1e9}}
            for k in (1, 2)
        ]


def _cluster(ray: FakeRay) -> RayCluster:
    crew = RayCluster.__new__(RayCluster)
    crew.resources = Resources()
    crew._ray, crew._session, crew._shared_disk = ray, "s", True
    crew._parts, crew._names, crew._lengths = {}, {}, []
    crew._outputs = RayOutputs(ray, lambda node: ray)
    crew._room, crew._looked = 0, -100.0
    crew._board = SimpleNamespace(read=SimpleNamespace(remote=lambda: "news"))
    crew._news = News(ray, crew._board)
    crew._task = ray
    return crew


def _run(script: Script, *tasks: Task) -> tuple[FakeRay, list[Any], list[str]]:
    ray, lines = FakeRay(script), KeptNotes()
    crew = _cluster(ray)
    found = [
        (task.key, answer.place, answer.tensors())
        for task, answer in crew.run(iter(tasks), stop=StopFlag(), progress=lines)
    ]
    return ray, found, lines.notes


def _task(key: str, *files: Any) -> Task:
    return Task(key, f"trial {key}", "secateurs.study.trials.worker:train", {}, files)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_is_run_again_and_said(kind: str):
    ray = FakeRay(lambda words, parts, number: None)
    ray.script = lambda words, parts, number: (
        getattr(ray.exceptions, kind)() if number == 0 else ANSWER
    )
    lines = KeptNotes()
    ((task, answer),) = _cluster(ray).run(iter([_task("a")]), stop=StopFlag(), progress=lines)
    assert (task.key, answer.place.attempts, answer.place.node) == ("a", 2, "box1")
    tensors = answer.tensors()
    assert tensors is not None and torch.equal(tensors["t"], torch.arange(3.0))
    assert lines.notes == [
        f"trial a: {loss(getattr(ray.exceptions, kind)(), '')} (attempt 1 of 4); running it again"
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("memory", r"trial a: out of memory on box1 \(why\) .* given up"),
        ("disk", r"trial a: files of box1 failed \(why\) .* given up"),
        ("stopped", "trial a: stopped on box1, by whoever manages it .* given up"),
    ],
)
def test_what_a_machine_lacks_may_be_had_later_and_is_given_up_in_the_end(kind: str, said: str):
    answers = [{**ANSWER, "kind": kind, "text": "why"}] * 4
    with pytest.raises(InputError, match=said):
        _run(lambda words, parts, number: answers[0], _task("a"))
    _, found, notes = _run(lambda words, parts, number: [*answers, ANSWER][number + 3], _task("a"))
    assert [place.attempts for _, place, _ in found] == [2] and "running it again" in notes[0]


def test_files_are_sent_when_a_node_lacks_them_and_that_is_no_attempt(tmp_path: Path):
    (tmp_path / "file.bin").write_bytes(b"content")
    file = content_of(tmp_path / "file.bin")

    def script(words: dict[str, Any], parts: dict[str, list[Any]], number: int) -> Any:
        return ANSWER if parts else {"kind": "needs", "node": "n1"}

    ray, found, notes = _run(script, _task("a", file), _task("b", file))
    assert sorted(key for key, _, _ in found) == ["a", "b"]
    assert {place.attempts for _, place, _ in found} == {1} and notes == []
    assert ray.begun[:2] == ["a", "b"]


def test_a_slow_task_is_begun_elsewhere_as_well_and_the_first_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(ray_tasks, "SLOW_S", 0.0)
    slow = 4

    def script(words: dict[str, Any], parts: Any, number: int) -> Any:
        return None if words["key"] == "e" and number == slow else ANSWER

    tasks = [_task(key) for key in "abcde"]
    ray, found, notes = _run(script, *tasks)
    assert sorted(key for key, _, _ in found) == list("abcde")
    assert ray.begun.count("e") == 2 and ray.cancelled == [f"ref{slow}"]
    assert notes == ["trial e: slow on an unknown node; begun elsewhere as well"]


def test_a_stop_cancels_our_tasks_and_waits_for_their_states():
    stop = StopFlag()

    def script(words: dict[str, Any], parts: Any, number: int) -> Any:
        stop.request()
        return None

    ray = FakeRay(script)
    with pytest.raises(StopRequested):
        list(_cluster(ray).run(iter([_task("a")]), stop=stop))
    assert set(ray.cancelled) == {"ref0"}


def test_room_is_counted_node_by_node():
    crew = _cluster(FakeRay(lambda words, parts, number: None))
    half = {"NodeID": "a", "Resources": {"CPU": 5.0, "GPU": 2.0}}
    for resources, room in (
        (Resources(2), 2),
        (Resources(1, 0.5), 4),
        (Resources(3, 0.5), 1),
        (Resources(1, 3.0), 0),
    ):
        crew.resources = resources
        assert crew._look([half]) == room


def test_resources_that_no_node_has_are_said_in_one_line():
    crew = _cluster(FakeRay(lambda words, parts, number: None))
    crew.resources = Resources(4, 1.0)
    with pytest.raises(InputError, match="no node has 4 CPUs and 1 GPU for a trial; the largest"):
        crew.check(KeptNotes())


def test_what_a_task_has_computed_is_passed_on_and_left_when_it_is_lost_twice():
    shared = Task("p", "frozen", "secateurs.study.trials.worker:frozen_outputs", {})

    def script(words: dict[str, Any], parts: Any, number: int) -> Any:
        if words["key"] == "p":
            return 3  # bytes
        if words["key"] == "c" and ray.begun.count("c") < 3:
            return ray.exceptions.ObjectLostError()
        return ANSWER

    ray = FakeRay(script)
    crew = _cluster(ray)
    crew.resources = Resources(2)  # room for one and the next
    tasks = [Task(key, key, "", {}, (), shared) for key in "abc"]
    tasks.append(Task("d", "d", "", {}))
    found = {task.key: answer.place for task, answer in crew.run(iter(tasks), stop=StopFlag())}
    assert ray.begun.count("p") == 1
    given = {key: [one for name, one in ray.seen if name == key] for key in "abcd"}
    assert given["a"] == [None] and given["b"] == given["c"][:1] != [None]
    assert found["c"].attempts == 3 and given["c"][-1] is None and given["d"] == [None]


def test_a_stop_brings_back_the_states_of_trainings(tmp_path: Path):
    stop, path = StopFlag(), tmp_path / "trials" / "a.state.safetensors"

    def script(words: dict[str, Any], parts: Any, number: int) -> Any:
        stop.request()
        return None

    ray = FakeRay(script)
    ray.left, ray.tensors = {}, save({"state": torch.arange(3, dtype=torch.uint8)})
    task = Task("a", "a", "", {}, state=path)
    with pytest.raises(StopRequested):
        list(_cluster(ray).run(iter([task]), stop=stop))
    assert path.read_bytes() == bytes([0, 1, 2])


def test_a_cluster_that_is_lost_is_said_in_one_line():
    ray = FakeRay(lambda words, parts, number: None)

    def gone() -> list[dict[str, Any]]:
        raise ray.exceptions.RayError("first line\nno connection to the head")

    ray.nodes = gone
    with pytest.raises(
        InputError, match=r"the cluster is lost \(no connection to the head\)\. What"
    ):
        list(_cluster(ray).run(iter([_task("a")]), stop=StopFlag()))


def test_a_node_that_has_joined_and_cannot_run_a_task_is_named(monkeypatch: pytest.MonkeyPatch):
    ray = FakeRay(lambda words, parts, number: None)
    ray.script = lambda words, parts, number: ray.exceptions.RayError("no module secateurs")
    crew = _cluster(ray)
    found = iter([None, InputError("ray: box2 cannot run Secateurs; install it on all nodes")])

    def check(progress: Any) -> None:
        error = next(found)
        if error is not None:
            raise error

    monkeypatch.setattr(crew, "check", check)
    for said in ("ray: trial a: no module secateurs", "ray: box2 cannot run Secateurs"):
        with pytest.raises(InputError, match=said):
            list(crew.run(iter([_task("a")]), stop=StopFlag()))


def test_nodes_that_are_slow_to_answer_are_said_and_those_with_other_versions_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    ray, lines = FakeRay(lambda words, parts, number: None), KeptNotes()
    asked = iter(["hello1", "hello2"])
    remote = SimpleNamespace(remote=lambda: next(asked))
    monkeypatch.setattr(ray, "remote", lambda function: remote)
    remote.options = lambda **words: remote
    crew = _cluster(ray)
    monkeypatch.setattr(crew, "_on", lambda node: {})
    ray.results = {"hello1": {"versions": own_versions()}}
    crew.check(lines)
    assert lines.notes == [
        "ray: waiting for 1 node to start Secateurs",
        "ray: box2 has not answered yet",
    ]
    asked = iter(["hello1", "hello2"])
    ray.results["hello2"] = {"versions": own_versions() | {"Python": "2.7"}}
    with pytest.raises(InputError, match=r"ray: box2 has Python 2\.7 \(the driver 3\."):
        crew.check(lines)


def test_news_that_come_late_are_not_lost():
    ray = FakeRay(lambda words, parts, number: None)
    board = BoardActor()
    asked = itertools.count()
    news = News(ray, SimpleNamespace(read=SimpleNamespace(remote=lambda: f"read{next(asked)}")))
    board.say({"key": "a", "node": "n1"})
    board.say({"key": "a", "done": 3, "total": 9})
    assert news.read() == [] and news.read() == []  # the board has not answered yet
    ray.results["read0"] = board.read()
    assert news.read() == [{"key": "a", "node": "n1", "done": 3, "total": 9}]
    ray.results["read1"] = ray.exceptions.ActorDiedError()
    assert news.read() == []
    ray.results["read2"] = board.read()
    assert news.read() == [] and next(asked) == 3


def test_a_training_on_a_node_that_is_drained_goes_on_elsewhere_from_its_state(tmp_path: Path):
    path = tmp_path / "trials" / "a.state.safetensors"
    seen: list[Any] = []

    def script(words: dict[str, Any], parts: Any, number: int) -> Any:
        seen.append(words["arguments"]["resume"])
        return {**ANSWER, "kind": "stopped", "text": ""} if number < 2 else ANSWER

    ray, lines = FakeRay(script), KeptNotes()
    ray.tensors = save({"state": torch.arange(3, dtype=torch.uint8)})
    task = Task("a", "a", "", {"resume": None}, state=path)
    ((_, answer),) = _cluster(ray).run(iter([task]), stop=StopFlag(), progress=lines)
    left = content_of(path)
    assert path.read_bytes() == bytes([0, 1, 2]) and answer.place.attempts == 3
    assert seen == [None, left.to_json(), left.to_json()]
    assert task.going_on().files == task.going_on().going_on().files == (left,)
    assert lines.notes[0].startswith("a: stopped on box1, by whoever manages it (attempt 1 of 4)")
