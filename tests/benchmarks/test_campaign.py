"""The fault injection of `make campaign`, in small: it finds what it is made to find."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "campaign"
sys.path.insert(0, str(CAMPAIGN))

from broken_images import images  # noqa: E402
from compare import differences, leftovers, noise_of, read_tree  # noqa: E402
from mutations import guarded, mutate  # noqa: E402
from secateurs.errors import InputError  # noqa: E402


def test_damaged_images_are_refused_or_read(tmp_path: Path):
    tally, measured = images(100, tmp_path, random.Random(0))
    assert (tally.tried, tally.wrong) == (100, [])
    assert 0 < measured["slowest_s"] < 10
    assert measured["peak_mib"] < 1024


def test_what_is_no_input_error_is_found(tmp_path: Path):
    def fails() -> None:
        raise KeyError("field")

    def refuses() -> None:
        raise InputError("one line")

    def refuses_at_length() -> None:
        raise InputError("two\nlines")

    assert "KeyError" in (guarded("record", fails) or "")
    assert guarded("record", refuses) is None
    assert "2 lines" in (guarded("record", refuses_at_length) or "")
    assert guarded("record", lambda: "other numbers") == "other numbers"


def test_damage_changes_most_files():
    data = bytes(range(200))
    chance = random.Random(1)
    assert sum(mutate(data, chance) != data for _ in range(200)) > 180
    assert mutate(b"", chance) is not None


def test_trees_are_compared_but_for_times(tmp_path: Path):
    trees = []
    for name, seconds, accuracy in (("a", 1.5, 0.7), ("b", 2.5, 0.7), ("c", 1.5, 0.8)):
        folder = tmp_path / name
        folder.mkdir()
        faster = "takes 40% of the time" if seconds < 2 else "is not measurably faster"
        said = f"right in {accuracy:.1%} of images, {seconds} ms, {seconds:.2f} of the time; "
        said += f"it {faster} ({seconds} ms before, 0.6 ms after)."
        found = {"accuracy": accuracy, "timing": {"total": seconds}, "sentences": [said]}
        (folder / "results.json").write_text(json.dumps(found))
        (folder / "model.safetensors").write_bytes(b"same")
        trees.append(read_tree(folder))
    noise = noise_of(trees[0], trees[0])  # two runs may happen to take the same time
    assert differences(trees[0], trees[1], noise=noise) == []
    assert differences(trees[0], trees[2], noise=noise) == [
        "results.json.accuracy",
        "results.json.sentences[0]",
    ]


@pytest.mark.parametrize("name", [".a.json.x.part", ".part-x", "tmpabc"])
def test_leftovers_are_found(tmp_path: Path, name: str):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_text("")
    (tmp_path / "sub" / "a.json").write_text("{}")
    assert leftovers(tmp_path) == [f"sub/{name}"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_studies_that_are_stopped_end_as_others_do(tmp_path: Path):
    figures = tmp_path / "figures.json"
    words = [
        "--parts",
        "kills,records",
        "--kills",
        "2",
        "--records",
        "2",
        "--minutes",
        "4",
        "--seed",
        "3",
    ]
    words += ["--commands", "study,study of layers", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(figures.read_text())["parts"]
    tried = {name: (part["tried"], part["wrong"]) for name, part in parts.items()}
    assert tried == {"signals at random moments": (2, 0), "damaged records and caches": (2, 0)}
