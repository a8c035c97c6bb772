from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from secateurs import leases
from secateurs.leases import held_elsewhere, leased


def _of_another(path: Path, age_s: float) -> None:
    path.write_text(json.dumps({"host": "another", "process": 1, "token": "t"}))
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_a_lease_is_there_while_it_is_held(tmp_path: Path):
    path = tmp_path / "key.lease"
    with leased(path) as mine:
        assert mine and path.exists() and not held_elsewhere(path)
    assert list(tmp_path.iterdir()) == []


def test_one_of_another_machine_is_left_until_it_has_expired(tmp_path: Path):
    path = tmp_path / "key.lease"
    _of_another(path, age_s=60)
    assert held_elsewhere(path)
    with leased(path) as mine:
        assert not mine
    assert json.loads(path.read_text())["host"] == "another"
    _of_another(path, age_s=100)
    assert not held_elsewhere(path)
    with leased(path) as mine:
        assert mine and json.loads(path.read_text())["host"] != "another"
    assert list(tmp_path.iterdir()) == []


def test_one_that_this_machine_has_left_is_taken_at_once(tmp_path: Path):
    path = tmp_path / "key.lease"
    with leased(path):
        left = path.read_text()
    path.write_text(left)
    with leased(path) as mine:
        assert mine


def test_one_that_was_taken_over_is_not_removed_by_its_former_holder(tmp_path: Path):
    path = tmp_path / "key.lease"
    with leased(path) as mine:
        assert mine
        _of_another(path, age_s=0)
    assert json.loads(path.read_text())["host"] == "another"


def test_one_that_is_damaged_counts_until_it_has_expired(tmp_path: Path):
    path = tmp_path / "key.lease"
    path.write_text("[")
    with leased(path) as mine:
        assert not mine
    then = time.time() - 100
    os.utime(path, (then, then))
    with leased(path) as mine:
        assert mine


def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    path = tmp_path / "key.lease"
    with leased(path):
        os.utime(path, (1, 1))
        until = time.monotonic() + 20
        while path.stat().st_mtime < 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert path.stat().st_mtime > 2


def test_one_whose_clock_was_set_back_expires_when_it_no_longer_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    path = tmp_path / "key.lease"
    _of_another(path, age_s=-7200)  # as written before the clock was set back by two hours
    for later, change in ((0, False), (80, True), (80, False), (89, False)):
        now[0] += later
        if change:  # it is renewed
            os.utime(path, (time.time() + 7300,) * 2)
        with leased(path) as mine:
            assert mine == (later == 89)
    assert list(tmp_path.iterdir()) == []
