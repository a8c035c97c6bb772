"""Two saved networks on the same images."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from secateurs.cli.app import app
from secateurs.errors import InputError
from secateurs.files import read_json, write_json
from secateurs.fit.paired import paired_difference
from secateurs.progress import SILENT
from secateurs.ship.checkpoint import load, save
from secateurs.study.insight import compare
from secateurs.study.insight.compare import compare_saved
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.opened import open_saved


@pytest.fixture(scope="module")
def other(net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with another head, which answers otherwise."""
    loaded = load(net)
    head = loaded.model.get_submodule("classifier.3")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter.roll(1, 0))
    path = tmp_path_factory.mktemp("other") / "turned"
    save(loaded.model, replace(loaded.spec, extra=loaded.spec.extra), path)
    return path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LATENCY_S", 0.05)


def test_the_command_pairs_the_same_images_and_shows_where_they_differ(
    net: Path, other: Path, flags: Path, net_cache: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    out = tmp_path / "out"
    words = ["compare", str(net), str(other), str(flags), "--out", str(out)]
    app([*words, "--cache", str(net_cache), "--quiet"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert f"page: {out / 'comparison.html'}" in printed
    record = read_json(out / "comparison.json")
    correct = []
    cpu = torch.device("cpu")
    for model in (net, other):
        loaded, _, dataset = open_saved(model, str(flags), {}, net_cache, SILENT, sides=("test",))
        logits = side_logits(loaded.model, dataset, "test", cpu)
        correct.append(logits.argmax(1).numpy() == dataset.sides["test"].labels)
    groups = [Path(name).name[:2] for name in dataset.names("test")]
    expected = paired_difference(correct[1], correct[0], groups)
    assert record["difference"]["difference"] == pytest.approx(expected.difference)
    assert record["difference"]["low"] == pytest.approx(expected.low)
    agreement = record["agreement"]
    assert agreement["only_first"] == (correct[0] & ~correct[1]).sum()
    assert sum(agreement[key] for key in agreement if key != "same_answer") == len(correct[0])
    differ = agreement["only_first"] + agreement["only_second"]
    assert len(record["images"]) == min(24, differ) > 0
    for image in record["images"]:
        assert (out / image["thumbnail"]).stat().st_size > 0
        right = [image[when]["label"] == image["label"] for when in ("first", "second")]
        assert sum(right) == 1
    text = re.sub(r"<[^>]+>", " ", (out / "comparison.html").read_text(encoding="utf-8"))
    assert "Images that only one gets right" in text
    assert record["models"]["first"]["macs"] == record["models"]["second"]["macs"]


def test_a_network_against_itself_does_not_differ(
    net: Path, flags: Path, net_cache: Path, tmp_path: Path
):
    record = compare_saved(net, net, str(flags), tmp_path / "out", cache=net_cache)
    assert record["difference"]["difference"] == 0
    assert record["images"] == []
    assert record["agreement"]["same_answer"] == record["num_images"]
    assert np.isclose(record["models"]["first"]["accuracy"], record["models"]["second"]["accuracy"])


def test_another_comparison_is_not_replaced_unless_asked_to(
    net: Path, other: Path, flags: Path, net_cache: Path, tmp_path: Path
):
    out = tmp_path / "out"
    compare_saved(net, net, str(flags), out, cache=net_cache)
    with pytest.raises(InputError, match="holds a comparison with second"):
        compare_saved(net, other, str(flags), out, cache=net_cache)
    record = compare_saved(net, other, str(flags), out, cache=net_cache, overwrite=True)
    assert record["config"]["second"] == str(other)


def test_the_error_says_which_model(
    net: Path, other: Path, flags: Path, net_cache: Path, tmp_path: Path
):
    data = Path(shutil.copytree(flags, tmp_path / "data"))
    renamed = Path(shutil.copytree(net, tmp_path / "renamed"))
    plain = read_json(renamed / "model.json")
    plain["classes"] = ["plain", "other", "across"]
    write_json(renamed / "model.json", plain)
    with pytest.raises(InputError, match=f"{renamed}: .*down"):
        compare_saved(net, renamed, str(data), tmp_path / "out", cache=net_cache)


def test_networks_of_other_classes_are_refused(
    net: Path, flags: Path, net_cache: Path, tmp_path: Path
):
    renamed = Path(shutil.copytree(net, tmp_path / "renamed"))
    plain = read_json(renamed / "model.json")
    plain["classes"] = ["plain", "down", "across"]
    write_json(renamed / "model.json", plain)
    with pytest.raises(InputError, match="the two models have other classes"):
        compare_saved(net, renamed, str(flags), tmp_path / "out", cache=net_cache)
