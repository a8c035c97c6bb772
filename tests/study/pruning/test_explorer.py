"""Every position of an explorer's sliders against `secateurs prune` with the same settings."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.data.images.decode import DecodeError
from secateurs.errors import InputError
from secateurs.nets.batches import blank_image
from secateurs.prune.similarity.normalise import outside_norms
from secateurs.ship.checkpoint import load
from secateurs.ship.cost import macs
from secateurs.study.pruning.explorer import (
    Explorer,
    answers,
    cut,
    facts,
    look_at,
    open_explorer,
    read_picture,
    requested_config,
    save_model,
    unit,
)
from secateurs.study.pruning.saved_layers import prune_saved
from secateurs.study.pruning.slider_request import SliderRequest, parse_request
from secateurs.study.saved.location import find_location
from secateurs.study.saved.prediction import predict_saved

LAYER = "classifier.0"
pytestmark = pytest.mark.usefixtures("without_onnx")

SETTINGS = [
    SliderRequest(low_deg=6.0),
    SliderRequest(compensation="least_squares", low_deg=3.0, norm_std=0.5),
    SliderRequest(compensation="add", low_deg=8.0, norm_std=1.0),
    SliderRequest(compensation="affine", low_deg=None, keep=40),
    SliderRequest(rule="cluster", low_deg=None, keep=12),
]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            settings,
            # Each takes seconds; these two have both rules and both ways to say how many stay.
            marks=[] if settings in (SETTINGS[0], SETTINGS[-1]) else [pytest.mark.slow],
            id=f"{settings.rule}-{settings.compensation}",
        )
        for settings in SETTINGS
    ],
)
def test_a_position_says_what_prune_does(
    explorer: Explorer,
    net: Path,
    flags: Path,
    net_cache: Path,
    tmp_path: Path,
    settings: SliderRequest,
):
    found = cut(explorer, settings)
    plain = requested_config(explorer, settings).to_json()
    names = ("layers", "rule", "low_deg", "high_deg", "norm_std", "keep", "compensation")
    changes: dict[str, Any] = {name: plain[name] for name in names} | {"max_loss": -1}
    changes |= {name: plain[name] and tuple(plain[name]) for name in ("layers", "keep")}
    out = tmp_path / "pruned"
    pruned = prune_saved(net, str(flags), out, changes=changes, cache=net_cache)
    assert found["num_kept"] == pruned["layers"][0]["num_kept"]
    assert 0 < found["num_removed"] < explorer.num_units
    assert found["accuracy"] == pruned["after"]["accuracy"]
    assert found["accuracy_low"] == pruned["after"]["accuracy_low"]
    assert found["num_parameters"] == pruned["num_parameters"]["after"]
    loaded = load(out)
    assert found["bytes"] == sum(t.nbytes for t in loaded.model.state_dict().values())
    assert found["macs"] == macs(
        loaded.model, blank_image(loaded.model, explorer.loaded.spec.preprocessing.size)
    )
    kept = [k for k, state in enumerate(found["states"]) if state == "0"]
    assert kept == list(loaded.spec.kept[LAYER])
    assert pruned["before"]["accuracy"] == facts(explorer)["before"]["accuracy"]


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[4]], ids=["merged", "grouped"])
def test_what_is_saved_answers_as_shown(
    explorer: Explorer, flags: Path, tmp_path: Path, settings: SliderRequest
):
    saved = save_model(explorer, settings, tmp_path / "cuts" / "small")
    assert saved["after"]["accuracy"] == cut(explorer, settings)["accuracy"]
    assert saved["parity"] < 1e-5
    file = next((flags / "down").iterdir())
    outputs, seen = look_at(explorer, read_picture(explorer, file, max_pixels=10_000))
    shown = answers(explorer, outputs, settings)
    assert seen.startswith("data:image/jpeg;base64,")
    for which, folder in (("before", explorer.place.model), ("after", tmp_path / "cuts" / "small")):
        (expected,) = predict_saved(folder, [file])["predictions"]
        got = {row["label"]: row["probability"] for row in shown[which]}
        assert got == pytest.approx(
            {row["label"]: row["probability"] for row in expected["answers"]}, abs=1e-4
        )
    assert shown["agree"] == (shown["before"][0]["label"] == shown["after"][0]["label"])
    with pytest.raises(InputError, match="small: is there already and not empty"):
        save_model(explorer, settings, tmp_path / "cuts" / "small")
    with pytest.raises(DecodeError, match="oversized"):
        look_at(explorer, read_picture(explorer, file, max_pixels=100))


def test_a_cut_that_is_killed_while_it_is_saved_leaves_its_name_free(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "cuts" / "small"

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            "secateurs.study.pruning.saved_layers.write_csv", killed
        )  # the model is written by then
        with pytest.raises(KeyboardInterrupt):
            save_model(explorer, SETTINGS[0], out)
    assert list((tmp_path / "cuts").iterdir()) == []
    save_model(explorer, SETTINGS[0], out)
    assert {path.name for path in out.iterdir()} == {
        *("ledger.csv", "ledger.parquet", "model.json", "model.safetensors", "pruning.json"),
    }


def test_a_unit_says_where_it_went(explorer: Explorer):
    settings = SETTINGS[0]
    states = cut(explorer, settings)["states"]
    x = explorer.view.train.double()
    x = (x - x.min()) / (x.max() - x.min()) - 0.5
    x = torch.nn.functional.normalize(x, dim=0)
    kept = [k for k, state in enumerate(states) if state == "0"]
    gone = [k for k, state in enumerate(states) if state == "1"][:3]
    for index in gone:
        found = unit(explorer, settings, index)
        cosine = x[:, index] @ x[:, kept]
        best = int(cosine.abs().argmax())
        assert found["parent"] == kept[best]
        assert found["angle_deg"] == pytest.approx(float(cosine[best].acos().rad2deg()), abs=1e-5)
        assert unit(explorer, settings, kept[best])["num_merged"] >= 1
    with pytest.raises(InputError, match="unit: expected 0 to 1023, got 1024"):
        unit(explorer, settings, 1024)


def test_the_norm_says_how_many_are_looked_at(explorer: Explorer):
    source = explorer.table.source
    expected = int((source.live & outside_norms(source.norm, 1.0)).sum())
    assert cut(explorer, SliderRequest(norm_std=1.0))["num_candidates"] == expected
    words = shlex.split(cut(explorer, SliderRequest(low_deg=7.5, norm_std=1.0))["command"])
    assert words[:2] == ["secateurs", "prune"]
    assert words[words.index("--low-deg") + 1] == "7.5"
    assert words[words.index("--high-deg") + 1] == "172.5"
    assert words[words.index("--norm-std") + 1] == "1"


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        ("{", "settings: not readable as JSON"),
        ([1], "settings: expected a JSON object"),
        ({"low_deg": 5, "high": 3}, "unknown field 'high'"),
        ({"low_deg": 90}, "low_deg: expected degrees, at least 0 and below 90, got 90"),
        ({"low_deg": "9"}, "low_deg: expected a number or null, got '9'"),
        ('{"low_deg": NaN}', "low_deg: expected a number or null, got nan"),
        ({"low_deg": 5, "norm_std": -1}, "norm_std: expected a number >= 0 or null, got -1"),
        ({"keep": 0}, "keep: expected a whole number, 1 to 50, got 0"),
        ({"keep": 51}, "keep: expected a whole number, 1 to 50, got 51"),
        ({"keep": True}, "keep: expected a whole number"),
        ({}, "expected either low_deg or keep"),
        ({"keep": 3, "low_deg": 3}, "expected either low_deg or keep"),
        ({"rule": "random", "keep": 3}, "rule: expected one of pairwise, cluster, got 'random'"),
        ({"rule": ["pairwise"], "keep": 3}, "rule: expected one of pairwise, cluster, got"),
        ({"keep": 3, "compensation": "prayer"}, "compensation: expected one of drop, add"),
        ({"rule": "cluster", "low_deg": 3}, "cluster goes by keep alone"),
    ],
)
def test_bad_positions(plain: Any, text: str):
    with pytest.raises(InputError, match=text):
        parse_request(plain, num_units=50)


def test_places_without_a_network_or_images(net: Path, flags: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no such directory"):
        find_location(tmp_path / "nothing", None)
    with pytest.raises(InputError, match="neither a study nor a saved model"):
        find_location(tmp_path, None)
    with pytest.raises(InputError, match=r"no images at hand; say where they are: secateurs exp"):
        find_location(net, None)
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text("{}")
    with pytest.raises(InputError, match="this study has no network yet"):
        find_location(study, None)
    (study / "unpruned").symlink_to(net)
    with pytest.raises(InputError, match="no images at hand"):
        find_location(study, None)
    (study / "study.json").write_text(json.dumps({"data": str(tmp_path / "moved")}))
    with pytest.raises(InputError, match="moved: the study's images are no longer there"):
        find_location(study, None)
    (study / "study.json").write_text(json.dumps({"data": str(flags), "identity": {"data": "x"}}))
    for directory in (study, study / "unpruned"):
        place = find_location(directory, None)
        assert (place.model, place.data) == (study / "unpruned", str(flags))
        assert place.identity == {"data": "x"}


def test_other_images_and_pruned_networks_are_refused(
    explorer: Explorer, net: Path, flags: Path, net_cache: Path, tmp_path: Path
):
    study = tmp_path / "study"
    study.mkdir()
    (study / "unpruned").symlink_to(net)
    identity = explorer.dataset.identity()
    (study / "study.json").write_text(json.dumps({"identity": identity | {"data": "x"}}))
    with pytest.raises(InputError, match="not the data of the study in"):
        open_explorer(find_location(study, str(flags)), LAYER, changes={}, cache=net_cache)
    (study / "study.json").write_text(json.dumps({"identity": identity}))
    opened = open_explorer(find_location(study, str(flags)), LAYER, changes={}, cache=net_cache)
    assert facts(opened)["before"] == facts(explorer)["before"]
    with pytest.raises(InputError, match="has no weighted layer 'fc7'; it has"):
        open_explorer(find_location(net, str(flags)), "fc7", changes={}, cache=net_cache)
    save_model(explorer, SETTINGS[0], tmp_path / "small")
    with pytest.raises(InputError, match="already pruned"):
        open_explorer(
            find_location(tmp_path / "small", str(flags)), LAYER, changes={}, cache=net_cache
        )
