from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from secateurs.data.splits import image_groups as groups
from secateurs.data.splits.image_groups import (
    groups_from_csv,
    groups_from_pattern,
    joined_groups,
    parse_group_by,
)
from secateurs.errors import InputError

NAMES = ("a/12_x.png", "b/deep/34_y.png")


def test_the_first_capture_group_or_the_whole_match_of_the_file_name():
    assert groups_from_pattern(NAMES, r"^(\d+)_") == ("12", "34")
    assert groups_from_pattern(NAMES, r"\d\d_.") == ("12_x", "34_y")
    # Folders are no part of the file name.
    with pytest.raises(InputError, match=r"finds nothing in the file name of a/12_x\.png"):
        groups_from_pattern(NAMES, "a/|deep")


def test_a_capture_that_takes_no_part_is_no_group():
    with pytest.raises(InputError, match=r"finds nothing in the file name of b/deep/34_y\.png"):
        groups_from_pattern(NAMES, r"(1)?\d_")


def test_a_broken_expression():
    for deep in ("(" * 5000, "a{99999999999}"):  # as a damaged model.json may say
        with pytest.raises(InputError, match=r"not a regular expression") as refused:
            groups_from_pattern(["a.png"], deep)
        assert len(str(refused.value)) < 200
    with pytest.raises(InputError, match=r"--group-by '\(\[': not a regular expression"):
        groups_from_pattern(NAMES, "([")


def test_csv_as_spreadsheets_write_it(tmp_path: Path):
    table = tmp_path / "groups.CSV"
    table.write_text(
        '\ufeffgroup,name,note\r\n"Ann, A.",a/12_x.png,\r\n'
        "Ben,b\\deep\\34_y.png,q\r\nC,c/z.png,\r\n",
        encoding="utf-8",
    )
    assert parse_group_by(NAMES, str(table)) == ("Ann, A.", "Ben")
    assert parse_group_by(NAMES, r"(\d+)") == ("12", "34")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\n", "expected the columns name,group, got file,group"),
        ("", "expected the columns name,group"),
        ("name,group\na/12_x.png,\n", "line 2 lacks a name or a group"),
        ("name,group\na/12_x.png\n", "line 2 lacks a name or a group"),
        ("name,group\na/12_x.png,p\na/12_x.png,q\n", r"12_x\.png is in two groups, p and q"),
        ("name,group\na/12_x.png,p\n", r"1 of 2 images have no row \(first: b/deep/34_y\.png\)"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, text: str, message: str):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        groups_from_csv(NAMES, tmp_path / "g.csv")


def test_csv_that_is_not_there_or_not_text(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        parse_group_by(NAMES, str(tmp_path / "none.csv"))
    (tmp_path / "g.csv").write_bytes(b"name,group\n\xff\xfe")
    with pytest.raises(InputError, match=r"g\.csv: not readable as CSV"):
        groups_from_csv(NAMES, tmp_path / "g.csv")


@pytest.mark.parametrize(
    "text",
    [
        "name;group\na/12_x.png;Ann\nb/deep/34_y.png;Ben\n",
        "sep=;\r\nName;Group;note\r\na\\12_x.png;Ann;x,y\r\n./b/deep/34_y.png;Ben;\r\n;;\r\n",
        "name\tgroup\na/12_x.png\tAnn\nb/deep/34_y.png\tBen\n",
        'note|"name"|group\n,|a/12_x.png|Ann\n|b/deep/34_y.png|Ben\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_with_other_separators(tmp_path: Path, text: str, encoding: str):
    (tmp_path / "g.csv").write_bytes(text.encode(encoding))
    assert groups_from_csv(NAMES, tmp_path / "g.csv") == ("Ann", "Ben")


def test_a_table_with_tabs_goes_by_its_extension(tmp_path: Path):
    (tmp_path / "g.TSV").write_text("name\tgroup\na/12_x.png\tAnn\nb/deep/34_y.png\tBen\n")
    assert parse_group_by(NAMES, str(tmp_path / "g.TSV")) == ("Ann", "Ben")


def test_the_separator_that_was_taken_is_said(tmp_path: Path):
    (tmp_path / "g.csv").write_text("name;sender\na/12_x.png;Ann\n")
    with pytest.raises(InputError, match=r"got name,sender \(separated by semicolons\)"):
        groups_from_csv(NAMES, tmp_path / "g.csv")


def test_both_spellings_of_an_accent_are_one_name_and_one_group(tmp_path: Path):
    composed, decomposed = "\u00e9", "e\u0301"
    (tmp_path / "g.csv").write_text(
        f"name,group\n{composed}/1.png,{composed}\na/2.png,{decomposed}\n", encoding="utf-8"
    )
    names = (f"{decomposed}/1.png", "a/2.png")
    assert groups_from_csv(names, tmp_path / "g.csv") == (composed, composed)
    files = (f"x/{composed}_1.png", f"x/{decomposed}_2.png")
    assert groups_from_pattern(files, f"^({decomposed})_") == (composed, composed)


def test_a_pipe_as_csv_does_not_wait(tmp_path: Path):
    os.mkfifo(tmp_path / "g.csv")
    with pytest.raises(InputError, match=r"g\.csv: not readable as CSV \(not a regular file"):
        parse_group_by(NAMES, str(tmp_path / "g.csv"))


def test_csv_in_another_encoding_says_what_to_do(tmp_path: Path):
    (tmp_path / "g.csv").write_bytes("name,group\na/12_x.png,J\u00f6rg\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it as CSV in UTF-8"):
        groups_from_csv(NAMES, tmp_path / "g.csv")


def test_copies_join_groups_and_chains_of_them():
    groups = ["a", "b", "c", "d", "e"]
    found = joined_groups(groups, [(0, 1), (3, 4), (1, 3)], 5)
    assert found is not None
    assert found[0] == found[1] == found[3] == found[4] != found[2]
    alone = joined_groups(None, [(1, 2)], 4)
    assert alone is not None and len(set(alone)) == 3 and alone[1] == alone[2]
    assert joined_groups(groups, [], 5) == tuple(groups)


@pytest.mark.parametrize(
    ("pattern", "apart"),
    [
        (r"^(\d+)_", False),
        ("^a{3}", False),
        ("(a|a)", True),  # with a repeat, as many ways as there are choices of each
        (r"^(\d+)_.*", True),
        ("(a?){40}a", True),
    ],
)
def test_only_an_expression_that_may_never_end_gets_a_process_of_its_own(
    pattern: str, apart: bool, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    def bounded(work: Callable[[], list[str]], **limits: float) -> list[str]:
        asked.append("bounded")
        return work()

    monkeypatch.setattr(groups, "bounded", bounded)
    with contextlib.suppress(InputError):  # nothing found
        groups_from_pattern(["a/12_aaa.png"], pattern)
    assert bool(asked) == apart


def test_an_expression_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "MATCHING_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(InputError, match=r"takes more than 0\.2 s; use .* without nested repeats"):
        groups_from_pattern(["a/" + "a" * 60 + "!.png"], r"^(a+)+$")
    assert time.monotonic() - started < 20
