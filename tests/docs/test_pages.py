"""What the README and the site tell people to type: the code runs, the commands are real."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, Block, blocks, command_lines, pages
from typer.main import get_command

import secateurs
from secateurs.cli.app import app, main
from secateurs.ship.export import OnnxCheck
from secateurs.study.setup.config import PRESETS

# What a reader has after the study of `start.md`, in small: a network without pretrained weights.
TINY = replace(
    PRESETS["quick"],
    backbone="mobilenet_v3_small",
    weights="none",
    epochs=1,
    runs=1,
    scratch_runs=0,
    views=1,
    batch_size=16,
    precision="float32",
    layers=("classifier.0",),
    keep=(8,),
    image_size=64,
)
RUN = ("audit", "results", "predict", "evaluate", "report")  # the quick commands
PYTHON = blocks("python")
LINES = command_lines()


@pytest.fixture(scope="module")
def desk(flags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the pages' commands can be typed: images, a study, models."""
    root = tmp_path_factory.mktemp("desk")
    shutil.copytree(flags, root / "photos")
    shutil.copy(next((flags / "plain").iterdir()), root / "new.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(PRESETS, "quick", TINY)
        # Latency and the exports have tests of their own; here they would only take time.
        patch.setattr("secateurs.study.stages.price", lambda *_, **__: price())
        patch.setattr("secateurs.study.stages.export_program", exported)
        patch.setattr("secateurs.study.stages.export_onnx", exported)
        (study,) = [block for block in PYTHON if "run_study" in block.text]
        text = re.sub(r"depths=\(4, 5\), runs=\d", "depths=(53,), runs=1", study.text)
        assert text != study.text
        run_block(replace(study, text=text))
    shutil.copytree(root / "studies/photos/model", root / "models/small")
    shutil.copytree(root / "studies/photos/unpruned", root / "models/photos")
    return root


def exported(model: object, spec: object, path: Path, example: object) -> OnnxCheck:
    path.write_bytes(b"a network")
    return OnnxCheck(path, max_abs_difference=0.0, opset=18, num_bytes=9)


def price() -> dict[str, Any]:
    cost = {"num_parameters": 1, "macs": 1, "activation_bytes": 1, "file_bytes": 1, "onnx_bytes": 1}
    words = {"latency": [], "sentence": "", "timing": {"seconds": 0.0}}
    return {"before": cost, "after": cost, **words}


def run_block(block: Block) -> None:
    code = compile(block.text, block.where, "exec")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize(
    "block",
    [
        # A tutorial is a program of its own that takes seconds; own.md has the same calls in short.
        pytest.param(b, marks=[pytest.mark.slow] * b.where.startswith("own-"), id=b.where)
        for b in PYTHON
        if "run_study" not in b.text
    ],
)
def test_python_blocks_run(block: Block, desk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(desk)
    before = torch.random.get_rng_state()
    run_block(block)
    torch.random.set_rng_state(before)
    assert "assert " in block.text or "print(" in block.text  # it shows the reader something


def test_a_study_in_python_is_what_the_pages_say_of_it(desk: Path):
    results = secateurs.load_results(desk / "studies/photos")
    assert results["pruned"]["layers"][0]["num_kept"] < 1024
    assert results["recommendation"]["depth"] == 53


@pytest.mark.parametrize(("where", "words"), LINES, ids=lambda value: str(value)[:60])
def test_commands_are_real(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch):
    """Every command, option and number on the pages is one that the command line takes."""
    # The folders and files that the pages speak of are taken to be there.
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "is_dir", lambda path: not path.suffix)
    monkeypatch.setattr(Path, "is_file", lambda path: bool(path.suffix))
    commands: dict[str, Any] = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert words[0] in commands, where
    context = commands[words[0]].make_context(words[0], list(words[1:]))
    assert context.params, where


@pytest.mark.parametrize(
    ("where", "words"),
    [(w, words) for w, words in LINES if words[0] in RUN],
    ids=lambda value: str(value)[:60],
)
def test_quick_commands_run(where: str, words: list[str], desk: Path, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("SECATEURS_CACHE", str(desk / "cache"))
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert (ended.value.code or 0) == 0, f"{where}: {printed.err}"
    assert printed.out.strip(), where


def test_links_to_files_of_the_repository_go_to_files_that_are_there():
    missing: list[str] = []
    for path in (*pages(), *ROOT.glob("*.md")):
        for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", path.read_text("utf-8")):
            if not (path.parent / link).exists():
                missing.append(f"{path.relative_to(ROOT)}: {link}")
    assert missing == []


def test_pages_have_what_is_tested_here():
    """The patterns still find the blocks: a page of another form must not go untested."""
    assert len(PYTHON) >= 6
    assert len(LINES) >= 30
    assert {words[0] for _, words in LINES} >= {"study", "sweep", "search", "prune", *RUN[:3]}
    assert len(pages()) >= 10
