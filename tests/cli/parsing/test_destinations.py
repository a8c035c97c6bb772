"""Where a command writes: defaults of `--out`, and never into the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from secateurs.cli.app import app, main
from secateurs.cli.parsing.destinations import check_outside, default_out
from secateurs.errors import InputError

GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize(
    ("template", "params", "expected"),
    [
        ("studies/DATA", {"data": "faces"}, "studies/faces"),
        ("studies/DATA", {"data": "a/photos/"}, "studies/photos"),
        ("models/MODEL-pruned", {"model": Path("studies/a"), "data": "b"}, "models/a-pruned"),
        ("models/MODEL.onnx", {"model": Path("studies/a/model")}, "models/a.onnx"),
        ("models/MODEL.onnx", {"model": Path("a/unpruned/model.json")}, "models/a.onnx"),
    ],
)
def test_the_default_has_the_name_of_the_images_or_of_the_model(
    template: str, params: dict[str, Any], expected: str
):
    assert default_out(Path(template), params) == Path(expected)


def test_a_place_without_a_name_needs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert default_out(Path("studies/DATA"), {"data": "."}) == Path("studies") / tmp_path.name
    with pytest.raises(InputError, match="give --out"):
        default_out(Path("studies/DATA"), {"data": "/"})


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "plain").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "photos"


@pytest.mark.parametrize("out", ["photos", "photos/a/b", "link/a", "elsewhere/../photos/plain"])
def test_nothing_is_written_into_the_images(out: str, photos: Path):
    with pytest.raises(InputError, match="is within the folder of images"):
        check_outside(Path(out), [Path("photos")])
    with pytest.raises(InputError, match="is within the folder of images"):
        check_outside(Path(out), [Path("link")])


@pytest.mark.parametrize("out", ["photos/out", "elsewhere", "photos2", ".", "nowhere/photos"])
def test_other_places_are_fine(out: str, photos: Path):
    check_outside(Path(out), [Path("photos"), Path("nowhere"), Path("\0")])


@pytest.mark.parametrize(
    "words",
    [
        ("study", "photos", "--out", "photos/s"),
        ("sweep", "photos", "--out", "photos"),
        ("search", "photos", "--out", "link/s"),
        ("train", "photos", "--out", "photos/plain"),
        ("paper", "photos", "--out", "photos/plain"),
        ("prune", "net", "photos", "--out", "photos/m"),
        ("grid", "net", "photos", "--out", "photos/m"),
        ("export", "net", "photos", "--out", "photos/m.onnx"),
        ("predict", "net", "photos", "--out", "photos/answers.csv"),
        ("probe", "photos", "--out", "photos/p"),
        ("show", "photos", "--out", "link/p"),
        ("compare", "net", "net", "photos", "--out", "photos/c"),
        ("trust", "net", "photos", "--out", "photos/t"),
        ("explore", "net", "photos", "--out", "photos/cuts"),
        ("export", "net", "photos", "--html", "photos/page.html"),
    ],
)
def test_commands_refuse_to_write_into_the_images(
    words: tuple[str, ...], photos: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    (photos.parent / "net").mkdir()
    (photos.parent / "net" / "model.json").write_text("{}")
    before = sorted(photos.rglob("*"))
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    monkeypatch.setattr("typer.main.get_command", lambda _: GROUP)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "is within the folder of images" in capsys.readouterr().err
    assert sorted(photos.rglob("*")) == before
