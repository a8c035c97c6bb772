"""A study whose defaults do not fit: small sets, networks without a hidden linear layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secateurs.errors import InputError
from secateurs.nets.backbones import bare, build
from secateurs.nets.depth import auto_depths
from secateurs.progress import Silent
from secateurs.report.study.page import write_report
from secateurs.report.study.schema import check_results
from secateurs.ship.export import OnnxCheck
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.pruning.saved_layers import prune_saved
from secateurs.study.pruning.tail import layers_to_cut
from secateurs.study.saved.evaluate_saved import evaluation_words
from secateurs.study.setup.config import StudyConfig, from_preset
from secateurs.study.setup.defaults import chosen_layers, fit_to, hidden_layers, standard_layers
from secateurs.study.setup.trial_context import open_dataset
from secateurs.study.study import headline, run_study

BACKBONE = "squeezenet1_1"
WORDS: dict[str, Any] = {
    "backbone": BACKBONE,
    "weights": "none",
    "depths": (25,),
    "runs": 1,
    "scratch_runs": 0,
    "epochs": 1,
    "precision": "float32",
}


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six images."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("six")
    for label in ("a", "b"):
        (folder / label).mkdir()
        for number in range(6):
            pixels = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def study(six: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, list[str]]:
    def export(model: object, spec: object, path: Path, example: object) -> OnnxCheck:
        path.write_bytes(b"exported")
        return OnnxCheck(path, 1e-6, 18, 8)

    notes, out = Notes(), tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateurs.study.stages.export_onnx", export)
        patch.setattr("secateurs.study.stages.export_program", export)
        results = run_study(
            str(six), from_preset("quick", **WORDS), out, cache=out.parent / "cache", progress=notes
        )
    return results, out, notes.texts


def test_a_default_batch_is_no_larger_than_the_training_set(study):
    results, _, notes = study
    num_train = results["split"]["counts"]["train"]
    assert 6 <= num_train < 12
    assert results["config"]["batch_size"] == num_train
    assert f"batch size {num_train} instead of 64: there are no more training images" in notes


def test_a_batch_that_was_asked_for_is_refused(six: Path, tmp_path: Path):
    config = from_preset("quick", batch_size=64, **WORDS)
    with pytest.raises(InputError, match="batch size 64 is larger than the"):
        run_study(str(six), config, tmp_path / "out", cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def test_a_network_without_hidden_layers_is_shipped_unpruned(study):
    results, out, notes = study
    assert results["config"]["layers"] == []
    assert results["pruned"] is None
    assert "secateurs prune --macs 0.5" in results["not_pruned"]
    assert any("the study ends without pruning" in text for text in notes)
    assert set(results["files"]) == {"unpruned", "unpruned_onnx", "unpruned_program", "report"}
    for name in ("unpruned", "unpruned_onnx", "unpruned_program"):
        assert (out / results["files"][name]).exists()
    assert results["cost"]["before"]["num_parameters"] > 700_000
    assert results["cost"]["after"] is None
    assert f"not pruned: {BACKBONE} has no hidden linear layer" in headline(results)


def test_its_page_says_so(study):
    results, out, _ = study
    page = write_report(check_results(results), out).read_text()
    assert f"Nothing was pruned: {BACKBONE} has no hidden linear layer" in page
    assert "nothing was pruned" in page


def test_the_headline_has_the_baseline_and_cautions(study):
    results, _, _ = study
    text = headline(results)
    test = results["chosen"]["test"]
    assert evaluation_words(test, "unpruned, test") in text
    assert f"always answering the largest class gives {test['majority_accuracy']:.1%}" in text
    assert f"caution: only {test['num_images']} images" in text
    assert "caution: split without --group-by" in text


def test_layers_that_fit():
    found = {
        name: standard_layers(build(name, 2), name)
        for name in ("alexnet", "resnet18", "mobilenet_v3_small", "densenet121")
    }
    assert found == {
        "alexnet": ("fc7",),
        "resnet18": (),
        "mobilenet_v3_small": ("classifier.0",),
        "densenet121": (),
    }


def test_an_unknown_layer_names_those_that_can_be_pruned():
    model = build("alexnet", 2)
    config = from_preset("quick", layers=("fc9",))
    with pytest.raises(InputError, match=r"'fc9'; .*that can be pruned: fc6, fc7$"):
        layers_to_cut(model, config)
    config = from_preset("quick", backbone="resnet18", layers=("fc7",))
    with pytest.raises(InputError, match=r"no weighted layer 'fc7'; .*prune --macs 0\.5"):
        layers_to_cut(build("resnet18", 2), config)
    config = from_preset("quick", backbone="squeezenet1_1", layers=("classifier.1",))
    with pytest.raises(InputError, match=r"^layer classifier.1: squeeze.* prune --macs 0\.5"):
        layers_to_cut(build("squeezenet1_1", 2), config)
    with pytest.raises(InputError, match="keep: fc7 has 4096 units, got 4097"):
        layers_to_cut(model, from_preset("quick", keep=(4097,)))
    assert hidden_layers(model, "alexnet") == ("fc6", "fc7")
    several = bare("alexnet+features.5", 2)  # its fc7 gives the last features, which the head reads
    config = from_preset("quick", backbone="alexnet+features.5", layers=("fc7",))
    with pytest.raises(InputError, match=r"^layer fc7: .* \(layers that can be pruned: fc6\)$"):
        layers_to_cut(several, config)
    with pytest.raises(InputError, match="squeezenet1_1 may be in a study once, got squeezenet1_1"):
        FrontierOptions(backbones=("squeezenet1_1", "squeezenet1_1+features.4"))
    with pytest.raises(InputError, match="resnet18 has no hidden linear layer"):
        chosen_layers(None, build("resnet18", 2), "resnet18")


def test_what_is_given_is_kept():
    model = build("alexnet", 2)
    given = from_preset("quick", depths=(3, 5), layers=("fc6",), batch_size=8)
    assert given.fitted == ()
    assert fit_to(given, model, num_train=8) == given
    assert from_preset("quick").fitted == ("depths", "batch_size", "layers")
    assert StudyConfig(batch_size=8).fitted == ("depths", "layers")
    fitted = fit_to(from_preset("full"), model, num_train=100)
    assert (fitted.depths, fitted.layers, fitted.batch_size) == (tuple(range(8)), ("fc7",), 64)


def test_a_saved_network_says_what_prunes_it(study, six: Path, tmp_path: Path):
    _, out, _ = study
    with pytest.raises(InputError, match=r"no hidden linear layer .*secateurs prune --macs 0\.5"):
        prune_saved(
            out / "unpruned", str(six), tmp_path / "x", changes={}, cache=tmp_path / "cache"
        )
    assert not (tmp_path / "x").exists()


def test_depths_of_another_network_than_alexnet_are_chosen_by_its_parts():
    model = build("mobilenet_v2", 2)
    notes = Notes()
    config = fit_to(
        from_preset("quick", backbone="mobilenet_v2"), model, num_train=99, progress=notes
    )
    assert config.depths == auto_depths(model, "mobilenet_v2") and not config.auto_depths
    [note] = [text for text in notes.texts if "depths" in text]
    assert note.startswith("depths of mobilenet_v2: 0 (all trained), 9 (up to features 3)")
    assert note.endswith("52 (head only)")
    full = fit_to(from_preset("full", backbone="mobilenet_v2"), model, num_train=99)
    assert full.depths == config.depths
    every = from_preset("full", backbone="mobilenet_v2", depths="all")
    assert fit_to(every, model, num_train=99).depths == tuple(range(53))
    given = from_preset("quick", backbone="mobilenet_v2", depths="5,3")
    assert fit_to(given, model, num_train=99).depths == (3, 5)


def test_alexnet_keeps_the_paper_s_depths_unless_others_are_asked_for():
    model = build("alexnet", 2)
    assert fit_to(from_preset("quick"), model, num_train=99).depths == (3, 5, 7)
    assert fit_to(from_preset("full"), model, num_train=99).depths == tuple(range(8))
    auto = from_preset("quick", depths="auto")
    assert fit_to(auto, model, num_train=99).depths == (0, 1, 3, 4, 6, 7)


def test_an_image_size_that_the_network_does_not_take_is_refused(six: Path, tmp_path: Path):
    config = replace(from_preset("quick"), **WORDS | {"image_size": 16})
    with pytest.raises(InputError, match=r"squeezenet1_1 does not take images of 16 pixels; its"):
        open_dataset(str(six), config, cache=tmp_path)
    dataset = open_dataset(str(six), replace(config, image_size=40), cache=tmp_path)
    assert dataset.sides["train"].size == 40 and dataset.recipe.size == 40
