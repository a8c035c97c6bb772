"""Progress as people and programs read it on stderr."""

from __future__ import annotations

import json
import time

import pytest

from secateurs.errors import InputError
from secateurs.progress import (
    SILENT,
    Console,
    JsonLines,
    Plain,
    duration,
    epoch_task,
    progress_of,
)


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_json_lines_tell_done_total_and_time_left(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    progress = JsonLines(clock=clock)
    with progress.task("trials", 4) as outer:
        clock.now += 0.1
        outer(1)  # too soon after the start to be worth a line
        clock.now += 1.9
        with progress.task("depth 5 run 1", 2) as inner:
            inner(2)
        progress.note("weights: 5 of 8 layers")
        outer(1)
        clock.now += 1.0
        outer(2)
    printed = capsys.readouterr()
    assert printed.out == ""
    events = [json.loads(line) for line in printed.err.splitlines()]
    assert [(event["event"], event.get("id")) for event in events] == [
        ("start", 1),
        ("start", 2),
        ("end", 2),
        ("note", None),
        ("progress", 1),
        ("progress", 1),
        ("end", 1),
    ]
    half = events[4]
    assert (half["task"], half["done"], half["total"]) == ("trials", 2, 4)
    assert half["elapsed_s"] == half["left_s"] == 2.0  # half of the steps, half of the time
    assert events[0]["left_s"] is None
    assert (events[-1]["done"], events[-1]["left_s"], events[-1]["elapsed_s"]) == (4, 0.0, 3.0)
    assert events[3] == {"event": "note", "text": "weights: 5 of 8 layers"}


def test_a_task_that_fails_ends_with_steps_undone(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError), JsonLines().task("refit", 3) as advance:
        advance(1)
        raise RuntimeError
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (last["event"], last["done"], last["total"]) == ("end", 1, 3)


def test_plain_lines_come_every_ten_seconds(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    progress = Plain(clock=clock)
    with progress.task("trials", 10) as advance:
        for _ in range(10):
            clock.now += 4
            advance(1)
    progress.note("done [100%]")
    assert capsys.readouterr().err.splitlines() == [
        "trials: 3 of 10, 12 s, about 28 s left",
        "trials: 6 of 10, 24 s, about 16 s left",
        "trials: 9 of 10, 36 s, about 4 s left",
        "done [100%]",
    ]


def test_plain_lines_of_hours_come_once_a_minute(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with Plain(clock=clock).task("trials", 3600) as advance:
        counts = []
        for seconds in (60, 540, 3000):
            for _ in range(seconds):
                clock.now += 1
                advance(1)
            counts.append(len(capsys.readouterr().err.splitlines()))
    # Every 10 s up to 100 s, then by a tenth of the time so far, then by 60 s.
    assert counts[0] == 6
    assert 20 <= counts[1] <= 24
    assert counts[2] == 50


def test_plain_lines_also_come_while_one_step_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("secateurs.progress.WATCH_S", 0.01)
    clock = Clock()
    progress = Plain(clock=clock)
    with progress.task("sizes", 2), progress.task("pruning", 1):
        clock.now += 12
        deadline = time.monotonic() + 5
        found = ""
        while not found and time.monotonic() < deadline:
            time.sleep(0.01)
            found = capsys.readouterr().err
    assert found == "pruning: 12 s\n"


def test_bars_show_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    progress = Console()
    shown, deadline = "", time.monotonic() + 10
    with progress.task("trials", 4) as advance:
        advance(2)
        while "2/4" not in shown and time.monotonic() < deadline:
            time.sleep(0.05)  # bars are drawn ten times a second
            shown += capsys.readouterr().err
    progress.note("weights [none]")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "weights [none]" in printed.err
    for word in ("trials", "2/4", "left"):
        assert word in shown


@pytest.mark.parametrize("columns", [50, 120])
def test_a_single_step_is_not_said_to_be_0_of_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
):
    """It may take minutes: what is shown is that time goes on."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = Console()
    shown, deadline = "", time.monotonic() + 10
    with progress.task("pruning to 50%", 1) as advance:
        while "0:00:01" not in shown and time.monotonic() < deadline:
            time.sleep(0.05)
            shown += capsys.readouterr().err
        advance(1)
    assert "pruning to 50%" in shown
    assert "0:00:01" in shown
    assert "0/1" not in shown and "left" not in shown


def test_which_progress_the_words_ask_for(monkeypatch: pytest.MonkeyPatch):
    assert progress_of(quiet=True) is progress_of("none") is progress_of("none", quiet=True)
    assert progress_of("none") is SILENT
    assert isinstance(progress_of("json"), JsonLines)
    assert isinstance(progress_of("rich"), Console)
    for terminal, kind in ((True, Console), (False, Plain)):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        assert isinstance(progress_of(), kind)
    with pytest.raises(InputError, match="progress must be auto, rich, plain, json or none, got"):
        progress_of("xml")
    with pytest.raises(InputError, match="--quiet prints no progress, --progress json does"):
        progress_of("json", quiet=True)


def test_a_duration_is_rounded_as_people_say_it():
    known = {
        0: "0 s", 89.4: "89 s", 89.6: "1 min 30 s", 100: "1 min 40 s", 116: "2 min",
        149: "2 min 30 s", 594: "9 min 50 s", 596: "10 min", 629: "10 min", 631: "11 min",
        5399: "90 min", 5401: "1.5 h",
    }  # fmt: skip
    assert {seconds: duration(seconds) for seconds in known} == known


def test_a_resumed_training_begins_where_it_was(capsys):
    clock = Clock()
    with epoch_task(JsonLines(clock=clock), "depth 5 run 1", 8) as epochs:
        epochs.start(6)
        clock.now += 10
        epochs.end_one(None)
    first, second, last = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["event"], first["done"], first["total"]) == ("start", 6, 8)
    assert first["task"] == "epochs of depth 5 run 1"
    assert (second["done"], second["left_s"]) == (7, 10.0)
    assert (last["event"], last["done"]) == ("end", 7)
