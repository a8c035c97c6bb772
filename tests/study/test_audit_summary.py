from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.cli import main
from secateurs.data.scan import scan, subset
from secateurs.data.splits.split import make_split
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.study.audit_summary import audit_data, audit_words
from secateurs.study.setup.config import StudyConfig, from_json
from secateurs.study.setup.splitting import split_notes
from secateurs.study.setup.trial_context import settle_split
from secateurs.study.study import _check_configuration as check_configuration


def fill(root: Path, folders: dict[str, int]) -> Path:
    """Noise images, unlike each other, in each of the folders."""
    generator = np.random.default_rng(0)
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root


def test_a_set_of_empty_files_is_a_finding(tmp_path: Path):
    root = tmp_path / "data"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        (root / label / "1.png").write_bytes(b"")
    found = audit_data(str(root), cache=tmp_path / "cache")
    assert found["num_images"] == 0
    lines = audit_words(found).splitlines()
    assert lines[0] == "data: 0 images in 2 classes"
    assert "! 2 files cannot be used: 2 zero-byte (first: a/1.png)." in lines
    with pytest.raises(InputError, match="no usable images: 2 files cannot be used"):
        audit_data(str(root), split="random", cache=tmp_path / "cache")


def test_split_folders_are_used_unless_another_rule_is_given(tmp_path: Path):
    root = fill(
        tmp_path / "data",
        {"Training/a": 8, "Training/b": 8, "Testing/a": 3, "Testing/b": 3},
    )
    cache = tmp_path / "cache"
    found = audit_data(str(root), cache=cache)
    assert found["classes"] == ["a", "b"]
    assert found["split"]["rule"] == "folders, validation taken from train"
    assert found["split"]["counts"] == {"train": 12, "val": 4, "test": 6}
    assert all(name.startswith("Testing/") for name in found["split"]["names"]["test"])
    assert audit_data(str(root), split="random", cache=cache)["split"]["rule"] == "random"
    assert settle_split(str(root), StudyConfig()).split == "folders"
    assert settle_split(str(root), StudyConfig(split="random")).split == "random"
    assert settle_split(str(root / "Training"), StudyConfig()).split == "random"
    assert settle_split("faces", StudyConfig()).split == "random"


def test_an_audit_of_folders_that_cannot_be_split_says_the_rest(tmp_path: Path):
    root = fill(tmp_path / "data", {"train/a": 1, "train/b": 4, "test/a": 2, "test/b": 2})
    found = audit_data(str(root), cache=tmp_path / "cache")
    assert found["split"] is None
    assert found["num_images"] == 9


def test_one_bad_file_of_a_small_class_does_not_stop(tmp_path: Path):
    root = fill(tmp_path / "data", {"a": 10, "b": 3})
    cache = tmp_path / "cache"
    (root / "b" / "1.png").write_bytes(b"")
    found = audit_data(str(root), split="random", cache=cache)
    per_class = {side: counts[1] for side, counts in found["split"]["per_class"].items()}
    assert per_class == {"train": 1, "val": 0, "test": 1}
    # A class that has too few images without a bad one is an error that says so.
    (root / "b" / "1.png").unlink()
    with pytest.raises(InputError, match="class b has 2 usable images; a split needs at least 3"):
        audit_data(str(root), split="random", cache=cache)


def test_what_may_surprise_in_a_split_is_said(tmp_path: Path):
    folders = {f"{side}/{label}": 4 for side in ("Train", "Test") for label in ("a", "b")}
    listing = scan(fill(tmp_path / "data", folders))
    split = make_split(listing, rule="auto")
    assert split_notes(listing, split) == [
        "split by folders, validation taken from train (Train, Test); --split random splits all"
        " images again"
    ]
    listing = replace(scan(fill(tmp_path / "plain", {"a": 9, "b": 3})), sides=())
    small = subset(listing, range(11))  # a file of the second class could not be used
    split = make_split(small, rule="auto", spared=(1,))
    assert split_notes(small, split) == ["too few usable images: b not on the val side"]


def test_a_study_from_before_split_folders_were_the_default_goes_on(tmp_path: Path):
    plain = fill(tmp_path / "plain", {"a": 1, "b": 1})
    sides = fill(tmp_path / "sides", {f"{x}/{y}": 1 for x in ("train", "test") for y in "ab"})
    out = tmp_path / "out"
    old = StudyConfig(split="random").to_json()
    write_json(out / "study.json", {"schema": 1, "config": old, "identity": {}, "data": ""})
    check_configuration(out, settle_split(str(plain), StudyConfig()))
    with pytest.raises(InputError, match=r"split \(random there, folders now\)"):
        check_configuration(out, settle_split(str(sides), StudyConfig()))
    check_configuration(out, settle_split(str(sides), StudyConfig(split="random")))
    assert from_json(old).split == "random"


def run(monkeypatch: pytest.MonkeyPatch, encoding: str, *words: str) -> tuple[int, str, str]:
    """Run the command line with output streams of an encoding: exit code, stdout and stderr."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "argv", ["secateurs", *words])
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(SystemExit) as stopped:
        main()
    texts: list[str] = []
    for stream in streams:
        stream.flush()
        written = stream.buffer
        assert isinstance(written, io.BytesIO)
        texts.append(written.getvalue().decode(encoding))
    return int(stopped.value.code or 0), *texts


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_are_printed_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
):
    root = fill(tmp_path / os.fsdecode(b"d\xe9ta"), {"caf\u00e9": 2, "tea": 2})
    (root / "tea" / "0.png").rename(root / "tea" / "\u202e1\u202f\u0645.png")
    words = ["audit", str(root), "--quiet", "--cache", str(tmp_path / "cache")]
    code, text, _ = run(monkeypatch, encoding, *words)
    assert code == 0
    assert text.startswith("d\\xe9ta: 4 images in 2 classes")
    code, text, _ = run(monkeypatch, encoding, *words, "--json", "--split", "random", "--seed", "1")
    assert code == 2  # three images a class are needed
    code, text, _ = run(monkeypatch, encoding, *words, "--json")
    assert json.loads(text)["classes"] == ["caf\u00e9", "tea"]


@pytest.mark.parametrize(("encoding", "space"), [("utf-8", "\u202f"), ("ascii", "\\u202f")])
def test_spaces_of_a_name_are_kept_in_errors(
    monkeypatch: pytest.MonkeyPatch, encoding: str, space: str
):
    code, text, error = run(monkeypatch, encoding, "audit", "no\u202f \u202epath")
    assert (code, text) == (2, "")
    assert f"no{space} \\u202epath: no such folder" in error
