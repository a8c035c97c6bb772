from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backwards import Backwards, timeless

from kept_notes import KeptNotes
from narrow import narrowed
from secateurs.cli import main
from secateurs.data.corruptions import CORRUPTIONS
from secateurs.directories import clear_output
from secateurs.errors import InputError
from secateurs.paths import saved_model
from secateurs.ship.checkpoint import load, save
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.frontier import answer, int8, latency, run
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.record import headline
from secateurs.study.frontier.run import run_frontier
from secateurs.study.frontier.trust import trust_stage
from secateurs.study.saved.confidence import confidence_of
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context, open_dataset
from secateurs.study.stages import Stages
from secateurs.study.study import run_study

CONFIG = StudyConfig(
    weights="none",
    group_by=r"^(\d+)_",
    runs=1,
    epochs=1,
    batch_size=8,
    device="cpu",
    image_size=64,
)
OPTIONS = FrontierOptions(
    backbones=("alexnet",),
    num_depths=1,
    earlier_depths=False,
    sizes=(0.95,),
    recover=1,
    refit="train",
)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Generator[None]:
    """A narrow network, few timing rounds, no ONNX files: all that the flow does not depend on."""
    with narrowed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "REPEATS", 3)
        patch.setattr("secateurs.study.pruning.savings.BUDGET_S", 0.05)
        patch.setattr(answer, "onnx_obstacle", lambda model: "left out here")
        patch.setattr(int8, "onnx_obstacle", lambda model: "left out here")
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def kept() -> KeptNotes:
    return KeptNotes()


@pytest.fixture(scope="module")
def study(
    flags: Path, cache: Path, kept: KeptNotes, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache, progress=kept)
    return out


@pytest.fixture(scope="module")
def results(study: Path) -> dict[str, Any]:
    return json.loads((study / "results.json").read_text())


def test_what_is_to_be_done_is_said_before_the_first_training(study: Path, kept: KeptNotes):
    plan, training = (
        next(place for place, text in enumerate(kept.notes) if text.startswith(start))
        for start in ("to do: 1 training of 1 epoch, 1 smaller network", "fine-tuning alexnet")
    )
    assert plan < training


def test_every_point_is_a_network_on_disk_that_answers_as_its_row_says(
    results: dict[str, Any], study: Path, flags: Path, cache: Path
):
    assert [row["name"] for row in results["points"]] == [
        "alexnet-probe",
        "alexnet",
        "alexnet-macs95",
    ]
    dataset = open_dataset(str(flags), replace(CONFIG, backbone="alexnet"), cache=cache)
    labels = dataset.sides["val"].labels
    for row in results["points"]:
        saved = load(study / "models" / row["name"])
        logits = side_logits(saved.model, dataset, "val", torch.device("cpu"))
        correct = logits.argmax(1).numpy() == labels
        assert row["correct"] == "".join("01"[int(one)] for one in correct)
        assert row["val"]["accuracy"] == pytest.approx(float(correct.mean()))
        size = (study / "models" / row["name"] / "model.safetensors").stat().st_size
        assert row["cost"]["file_bytes"] == size
    cost = {row["name"]: row["cost"]["macs"] for row in results["points"]}
    assert cost["alexnet-macs95"] <= 0.95 * cost["alexnet"]


def test_the_recommended_network_is_in_model_and_was_tested(
    results: dict[str, Any], study: Path, flags: Path, cache: Path
):
    name = results["answer"]["name"]
    assert results["recommended"]["name"] == name
    found, point = load(saved_model(study)), load(study / "models" / name)
    assert all(
        torch.equal(value, point.model.state_dict()[key])
        for key, value in found.model.state_dict().items()
    )
    dataset = open_dataset(str(flags), replace(CONFIG, backbone="alexnet"), cache=cache)
    logits = side_logits(found.model, dataset, "test", torch.device("cpu"))
    correct = logits.argmax(1).numpy() == dataset.sides["test"].labels
    assert results["recommended"]["test"]["accuracy"] == pytest.approx(float(correct.mean()))
    assert name in headline(results).splitlines()[0]
    assert (study / "model" / "model.pt2").exists()
    assert results["int8"]["sentences"] == ["No int8 file: left out here."]


def test_the_recommended_network_keeps_its_confidence_and_was_measured_for_trust(
    results: dict[str, Any], study: Path
):
    trust, test = results["trust"], results["recommended"]["test"]
    pruned = results["recommended"]["unpruned"] != results["recommended"]["name"]
    assert list(trust["networks"]) == (["before", "after"] if pruned else ["before"])
    last = list(trust["networks"])[-1]
    assert trust["clean"][last]["accuracy"] == pytest.approx(test["accuracy"])
    assert [row["name"] for row in trust["corruptions"]] == list(CORRUPTIONS)
    found = confidence_of(load(study / "model").spec)
    kept = trust["networks"][last]["confidence"]
    assert found.temperature == pytest.approx(kept["temperature"])
    assert found.threshold == pytest.approx(kept["threshold"])
    assert "confidence" not in load(study / "models" / results["answer"]["name"]).spec.extra


def test_mistakes_are_shown_with_maps_and_a_picture_that_is_gone_is_made_again(
    study: Path, flags: Path, cache: Path, tmp_path: Path
):
    wrong = load(study / "unpruned")
    with torch.no_grad():
        for parameter in wrong.model.get_submodule("classifier.6").parameters():
            parameter.copy_(parameter.roll(1, 0))  # each class answers for the next
    save(wrong.model, wrong.spec, tmp_path / "unpruned")
    context = open_context(str(flags), replace(CONFIG, backbone="alexnet"), cache=cache)

    def measured() -> dict[str, Any]:
        before = tmp_path / "unpruned"
        return trust_stage(
            context, Stages(tmp_path), {"is": 1}, before=before, after=None, stop=StopFlag()
        )

    found = measured()
    losses = found["mistakes"]["losses"]
    assert losses and found["mistakes"]["confusions"]
    files = [file for row in losses for file in (row["thumbnail"], *row["maps"].values())]
    pictures = [tmp_path / file for file in files]
    assert len(pictures) == 2 * len(losses) and all(file.is_file() for file in pictures)
    pictures[0].unlink()
    assert measured()["mistakes"]["losses"] == losses
    assert pictures[0].is_file()


def test_a_finished_study_answers_again_without_computing(
    results: dict[str, Any], study: Path, flags: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*given: Any, **words: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("secateurs.study.trials.trial.fit", refuse)
    monkeypatch.setattr("secateurs.study.probe.network.probe", refuse)
    monkeypatch.setattr("secateurs.study.frontier.shrink.survey_whole", refuse)
    monkeypatch.setattr("secateurs.study.frontier.run.time_networks", refuse)
    again = run_frontier(str(flags), CONFIG, OPTIONS, study, cache=cache)
    assert again == results


def test_a_network_that_was_deleted_or_damaged_is_made_again(
    results: dict[str, Any], study: Path, flags: Path, cache: Path, tmp_path: Path
):
    out = tmp_path / "out"
    shutil.copytree(study, out)
    (out / "models" / "alexnet-macs95" / "model.json").write_text("{}")
    (out / "unpruned" / "model.safetensors").write_bytes(b"")
    damaged = out / "models" / "alexnet" / "model.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-4] + b"\0\0\0\1")
    again = run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache)
    assert damaged.read_bytes() == whole
    assert load(out / "models" / "alexnet-macs95").spec.backbone == "alexnet"
    assert load(out / "unpruned").spec.backbone == "alexnet"
    assert [row["correct"] for row in again["points"]] == [
        row["correct"] for row in results["points"]
    ]


@pytest.mark.slow
def test_a_stop_in_any_stage_goes_on_to_the_same_networks(
    results: dict[str, Any], flags: Path, cache: Path, tmp_path: Path
):
    class StopAt(StopFlag):
        """Asks to stop at its `number`-th check."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def check(self) -> None:
            self.number -= 1
            if self.number == 0:
                raise StopRequested(2)

    out, number = tmp_path / "out", 0
    while True:
        number += 7
        try:
            found = run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache, stop=StopAt(number))
            break
        except StopRequested:
            continue
    assert number > 14
    rows = [row["correct"] for row in found["points"]]
    assert rows == [row["correct"] for row in results["points"]]
    assert not list(out.rglob("*.state.safetensors"))


def test_the_commands_read_a_finished_study(
    study: Path,
    flags: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def run_command(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["secateurs", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    table = run_command("results", study)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "alexnet-probe",
        "alexnet",
        "alexnet-macs95",
    ]
    assert run_command("report", study).strip() == str(study / "report.html")
    assert "alexnet" in (study / "report.html").read_text()
    words = run_command("evaluate", study, flags, "--cache", cache)
    found = json.loads((study / "results.json").read_text())["recommended"]["test"]
    assert f"{found['accuracy']:.1%}" in words


def test_overwriting_deletes_what_the_study_wrote_and_nothing_else(
    flags: Path, cache: Path, tmp_path: Path
):
    out = tmp_path / "out"
    run_frontier(str(flags), CONFIG, replace(OPTIONS, sizes=()), out, cache=cache)
    (out / "models" / "mine.txt").write_text("mine")
    before = {path.name for path in (out / "models").iterdir()}
    assert before == {"alexnet-probe", "alexnet", "mine.txt"}
    clear_output(out, "study")
    assert [path.relative_to(out).as_posix() for path in out.rglob("*")] == [
        "models",
        "models/mine.txt",
    ]


def test_another_configuration_or_an_older_study_is_refused(
    study: Path, flags: Path, cache: Path, tmp_path: Path
):
    with pytest.raises(InputError, match=r"another configuration: recover \(1 there, 2 now\)"):
        run_frontier(str(flags), CONFIG, replace(OPTIONS, recover=2), study, cache=cache)
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(study / "study.json", old)
    plain = json.loads((old / "study.json").read_text())
    del plain["frontier"]
    (old / "study.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match="holds a study over several networks"):
        run_study(str(flags), replace(CONFIG, backbone="alexnet"), study, cache=cache)
    with pytest.raises(InputError, match="a study of one network"):
        run_frontier(str(flags), CONFIG, OPTIONS, old, cache=cache)


def test_limits_that_the_sizes_miss_are_sizes_of_their_own(
    results: dict[str, Any], flags: Path, cache: Path, tmp_path: Path
):
    whole = next(row for row in results["points"] if row["kind"] == "fine-tuned")
    limit = round(0.5 * whole["cost"]["file_bytes"] / 1e6, 4)
    options = replace(OPTIONS, sizes=(), max_mb=limit)
    found = run_frontier(str(flags), CONFIG, options, tmp_path / "out", cache=cache)
    row = found["points"][-1]
    assert row["name"] == f"alexnet-mb{limit:g}"
    assert row["cost"]["file_bytes"] <= 1e6 * limit
    assert found["answer"]["name"] == row["name"]
    assert found["answer"]["meets"]
    (reach,) = found["reach"]["networks"]
    assert reach["mb"] == pytest.approx(whole["cost"]["file_bytes"] / 1e6, rel=0.05)
    assert reach["least_mb"] < reach["mb"]
    assert found["reach"]["sentences"] == []


def test_a_size_out_of_reach_is_a_reason_and_not_an_error(flags: Path, cache: Path, tmp_path: Path):
    options = replace(OPTIONS, sizes=(), max_mb=1e-6)
    found = run_frontier(str(flags), CONFIG, options, tmp_path / "out", cache=cache)
    assert "budget" in found["points"][-1]["reason"]
    assert not found["answer"]["meets"]
    assert "alexnet is the nearest" in found["reach"]["sentences"][0]
    assert "alexnet is the nearest" in headline(found)
    assert "No network is within 1e-06 MB" in found["answer"]["sentences"][1]


def test_depths_and_runs_from_scratch_that_were_asked_for_are_run(
    flags: Path, cache: Path, tmp_path: Path
):
    config = replace(CONFIG, depths=(2, 5), fitted=("batch_size", "layers"))
    options = replace(OPTIONS, sizes=(), scratch_runs=1)
    found = run_frontier(str(flags), config, options, tmp_path / "out", cache=cache)
    trials = [(row["depth"], row["pretrained"]) for row in found["arms"][0]["trials"]]
    assert sorted(trials) == [(0, False), (2, True), (5, True)]
    probed = {row["depth"] for row in found["probe"]["networks"][0]["depths"]}
    assert not {2, 5} & probed  # or this would not be a test of depths that were not probed
    wrong = replace(config, depths=(9,), fitted=())
    with pytest.raises(InputError, match="depth 9 is outside"):
        run_frontier(str(flags), wrong, options, tmp_path / "other", cache=cache)


def test_the_answers_of_a_row_come_back():
    row = {"correct": "0110"}
    assert np.array_equal(run.answers(row), [False, True, True, False])


def test_a_lost_or_damaged_study_json_leaves_a_way_on(
    results: dict[str, Any], study: Path, flags: Path, cache: Path, tmp_path: Path
):
    out = tmp_path / "out"
    shutil.copytree(study, out)
    (out / "study.json").write_text((study / "study.json").read_text()[:200])
    with pytest.raises(InputError, match=r"damaged; delete this file to resume"):
        run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache)
    (out / "study.json").unlink()
    with pytest.raises(InputError, match="another kind of study"):
        run_study(str(flags), replace(CONFIG, backbone="alexnet"), out, cache=cache)
    again = run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache)
    assert again == results
    assert (out / "study.json").read_text() == (study / "study.json").read_text()
    (out / "study.json").unlink()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a study"):
        run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache)


def test_the_timing_of_networks_stops_between_two_rounds(study: Path):
    stop = StopFlag()
    stop.request()
    with pytest.raises(StopRequested):
        latency.time_networks(
            {"alexnet": study / "models" / "alexnet"},
            {"alexnet": torch.zeros(1, 3, 224, 224)},
            batch=1,
            device=torch.device("cpu"),
            stop=stop,
        )


def test_sizes_are_pruned_elsewhere_to_the_same_bits(
    results: dict[str, Any], study: Path, flags: Path, cache: Path, tmp_path: Path
):
    out, folder = tmp_path / "out", Path("models", "alexnet-macs95")
    shutil.copytree(study, out)
    shutil.rmtree(out / folder)
    (out / "stages" / "alexnet-macs95.json").unlink()
    crew = Backwards(tmp_path / "host")
    again = run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache, executor=crew)
    for file in ("model.json", "model.safetensors"):
        assert (out / folder / file).read_bytes() == (study / folder / file).read_bytes()
    assert timeless(again["points"]) == timeless(results["points"])
    (machine,) = again["machines"]
    assert (crew.num, machine["node"], machine["num_pruned"]) == (1, "here", 1)
    assert (out / "stages" / "alexnet-macs95.log").exists()
    assert not list((tmp_path / "host").glob(".*"))
