"""Files classified by a saved network: bad ones in their place, all formats, bounded memory."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.ship.checkpoint import load
from secateurs.study.saved import prediction as predict_module
from secateurs.study.saved.prediction import list_images, predict_saved, predictions
from secateurs.study.saved.prediction_model import load_saved, open_classifier
from secateurs.study.saved.prediction_output import format_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["secateurs", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def mixed(flags: Path, tmp_path: Path) -> Path:
    """Three images, one of them damaged, a hidden one, and a note."""
    folder = tmp_path / "new"
    folder.mkdir()
    for name, source in (("a.png", "across"), ("c.png", "plain"), (".hidden.png", "plain")):
        shutil.copy(sorted((flags / source).iterdir())[0], folder / name)
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_one_bad_file_stops_nothing(net: Path, mixed: Path, run: Run):
    code, out, err = run("predict", str(net), str(mixed), "--progress", "plain")
    lines = out.splitlines()
    assert code == 1
    assert [line.partition(":")[0] for line in lines] == [str(mixed / f"{c}.png") for c in "abc"]
    assert "error: truncated" in lines[1]
    assert lines[0].count("%") == lines[2].count("%") == 3
    assert "1 of 3 images could not be used" in err
    code, out, err = run("predict", str(net), str(mixed / "a.png"), str(mixed / "c.png"), "--quiet")
    assert (code, err) == (0, "")
    assert out.splitlines() == [lines[0], lines[2]]


def test_every_format_says_the_same(net: Path, mixed: Path, run: Run, tmp_path: Path):
    words = ["predict", str(net), str(mixed), "--top", "2", "--quiet"]
    code, out, _ = run(*words, "--json")
    rows = json.loads(out)["predictions"]
    assert code == 1
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[1]["answers"] == []
    assert [json.loads(line) for line in run(*words, "--format", "jsonl")[1].splitlines()] == rows
    for name in ("out.csv", "out.jsonl", "out.json", "out.txt"):
        code, out, _ = run(*words, "--out", str(tmp_path / name))
        assert (code, out) == (1, f"{tmp_path / name}\n")
    assert json.loads((tmp_path / "out.json").read_text())["predictions"] == rows
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert list(table[0]) == ["name", "label", "probability", "label_2", "probability_2", "error"]
    for row, cells in zip(rows, table, strict=True):
        assert cells["name"] == row["name"]
        if row["error"]:
            assert cells["error"] == row["error"]
            assert cells["label"] == cells["probability"] == ""
            continue
        assert [cells["label"], cells["label_2"]] == [a["label"] for a in row["answers"]]
        assert float(cells["probability"]) == pytest.approx(row["answers"][0]["probability"], 1e-5)
    assert (tmp_path / "out.txt").read_text().count("\n") == 3


def test_a_study_is_taken_for_its_network_and_folders_for_their_images(
    net: Path, flags: Path, mixed: Path, tmp_path: Path
):
    study = tmp_path / "study"
    shutil.copytree(net, study / "unpruned")
    (study / "study.json").write_text("{}")
    found = predict_saved(study, [mixed / "c.png", flags / "down", mixed / "a.png"])["predictions"]
    inside = sorted((flags / "down").iterdir())
    assert [row["name"] for row in found] == [
        str(path) for path in (mixed / "c.png", *inside, mixed / "a.png")
    ]
    assert load_saved(study).spec == load(net).spec
    shutil.copytree(net, study / "model")
    recipe = json.loads((study / "model" / "model.json").read_text())
    recipe["classes"] = ["x", "y", "z"]
    (study / "model" / "model.json").write_text(json.dumps(recipe))
    assert load_saved(study).spec.classes == ("x", "y", "z")  # the pruned one, where there is one
    for empty in ("study.json", "other"):
        (tmp_path / "not" / empty).mkdir(parents=True)
    with pytest.raises(InputError, match="this study has no network yet"):
        load_saved(tmp_path / "not")
    with pytest.raises(InputError, match="neither a saved model nor a study"):
        load_saved(tmp_path / "not" / "other")
    with pytest.raises(InputError, match="no such file or folder"):
        list_images([tmp_path / "gone.png"])


def test_answers_are_those_of_the_network_in_any_batch(
    net: Path, flags: Path, monkeypatch: pytest.MonkeyPatch
):
    files = sorted(flags.rglob("*.png"))[:5]
    whole = predict_saved(net, files)["predictions"]
    monkeypatch.setattr(predict_module, "BATCH", 2)
    for row, other in zip(whole, predict_saved(net, files)["predictions"], strict=True):
        assert row["name"] == other["name"]
        for a, b in zip(row["answers"], other["answers"], strict=True):
            assert a["label"] == b["label"]
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_images_are_read_as_answers_are_taken(
    net: Path, flags: Path, monkeypatch: pytest.MonkeyPatch
):
    """Memory does not grow with the number of images: no more than some are read ahead."""
    num_read = 0
    real = predict_module.read_pixels

    def counted(*words: Any) -> Any:
        nonlocal num_read
        num_read += 1
        return real(*words)

    monkeypatch.setattr(predict_module, "read_pixels", counted)
    monkeypatch.setattr(predict_module, "BATCH", 4)
    monkeypatch.setattr("secateurs.data.thread_map.default_workers", lambda: 1)
    one = sorted((flags / "plain").iterdir())[0]
    rows: Iterator[dict[str, Any]] = predictions(open_classifier(net), [(one, None)] * 100)
    next(rows)
    assert 4 <= num_read <= 12
    assert sum(1 for _ in rows) == 99
    assert num_read == 100


def test_no_probability_is_not_a_number(net: Path, flags: Path, run: Run, monkeypatch):
    import torch

    def broken(module: Any, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(inputs), 3)
        logits[0] = float("nan")
        return logits

    monkeypatch.setattr("secateurs.study.saved.prediction_model.predict_logits", broken)
    files = [str(path) for path in sorted((flags / "plain").iterdir())[:2]]
    code, out, _ = run("predict", str(net), *files)
    assert code == 1
    assert "nan" not in out
    assert "error: the network's output is not finite" in out.splitlines()[0]
    assert "33.3%" in out.splitlines()[1]


def test_names_that_no_terminal_should_see(net: Path, flags: Path, tmp_path: Path, run: Run):
    odd = tmp_path / "odd\x1b[31m\n.png"
    shutil.copy(next((flags / "plain").iterdir()), odd)
    code, out, _ = run("predict", str(net), str(odd), "--quiet")
    assert code == 0
    assert out.count("\n") == 1
    assert "\\x1b[31m\\n.png: " in out
    bad = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        shutil.copyfile(odd, bad)
    except OSError:
        pytest.skip("this file system takes no such name")
    for kind in ("text", "csv", "jsonl", "json"):
        code, out, _ = run("predict", str(net), os.fsdecode(bad), "--quiet", "--format", kind)
        assert code == 0
        assert "caf\\xe9.png" in out.replace("\\\\", "\\")


def test_progress_is_one_json_object_per_line(net: Path, mixed: Path, flags: Path, run: Run):
    code, _, err = run("predict", str(net), str(mixed), "--progress", "json")
    events = [json.loads(line) for line in err.splitlines()]
    assert code == 1
    last = [event for event in events if event["event"] == "end"][-1]
    assert (last["task"], last["done"], last["total"]) == ("predict", 3, 3)
    words = ["--progress", "json", "--split", "paper", "--json"]
    code, out, err = run("evaluate", str(net), str(flags), *words)
    assert code == 0
    ends = [json.loads(line) for line in err.splitlines()]
    done = [event for event in ends if event.get("task") == "evaluate" and event["event"] == "end"]
    assert done[0]["done"] == json.loads(out)["num_images"]


def test_formats_that_contradict_are_refused(net: Path, mixed: Path, run: Run):
    code, out, err = run("predict", str(net), str(mixed), "--json", "--format", "csv")
    assert (code, out) == (2, "")
    assert "--json and --format csv are two formats" in err
    code, _, err = run("predict", str(net), str(mixed), "--format", "xml")
    assert "--format must be one of text, csv, jsonl, json, got 'xml'" in err
    assert format_of(None, Path("x.JSONL")) == "jsonl"
    assert format_of("text", Path("x.csv")) == "text"


def test_an_export_is_checked_on_what_can_be_read(net: Path, mixed: Path, tmp_path: Path, run: Run):
    from secateurs.ship.export import OnnxCheck

    seen: list[int] = []

    def write(model: Any, spec: Any, path: Path, example: Any, *, card: Any) -> OnnxCheck:
        seen.append(len(example))
        return OnnxCheck(path, 0.0, 18, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateurs.ship.targets.onnx_file.export_onnx", write)
        words = ["export", str(net), str(mixed), "--out", str(tmp_path / "x.onnx")]
        code, out, _ = run(*words, "--json")
        found = json.loads(out)
        assert (code, found["num_images"], seen) == (0, 2, [2])
        assert len(found["skipped"]) == 1 and "b.png: truncated" in found["skipped"][0]
        for name in ("a.png", "c.png"):
            (mixed / name).unlink()
        code, _, err = run(*words)
        assert code == 2
        assert "no image that can be read to check the export on" in err
