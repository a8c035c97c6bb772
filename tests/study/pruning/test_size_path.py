"""The sizes along a network's path, computed in the background."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateurs.errors import InputError
from secateurs.nets.counting import macs
from secateurs.ship.checkpoint import load
from secateurs.study.pruning.size_path import SizePath, open_path
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.location import find_location


@pytest.fixture(scope="module")
def path(net: Path, flags: Path, net_cache: Path) -> SizePath:
    place = find_location(net, str(flags))
    return open_path(place, changes={}, cache=net_cache, shares=(0.6,))


def test_sizes_come_one_after_the_other_and_are_what_they_say(path: SizePath, tmp_path: Path):
    before = path.state()
    assert [row["state"] for row in before["positions"]] == ["ready", "waiting"]
    assert not before["done"]
    with pytest.raises(InputError, match="60% of the MACs is not computed yet"):
        path.save(0.6, tmp_path / "early")
    path.work()
    found = path.state()
    assert found["done"] and found["num_ready"] == 2 and not found["failure"]
    whole, middle = found["positions"]
    assert whole["share"] == 1.0 and whole["num_changed"] == 0
    assert middle["macs"] <= 0.6 * whole["macs"]
    assert middle["bytes"] < whole["bytes"]

    saved = path.save(0.6, tmp_path / "saved")
    assert saved["accuracy"] == middle["accuracy"]
    again = load(tmp_path / "saved").model
    val = path.dataset.sides["val"]
    logits = side_logits(again, path.dataset, "val", torch.device("cpu"))
    correct = logits.argmax(1).numpy() == val.labels
    assert float(correct.mean()) == pytest.approx(middle["accuracy"])
    assert macs(again, val.eval_views(slice(0, 1), torch.device("cpu"))) == middle["macs"]
    with pytest.raises(InputError, match="not empty"):
        path.save(0.6, tmp_path / "saved")

    view = val.eval_views(slice(0, 1), torch.device("cpu"))
    answers = path.answers(view, 0.6)
    best = again(view)[0].detach().softmax(0)
    assert answers["after"][0]["probability"] == pytest.approx(float(best.max()), abs=1e-5)
    assert answers["after"][0]["label"] == path.dataset.classes[int(best.argmax())]
    assert "--macs 0.6" in path.command(0.6)
    with pytest.raises(InputError, match="expected one of the path's sizes"):
        path.answers(view, 0.55)


def test_work_ends_when_asked_to(net: Path, flags: Path, net_cache: Path):
    place = find_location(net, str(flags))
    one = open_path(place, changes={}, cache=net_cache, shares=(0.5,))
    one.stop.request()
    one.work()
    assert one.state()["num_ready"] == 1
