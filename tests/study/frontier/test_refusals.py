"""What a study over several networks refuses before it computes anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.nets.download import NoWeightsError
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.run import run_frontier
from secateurs.study.setup.config import StudyConfig

CONFIG = StudyConfig(weights="none", group_by=r"^(\d+)_", device="cpu", image_size=64)
OPTIONS = FrontierOptions(backbones=("alexnet",))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_batch_of_timing_is_refused_for_named_layers(
    flags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = ["study", str(flags), "--layers", "fc7", "--batch", "4", "--out", str(tmp_path / "o")]
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--batch: not with --layers" in capsys.readouterr().err


def test_candidates_without_weights_are_skipped_unless_they_were_named(
    flags: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def offline(*given: Any, **words: Any) -> None:
        raise NoWeightsError("it", "nothing")

    monkeypatch.setattr("secateurs.nets.candidates.find_weights", offline)
    options = replace(OPTIONS, backbones=())
    with pytest.raises(InputError, match=r"no network to start from: .*name one with"):
        run_frontier(str(flags), CONFIG, options, tmp_path / "out", cache=cache)
    assert not (tmp_path / "out" / "study.json").exists()


def test_one_file_of_weights_is_refused_for_several_networks(
    flags: Path, cache: Path, tmp_path: Path
):
    (tmp_path / "w.pth").write_bytes(b"")
    config = replace(CONFIG, weights=str(tmp_path / "w.pth"))
    options = replace(OPTIONS, backbones=("alexnet", "vgg11"))
    with pytest.raises(InputError, match="a file is of one network"):
        run_frontier(str(flags), config, options, tmp_path / "out", cache=cache)
