"""What a session writes and prints beside the work of its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from secateurs.cli.parsing.config_file import NAME, RECORD_KEY, Parameter, RunConfig
from secateurs.cli.parsing.session import Session, session_of
from secateurs.errors import InputError
from secateurs.progress import SILENT, Said
from secateurs.stopping import StopRequested
from secateurs.study.records.checksummed import read_sealed

CONFIG = RunConfig("train", (Parameter("epochs", "epochs", int, "N", False),), {"epochs": 3})


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(SILENT, tmp_path / "cache", as_json=False, config=CONFIG)


def test_the_configuration_is_kept_once_the_work_is_done(session: Session, tmp_path: Path):
    with session.running(tmp_path):
        assert not (tmp_path / NAME).exists()
    assert "epochs = 3" in (tmp_path / NAME).read_text()


def test_the_configuration_of_interrupted_work_is_kept(session: Session, tmp_path: Path):
    with pytest.raises(StopRequested), session.running(tmp_path):
        raise StopRequested
    assert (tmp_path / NAME).exists()
    with pytest.raises(StopRequested), session.running(tmp_path / "nothing"):
        raise StopRequested
    assert not (tmp_path / "nothing").exists()


def test_bad_input_writes_no_configuration(session: Session, tmp_path: Path):
    with pytest.raises(InputError), session.running(tmp_path):
        raise InputError("other options")
    assert not (tmp_path / NAME).exists()


def test_an_answer_repeats_notes_only_where_they_are_not_seen(
    session: Session, capsys, monkeypatch: pytest.MonkeyPatch
):
    said = Said(SILENT)
    said.note("the folder is new")
    own = replace(session, progress=said)
    for same in (True, False):
        monkeypatch.setattr("secateurs.cli.parsing.session.same_stream", lambda *_, same=same: same)
        own.answer({"a": 1}, "result\nnote: the folder is new")
        assert ("the folder is new" in capsys.readouterr().out) != same
    replace(own, as_json=True).answer({"a": "the folder is new"}, "")
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"a": "the folder is new", RECORD_KEY: CONFIG.text(Path.cwd())}


@pytest.mark.parametrize("sealed", [False, True])
def test_the_configuration_is_in_the_record(session: Session, tmp_path: Path, sealed: bool):
    kept = session.keep(tmp_path, "record.json", {"a": 1}, sealed=sealed)
    assert kept == {"a": 1, RECORD_KEY: (tmp_path / NAME).read_text()}
    assert read_sealed(tmp_path / "record.json", unsealed=not sealed) == kept
    # An earlier run's text is replaced, and a record without a configuration is left as it is.
    assert session.keep(tmp_path, "record.json", {"a": 1, RECORD_KEY: "old"}) == kept
    assert replace(session, config=None).keep(tmp_path, "record.json", {"a": 1}) == {"a": 1}


def test_only_visible_progress_remembers_its_notes():
    assert isinstance(session_of(None, progress="plain").progress, Said)
    assert not isinstance(session_of(None, progress="auto", quiet=True).progress, Said)
