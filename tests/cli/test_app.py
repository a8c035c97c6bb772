"""The command line as a user types it: what it prints, where, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest

import secateurs
from narrow import LINEAR, narrowed
from secateurs.cli import main

BACKBONE = ["--backbone", "mobilenet_v3_small", "--weights", "none"]
COMMANDS = (
    *("study", "audit", "faces", "train", "sweep", "search", "evaluate", "prune", "grid", "export"),
    *("predict", "report"),
)
STUDY_WORDS = (
    *("--out", "--weights", "--split", "--group-by", "--depths", "--runs", "--epochs", "--lr"),
    *(
        "--batch-size",
        "--preset",
        "--device",
        "--seed",
        "--json",
        "--low-deg",
        "--high-deg",
        "--norm-std",
    ),
)
QUICK = ["--epochs", "2", "--views", "1", "--batch-size", "8", "--precision", "float32"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_help_of_every_command_gives_units_and_defaults(capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch)
    assert code == 0
    for command in COMMANDS:
        assert command in out
        code, text, _ = run(capsys, monkeypatch, command, "--help")
        assert code == 0
        assert "Usage: secateurs" in text
    _, text, _ = run(capsys, monkeypatch, "study", "--help")
    for word in STUDY_WORDS:
        assert word in text
    assert "degrees" in text
    assert "[default: 1e-4]" in text


def test_the_version_is_printed(capsys, monkeypatch):
    assert run(capsys, monkeypatch, "--version") == (0, f"secateurs {secateurs.__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "nowhere", "faces"],
        ["train", "nowhere", "--out", "x"],
        ["prune", "nowhere", "faces", "--out", "x"],
        ["predict", "nowhere", "x.png"],
    ],
)
def test_a_wrong_path_loads_no_library(words: list[str], tmp_path: Path):
    code = (
        "import sys\nfrom secateurs.cli import main\n"
        f"sys.argv = ['secateurs', *{words!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n"
        "    print(ended.code, sorted({'torch', 'numpy', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "2 []"
    assert done.stderr.startswith("error: nowhere: no such ")


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_environment_says_otherwise(
    given: dict[str, str], spins: str | None
):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    script = (
        "import atexit, os, sys; from secateurs.cli import main; sys.argv[1:] = ['--version'];"
        "atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules));"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"{spins} False"


def test_audit_prints_the_papers_split(flags: Path, cache: str, capsys, monkeypatch):
    words = ["audit", str(flags), "--split", "paper", "--json", "--cache", cache, "--quiet"]
    code, out, err = run(capsys, monkeypatch, *words)
    assert (code, err) == (0, "")
    found = json.loads(out)
    counts = found["split"]["counts"]
    assert sum(counts.values()) == 48
    for side, per_class in found["split"]["per_class"].items():
        assert sum(per_class) == counts[side]
    assert found["classes"] == ["across", "down", "plain"]
    _, text, _ = run(capsys, monkeypatch, "audit", str(flags), "--cache", cache, "--quiet")
    assert text.startswith("flags")
    assert "48 images in 3 classes" in text


def test_strict_makes_findings_an_error(flags: Path, tmp_path: Path, cache, capsys, monkeypatch):
    import shutil

    copy = tmp_path / "flags"
    shutil.copytree(flags, copy)
    (copy / "plain" / "empty.png").write_bytes(b"")
    words = ["audit", str(copy), "--cache", cache, "--quiet"]
    code, out, _ = run(capsys, monkeypatch, *words)
    assert code == 0
    assert "plain/empty.png: zero-byte" in out
    code, _, err = run(capsys, monkeypatch, *words, "--strict")
    assert code == 2
    assert "--strict makes them an error" in err
    words = ["study", str(copy), "--out", str(tmp_path / "s"), "--cache", cache, *BACKBONE]
    code, _, err = run(capsys, monkeypatch, *words, "--strict", "--quiet")
    assert code == 2
    assert "the audit found" in err
    assert not (tmp_path / "s").exists()


@pytest.fixture
def small_network() -> Generator[list[str]]:
    """The words that choose a network of which training and export take little time."""
    with narrowed():
        yield ["--backbone", "alexnet", "--weights", "none"]


@pytest.mark.usefixtures("without_onnx")
def test_one_step_at_a_time(
    flags: Path, tmp_path: Path, cache: str, small_network: list[str], capsys, monkeypatch
):
    def call(*words: str) -> tuple[int, str, str]:
        return run(capsys, monkeypatch, *words)

    model, small = str(tmp_path / "model"), str(tmp_path / "small")
    group = ["--group-by", r"^(\d+)_", "--cache", cache, "--quiet", "--json"]
    train = ["train", str(flags), "--out", model, "--depth", "6", *small_network, *QUICK, *group]
    code, out, err = call(*train)
    assert (code, err) == (0, "")
    trained = json.loads(out)
    assert trained["depth"] == 6
    text = call(*[word for word in train if word != "--json"])[1]
    assert "caution: only" in text and "--group-by" not in text
    assert len(trained["curve"]) == 2
    kept = tomllib.loads((tmp_path / "model" / "config.toml").read_text())
    assert (kept["command"], kept["out"], kept["depth"], kept["epochs"]) == ("train", ".", 6, 2)
    code, out, _ = call(*train)  # all is done: it only answers
    assert json.loads(out)["timing"] == trained["timing"]
    again = ("train", "--config", str(tmp_path / "model" / "config.toml"), *group[2:])
    code, out, _ = call(*again)
    assert json.loads(out)["timing"] == trained["timing"]
    code, _, err = call(*again, "--epochs", "3")
    assert code == 2 and "epochs (2 there, 3 now)" in err
    code, out, _ = call(*again, "--epochs", "1", "--overwrite")
    assert len(json.loads(out)["curve"]) == 1
    assert len(list((tmp_path / "model" / "trials").glob("*.json"))) == 1
    code, out, _ = call(*train, "--overwrite")

    common = ["--cache", cache, "--quiet", "--json"]
    placed = [*common, "--device", "cpu"]
    code, out, _ = call("evaluate", model, str(flags), "--side", "val", *placed)
    found = json.loads(out)
    assert {key: found[key] for key in trained["val"]} == trained["val"]
    assert found["split"]["num_train"] + found["split"]["num_val"] < 48
    code, out, _ = call("evaluate", model, str(flags), "--side", "all", "--cache", cache, "--quiet")
    num_test = found["split"]["num_test"]
    assert f"on {num_test} images" in out
    assert f"on {found['split']['num_train']} images" in out
    assert "caution: only" in out
    assert "specificity" in out
    code, _, err = call("evaluate", model, str(flags), "--device", "tpu", *common)
    assert code == 2 and "device must be auto, cpu or cuda" in err

    prune = ["prune", model, str(flags), "--out", small, "--layers", "fc6", *placed]
    code, out, _ = call(*prune, "--low-deg", "10", "--max-loss", "-1")
    cut = json.loads(out)
    assert code == 0
    assert cut["layers"][0]["num_kept"] < cut["layers"][0]["num_units"] == LINEAR[0]
    assert cut["num_parameters"]["after"] < cut["num_parameters"]["before"]
    assert (tmp_path / "small" / "ledger.csv").read_text().count("\n") == LINEAR[0] + 1
    code, _, err = call("prune", small, str(flags), "--out", str(tmp_path / "x"), *common)
    assert code == 2
    assert "already pruned" in err

    onnx = tmp_path / "small.onnx"
    code, out, _ = call("export", small, str(flags), "--out", str(onnx), "--json")
    assert json.loads(out)["max_abs_difference"] <= 1e-4
    assert onnx.stat().st_size > 0

    pictures = [str(path) for path in sorted((flags / "plain").iterdir())[:2]]
    code, out, _ = call("predict", small, *pictures, "--top", "2", "--json")
    predictions = json.loads(out)["predictions"]
    assert [row["name"] for row in predictions] == pictures
    for row in predictions:
        first, second = (answer["probability"] for answer in row["answers"])
        assert 1 >= first >= second >= 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["study", "nowhere", "--out", "x"], "nowhere"),
        (["study"], "Missing argument 'DATA'"),
        (["study", "faces", "--out", "x", "--depths", "7-5"], "run backwards; write 5-7"),
        (["study", "faces", "--out", "x", "--runs", "many"], "unable to parse"),
        (["study", "faces", "--out", "x", "--preset", "slow"], "unknown preset 'slow'"),
        (["study", "faces", "--out", "x", "--device", "tpu"], "device must be auto, cpu or cuda"),
        (["study", "faces", "--out", "x", "--lr", "-1"], "lr is out of range: -1.0"),
        (["sweep", "faces", "--out", "x", "--cache-in", "ram"], "must be memory, disk or keep"),
        (
            ["sweep", "faces", "--out", "x", "--cache-budget", "-1"],
            "--cache-budget is out of range: -1.0; expected a number from 0",
        ),
        (["evaluate", "nowhere", "faces"], "nowhere"),
        (["predict", "nowhere", "x.png"], "nowhere"),
        (["train", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["train", "faces", "--out", "x", "--weights", "none.pth"], "none.pth: no such weights"),
        (["train", "faces", "--out", "x", "--group-by", "none.csv"], "none.csv: no such file"),
        (["grid", "nowhere", "faces", "--out", "x"], "nowhere: no such model"),
        (["export", ".", "faces", "--out", "x.onnx"], "neither a saved model nor a study"),
        (["results", "nowhere"], "nowhere: no such directory"),
        (["explore", "nowhere"], "nowhere: no such directory"),
        (["audit", "nowhere"], "nowhere: no such folder"),
        (["report", "nowhere"], "nowhere"),
        (["explode"], "No such command 'explode'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], text: str, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "cache"))
    code, out, err = run(capsys, monkeypatch, *words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err
    assert list(tmp_path.glob("x*")) == []


def test_a_full_disk_is_one_line_and_exit_code_2(tmp_path: Path, capsys, monkeypatch):
    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "trials/x.json")

    monkeypatch.setattr("secateurs.study.study.run_study", full)
    words = ["sweep", "faces", "--out", str(tmp_path / "out"), "--quiet"]
    code, out, err = run(capsys, monkeypatch, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: the disk is full (trials/x.json); finished parts are kept")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EFBIG, "a file is larger than the disk or a limit allows (out/x.json)"),
        (errno.EDQUOT, "the disk is full (out/x.json)"),
        (errno.EACCES, "out/x.json: cannot be used (Permission denied)"),
        (errno.EROFS, "out/x.json: cannot be used (Read-only file system)"),
        (errno.ENOTDIR, "out/x.json: cannot be used (Not a directory)"),
        (errno.EIO, "out/x.json: cannot be used (Input/output error)"),
    ],
)
def test_what_a_disk_refuses_is_one_line(
    number: int, text: str, tmp_path: Path, capsys, monkeypatch
):
    def refused(*words: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), "out/x.json")

    monkeypatch.setattr("secateurs.study.study.run_study", refused)
    words = ["sweep", "faces", "--out", str(tmp_path / "out"), "--quiet"]
    code, out, err = run(capsys, monkeypatch, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {text}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["sweep", "grid", "prune"])
@pytest.mark.parametrize("kind", ["file", "below a file", "link to itself", "long", "no rights"])
def test_a_place_that_cannot_be_written_is_told_before_any_work(
    command: str, kind: str, tmp_path: Path, capsys, monkeypatch
):
    out = tmp_path / "out"
    if kind == "file":
        out.touch()
    elif kind == "below a file":
        (tmp_path / "x").touch()
        out = tmp_path / "x" / "y" / "out"
    elif kind == "link to itself":
        out.symlink_to(out)
    elif kind == "long":
        out = tmp_path / ("n" * 300)
    else:  # the tests may run as a user who may write everywhere
        monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    (tmp_path / "model.json").write_text("{}")
    model = [str(tmp_path)] if command in ("grid", "prune") else []
    code, _, err = run(capsys, monkeypatch, command, *model, "faces", "--out", str(out), "--quiet")
    assert code == 2
    assert err.startswith(f"error: {out}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [("results",), ("report",), ("faces",), ("export",), ("explore",)]
)
def test_links_in_a_circle_are_no_place_to_write(
    words: tuple[str], tmp_path: Path, capsys, monkeypatch
):
    out, here = tmp_path / "out", str(tmp_path)
    out.symlink_to(out)
    (tmp_path / "model.json").write_text("{}")
    line = {"faces": ["faces", str(out)], "export": ["export", here, here, "--out", str(out)]}
    given = line.get(words[0], [words[0], here, "--out", str(out)])
    code, _, err = run(capsys, monkeypatch, *given)
    assert code == 2
    assert err.startswith(f"error: {out}: cannot be written (")
    assert err.count("\n") == 1
