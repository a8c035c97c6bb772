"""Configuration files: read, written, and errors that name the key."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from secateurs.cli.app import app, main
from secateurs.cli.parsing.command import RUN
from secateurs.cli.parsing.config_file import NAME, RunConfig

GROUP: Any = typer.main.get_command(app)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder of images and a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "plain").mkdir(parents=True)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.json").write_text("{}")
    return tmp_path


def context(command: str, *words: str) -> Any:
    return GROUP.commands[command].make_context(command, list(words))


def run(command: str, *words: str) -> tuple[dict[str, Any], RunConfig]:
    found = context(command, *words)
    return found.params, found.meta[RUN]


def test_options_come_from_a_file_and_the_command_line_takes_precedence(here: Path):
    Path("study.toml").write_text(
        'command = "study"\ndata = "photos"\nout = "studies/a"\nepochs = 3\nlr = 1\n'
        'depths = [3, 5]\nbatch-size = 16\naugment = false\nrotation_deg = 4.5\npreset = "full"\n'
        "strict = true\n"
    )
    given, _ = run("study", "--config", "study.toml", "--epochs", "7")
    assert given["data"] == "photos"
    assert given["out"] == Path("studies/a")
    assert (given["epochs"], given["lr"], given["depths"]) == (7, 1.0, "3,5")
    assert (given["batch_size"], given["augment"], given["strict"]) == ("16", False, True)
    assert (given["rotation_deg"], given["preset"]) == (4.5, "full")


def test_arguments_come_from_a_file_too(here: Path):
    Path("prune.toml").write_text('model = "net"\ndata = "photos"\nmacs = 0.5\n')
    given, _ = run("prune", "--config=prune.toml")
    assert (given["model"], given["data"], given["macs"]) == (Path("net"), "photos", 0.5)
    assert given["out"] == Path("models/net-pruned")
    Path("predict.toml").write_text('model = "net"\nimages = ["photos", "net/model.json"]\ntop = 2')
    given, _ = run("predict", "--config=predict.toml")
    assert given["images"] == [Path("photos"), Path("net/model.json")]
    given, _ = run("predict", "--config=predict.toml", "net", "photos")
    assert given["images"] == [Path("photos")]


def test_paths_are_relative_to_the_file(here: Path, monkeypatch: pytest.MonkeyPatch):
    given, config = run(
        *("study", "photos", "--out", "studies/a", "--cache", "c", "--no-augment", "--lr=0.01"),
        *("--group-by", r"^(\d+)_", "--quiet", "--overwrite"),
    )
    Path("studies/a").mkdir(parents=True)
    assert config.save(Path("studies/a")) is None
    text = Path("studies/a", NAME).read_text()
    plain = tomllib.loads(text)
    assert (plain["data"], plain["out"], plain["command"]) == ("../../photos", ".", "study")
    assert (plain["group-by"], plain["augment"], plain["lr"]) == (r"^(\d+)_", False, 0.01)
    assert not {"quiet", "overwrite", "json", "config", "cache", "progress", "epochs"} & set(plain)
    again, config = run("study", "--config", "studies/a/config.toml")
    changed = {"cache", "config", "quiet", "overwrite"}
    assert {k: v for k, v in again.items() if k not in changed} == {
        k: v for k, v in given.items() if k not in changed
    }
    # From another directory it is the same command as well.
    monkeypatch.chdir(here / "studies" / "a")
    again, config = run("study", "--config", NAME)
    assert Path(again["data"]).resolve() == here / "photos"
    assert config.text(here / "studies" / "a") == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("epoch = 3", "unknown key 'epoch'; `secateurs study --help` lists the options"),
        ("config = 'x'", "unknown key 'config'"),
        ("epochs = 'three'", "epochs: expected a whole number, got 'three'"),
        ("epochs = 3.5", "epochs: expected a whole number, got 3.5"),
        ("epochs = true", "epochs: expected a whole number, got True"),
        ("epochs = [3]", "epochs: expected a whole number, got [3]"),
        ("lr = '1e-4'", "lr: expected a number, got '1e-4'"),
        ("lr = nan", "lr is out of range: nan"),
        ("lr = -1", "lr is out of range: -1.0"),
        ("seed = 99999999999999999999", "seed is out of range"),
        ("strict = 1", "strict: expected true or false, got 1"),
        ("backbone = 3", "backbone: expected a text, got 3"),
        ("depths = ['3']", "depths: expected a number, a list of numbers or a text"),
        ("depths = []", "depths: expected a number, a list of numbers or a text"),
        ("data = 'nowhere'", "data: nowhere: no such folder"),
        ("weights = 'none.pth'", "weights: none.pth: no such weights file"),
        ("[study]\nepochs = 3", "unknown key 'study'"),
        ("epochs = {a = 1}", "epochs: expected a whole number"),
        ("low-deg = 3\nlow_deg = 4", "'low_deg' is given twice"),
        ("epochs = 3\nepochs = 4", "not valid TOML (Cannot overwrite a value"),
        ("command = 'train'", "command is 'train', but the command is study"),
        ("epochs = ", "not valid TOML (Invalid value"),
        ("epochs = " + "9" * 5000, "not valid TOML (Exceeds the limit"),
        ("x = " + "[" * 9000, "not valid TOML"),
    ],
)
def test_a_bad_key_is_one_line_that_names_it(
    text: str, error: str, here: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    Path("x.toml").write_text(text)
    monkeypatch.setattr("sys.argv", ["secateurs", "study", "faces", "--config", "x.toml"])
    if text.startswith("data"):
        monkeypatch.setattr("sys.argv", ["secateurs", "study", "--config", "x.toml"])
    monkeypatch.setattr("typer.main.get_command", lambda _: GROUP)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert printed.startswith("error: x.toml: ")
    assert error in printed
    assert printed.count("\n") == 1
    assert len(printed) < 400


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe", "bytes", "huge"])
def test_a_file_that_cannot_be_read_is_one_line(
    kind: str, here: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    path = Path("x.toml")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe")
    elif kind == "huge":
        path.write_bytes(b"#" * (2 << 20))
    monkeypatch.setattr("sys.argv", ["secateurs", "study", "faces", "--config", "x.toml"])
    monkeypatch.setattr("typer.main.get_command", lambda _: GROUP)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert printed.startswith("error: x.toml: ")
    assert printed.count("\n") == 1


def test_an_earlier_name_in_a_file_is_known(here: Path, capsys):
    Path("x.toml").write_text("low = 9\n")
    given, _ = run("study", "faces", "--config", "x.toml")
    assert given["low_deg"] == 9.0
    assert capsys.readouterr().err == "x.toml: low is now low-deg\n"


def test_a_file_of_another_program_is_not_replaced(here: Path):
    _, config = run("study", "photos", "--out", "a")
    Path("a").mkdir()
    Path("a", NAME).write_text("mine = true\n")
    problem = config.save(Path("a"))
    assert problem is not None and "not written by Secateurs" in problem
    assert Path("a", NAME).read_text() == "mine = true\n"


def test_any_text_is_written_so_that_it_can_be_read(here: Path):
    odd = 'a"b\\c\t\x7f \u00e9\U0001f600\n'
    _, config = run("study", "photos", "--out", "a", "--group-by", odd)
    assert tomllib.loads(config.text(Path("a")))["group-by"] == odd
    _, config = run("study", "photos", "--out", os.fsdecode(b"a\xff"))
    Path("a").mkdir(exist_ok=True)
    problem = config.save(Path("a"))
    assert problem is not None and "not valid UTF-8" in problem


def test_every_command_reads_a_file():
    for name, command in GROUP.commands.items():
        found = {param.name: param for param in command.params}
        assert found["config"].opts == ["--config"], name


def test_another_command_in_the_same_directory_is_seen(here: Path):
    _, first = run("prune", "net", "photos", "--out", "a", "--macs", "0.5", "--quiet")
    assert first.differs_from(Path("a")) == []
    Path("a").mkdir()
    first.save(Path("a"))
    _, same = run("prune", "net", "photos", "--out", "a", "--macs", "0.5", "--json")
    assert same.differs_from(Path("a")) == []
    _, other = run("prune", "net", "photos", "--out", "a", "--macs", "0.25")
    assert other.differs_from(Path("a")) == ["macs (0.5 there, 0.25 now)"]
    Path("a", NAME).write_text("mine = 1")
    assert other.differs_from(Path("a")) == []


@pytest.mark.parametrize(
    ("command", "words", "marker"),
    [
        ("prune", ("net", "photos", "--macs", "0.5"), "pruning.json"),
        ("train", ("photos", "--epochs", "3"), "training.json"),
    ],
)
def test_a_model_of_another_command_is_not_replaced(
    command: str, words: tuple[str, ...], marker: str, here: Path, capsys, monkeypatch
):
    _, config = run(command, *words, "--out", "a", "--seed", "1")
    Path("a").mkdir()
    config.save(Path("a"))
    Path("a", marker).write_text("{}")
    before = sorted(Path("a").iterdir())
    monkeypatch.setattr("sys.argv", ["secateurs", command, *words, "--out", "a", "--seed", "2"])
    monkeypatch.setattr("typer.main.get_command", lambda _: GROUP)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "a: holds a model of another command: seed (1 there, 2 now); choose another" in error
    assert "--overwrite" in error
    assert sorted(Path("a").iterdir()) == before
