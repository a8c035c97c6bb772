"""Lines on a terminal break between words; text for files and pipes is not changed."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from secateurs.progress import SILENT, Said
from secateurs.terminal import fitted, same_stream


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


TEXT = "validation accuracy 40.0% (19.8% to 64.3%) on well-known images\nmodel: a/b-c/d"


@pytest.mark.parametrize("columns", [12, 20, 40, 80])
def test_lines_break_between_words(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = fitted(TEXT, Terminal()).split("\n")
    words = [word for line in lines for word in line.split()]
    assert words == TEXT.split()
    assert all(len(line) <= columns or len(line.split()) == 1 for line in lines)


def test_tables_and_long_words_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "20")
    table = "class      precision      recall\nplain           0.5         0.7"
    assert fitted(table, Terminal()) == table
    path = "/a/very/long/path/without/any/blank"
    assert fitted(path, Terminal()) == path


def test_files_and_pipes_get_whole_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert fitted(TEXT, io.StringIO()) == TEXT


def test_streams_to_one_place_are_the_same(tmp_path: Path):
    with (tmp_path / "a").open("w") as a, (tmp_path / "b").open("w") as b:
        again = os.fdopen(os.dup(a.fileno()), "w")
        assert same_stream(a, again)
        assert not same_stream(a, b)
        again.close()
    assert not same_stream(io.StringIO(), sys.__stderr__ or io.StringIO())


def test_an_answer_does_not_repeat_what_was_noted():
    said = Said(SILENT)
    said.note("Freeze 3 layers.")
    said.note("the folder is new")
    text = (
        "Freeze 3 layers. Run 1 is best.\nnote: the folder is new\ncaution: few\nFreeze 3 layers."
    )
    assert said.without_notes(text) == "Run 1 is best.\ncaution: few"
    assert Said(SILENT).without_notes(text) == text
