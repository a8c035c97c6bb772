"""The tutorials: their code is that of the examples, which `test_pages.py` runs with the pages."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, blocks

EXAMPLES = ROOT / "examples"
PAGES = ROOT / "docs" / "pruning"


@pytest.mark.parametrize("name", ["unet", "audio"])
def test_a_tutorial_is_the_example(name: str):
    (block,) = [one for one in blocks("python") if one.where.startswith(f"own-{name}.md")]
    assert block.text == (EXAMPLES / f"prune_{name}.py").read_text()


@pytest.mark.parametrize("name", ["unet", "vit", "audio"])
def test_a_tutorial_shows_what_was_cut(name: str):
    text = (PAGES / f"own-{name}.md").read_text()
    for look in ("light", "dark"):
        picture = f"../pictures/own-{name}-{look}.svg"
        assert f"({picture}#only-{look})" in text
        assert "<svg" in (PAGES / picture).read_text()


def test_the_example_with_transformers_uses_the_public_calls():
    tree = ast.parse((EXAMPLES / "prune_huggingface.py").read_text())
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "secateurs"
    }
    assert called == {"inspect", "prune", "Budget", "load_weights", "export"}


def test_every_script_is_in_the_folder():
    assert {path.name for path in EXAMPLES.glob("prune_*.py")} == {
        "prune_unet.py",
        "prune_huggingface.py",
        "prune_audio.py",
        "prune_yolo.py",
    }
    assert Path(EXAMPLES / "predict_onnx.py").exists()
