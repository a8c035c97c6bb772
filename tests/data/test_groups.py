from __future__ import annotations

from pathlib import Path

import pytest

from secateurs.data.groups import groups_from_csv, groups_from_pattern, parse_group_by
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
