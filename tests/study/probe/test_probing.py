"""The command `probe`: its directory and files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.cli.app import app
from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.study.probe_directory import MARKER, probe_data
from secateurs.study.records.checksummed import read_sealed
from secateurs.study.setup.config import StudyConfig

NAME = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(build(NAME, 1000).state_dict(), path)
    return str(path)


def test_the_command_writes_its_page_and_refuses_another_probe(
    flags: Path, tmp_path: Path, net_cache: Path, weights: str, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "probe"
    words = ["probe", str(flags), "--backbones", NAME, "--weights", weights, "--depths", "0,53"]
    words += ["--group-by", r"^(\d+)_", "--out", str(out), "--cache", str(net_cache), "--quiet"]
    app(words, standalone_mode=False)
    printed = capsys.readouterr().out
    assert "100% frozen" in printed
    assert f"page: {out / 'probe.html'}" in printed
    record = read_sealed(out / MARKER)
    assert record is not None
    assert record["config"]["depths"] == [0, 53]
    app(words, standalone_mode=False)
    assert capsys.readouterr().out == printed
    with pytest.raises(InputError, match="holds a probe with depths"):
        app([word.replace("0,53", "0") for word in words], standalone_mode=False)
    other = tmp_path / "other"
    shutil.copytree(flags, other)
    with pytest.raises(InputError, match="holds a probe with data"):
        app([word.replace(str(flags), str(other)) for word in words], standalone_mode=False)
    assert not list((out / "probe").glob("*.lock"))


def test_another_set_of_images_in_the_same_folder_is_refused(
    flags: Path, tmp_path: Path, net_cache: Path, weights: str
):
    data = tmp_path / "data"
    shutil.copytree(flags, data)
    settings: dict[str, Any] = {"weights": weights, "group_by": r"^(\d+)_", "backbone": NAME}
    given = (str(data), StudyConfig(**settings), [NAME], tmp_path / "out")
    probe_data(*given, depths=(53,), cache=net_cache)
    next(data.glob("plain/*")).unlink()
    with pytest.raises(InputError, match="holds a probe of other data and split"):
        probe_data(*given, depths=(53,), cache=net_cache)
    found = probe_data(*given, depths=(53,), cache=net_cache, overwrite=True)
    assert found.record["identity"] == found.dataset.identity()


def test_an_unknown_name_is_refused_and_not_skipped(
    flags: Path, tmp_path: Path, net_cache: Path, weights: str
):
    config = StudyConfig(backbone=NAME, weights=weights)
    with pytest.raises(InputError, match="mobilenet_v33"):
        probe_data(str(flags), config, [NAME, "mobilenet_v33"], tmp_path / "o", cache=net_cache)


def test_it_writes_into_no_other_directory(flags: Path, tmp_path: Path, net_cache: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a probe"):
        probe_data(str(flags), StudyConfig(), [NAME], tmp_path, cache=net_cache)


def test_a_damaged_record_is_named(flags: Path, tmp_path: Path, net_cache: Path, weights: str):
    settings: dict[str, Any] = {"weights": weights, "group_by": r"^(\d+)_", "backbone": NAME}
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(InputError, match=r"probe\.json: damaged"):
        probe_data(str(flags), StudyConfig(**settings), [NAME], tmp_path, cache=net_cache)
