"""The paper from end to end on a narrow AlexNet: whole, resumable, refusing what is not its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from narrow import LINEAR, narrowed
from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.progress import Silent
from secateurs.report.paper.page import render_paper
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.paper import best_network
from secateurs.study.paper import pruning as paper_pruning
from secateurs.study.paper import run as paper_module
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.paper.run import run_paper
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import open_context
from secateurs.study.trials.store import Store

PIXELS = 64
PLAN = PaperPlan(
    depths=(5, 7),
    runs=2,
    epochs=2,
    weights="none",
    device="cpu",
    precision="float32",
    angles_deg=(7.5, 12.5),
    norm_stds=(0.5, 1.5),
)


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Generator[None]:
    """A narrow AlexNet on small images: an eighth of the work of 224 pixels."""
    real = PaperPlan.config
    with narrowed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(PaperPlan, "config", lambda plan: replace(real(plan), image_size=PIXELS))
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(flags: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("paper")
    return out, run_paper(str(flags), PLAN, out, cache=cache)


def without_clock(value: Any) -> Any:
    """A result less what is measured with a clock, as `docs/results.md` says."""
    if isinstance(value, dict):
        return {key: without_clock(one) for key, one in value.items() if key != "timing"}
    if isinstance(value, list):
        return [without_clock(one) for one in value]
    return value


def test_every_experiment_is_there(finished: tuple[Path, dict[str, Any]]):
    out, answer = finished
    assert json.loads((out / "paper.json").read_text()) == json.loads(json.dumps(answer))
    rows = [(row["pretrained"], row["depth"], len(row["runs"])) for row in answer["table1"]]
    assert rows == [(True, 5, 2), (True, 7, 2), (False, 0, 2)]
    assert [row["published"] for row in answer["table1"]] == pytest.approx(
        [0.46564, 0.4224, 0.2135]
    )
    assert len(answer["grid"]["ways"]) == 5
    for way in answer["grid"]["ways"].values():
        assert [(c["norm_std"], c["low_deg"]) for c in way["cells"]] == [
            (0.5, 7.5),
            (0.5, 12.5),
            (1.5, 7.5),
            (1.5, 12.5),
        ]
        assert len(way["by_angle"]) == 2
    # The norm threshold of 0.5 deviations is not one of the paper's.
    assert [row["published_removed"] for row in answer["cells"]] == [191, 292]
    assert len(answer["search"]["cells"]) == 8
    assert answer["search"]["depth"] == answer["best"]["depth"]
    assert [row["resize"] for row in answer["readings"]["resize"]] == ["crop", "straight"]
    assert [row["num_runs"] for row in answer["readings"]["dropout"]] == [2, 2]
    apart = answer["beyond"]["apart"]
    assert apart["split"]["leakage"]["same_group"] == 0
    assert answer["split"]["leakage"]["same_group"] > 0
    assert {row["depth"] for row in apart["sweep"]} == {5, 7}
    small = answer["beyond"]["smallest"]["rows"]
    assert [row["what"] for row in small] == ["unpruned", "fc7", "fc6 and fc7", "the whole network"]
    assert small[0]["fraction"] == 1
    assert all(row["val"]["accuracy"] >= small[0]["val"]["accuracy"] for row in small)
    assert answer["counted"] == {"inside": 0, "outside": 0, "not comparable": 3 + 1 + 2 + 2}


def test_the_best_is_chosen_on_test_and_its_numbers_are_its_own(
    finished: tuple[Path, dict[str, Any]], flags: Path, cache: Path
):
    out, answer = finished
    runs = [run for row in answer["table1"] if row["pretrained"] for run in row["runs"]]
    assert answer["best"]["test"]["accuracy"] == max(runs)
    assert answer["grid"]["unpruned"]["accuracy"] == answer["best"]["test"]["accuracy"]
    assert answer["readings"]["resize"][0]["test"] == answer["best"]["test"]
    # The network left beside the records answers as the table says.
    context = open_context(str(flags), PLAN.config(), cache=cache)
    store = Store(out)
    model = context.new_model(seed=0, pretrained=False)
    left = sorted((out / "trials").glob("*.weights.safetensors"))
    assert 1 <= len(left) <= 2
    found = []
    for path in left:
        best_network.load_weights(model, store.weights(path.name.split(".")[0]))
        found.append(evaluate_model(model, context.dataset, "test", context.device).accuracy)
    assert answer["best"]["test"]["accuracy"] in found


def test_the_page_shows_a_real_run(finished: tuple[Path, dict[str, Any]]):
    page = render_paper(json.loads(json.dumps(finished[1])))
    assert "not comparable" in page
    assert page.count('class="figure"') == 1 + 1 + 4 + 2 + 4 + 1 + 1 + 2


def test_a_second_run_does_nothing_and_says_the_same(
    finished: tuple[Path, dict[str, Any]],
    flags: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    out, answer = finished
    for module, name in (
        (best_network, "run_trial"),
        (best_network, "evaluate_model"),
        (paper_module, "grids"),
        (paper_module, "smallest"),
        (paper_module, "network_of"),
    ):
        monkeypatch.setattr(module, name, never)
    assert run_paper(str(flags), PLAN, out, cache=cache) == answer


class StopAfter(Silent):
    """Progress that asks to stop after so many notes and cells."""

    def __init__(self, flag: StopFlag, word: str) -> None:
        self.flag, self.word = flag, word

    def task(self, name: str, total: int, *, done: int = 0):
        if self.word in name:
            self.flag.requested = True
        return super().task(name, total, done=done)

    def note(self, text: str) -> None:
        if self.word in text:
            self.flag.requested = True


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    finished: tuple[Path, dict[str, Any]], flags: Path, cache: Path, tmp_path: Path
):
    out = tmp_path / "paper"
    for word in ("depth 5 run 2", "each with its own noise", "films kept apart"):
        flag = StopFlag()
        progress = StopAfter(flag, word)
        with pytest.raises(StopRequested):
            run_paper(str(flags), PLAN, out, cache=cache, stop=flag, progress=progress)
        assert not (out / "paper.json").exists()
        if word == "each with its own noise":
            # The best network is trained again when its weights are gone.
            assert not list((out / "stages").glob("grids*"))
            for path in (out / "trials").glob("*.weights.safetensors"):
                path.unlink()
    again = run_paper(str(flags), PLAN, out, cache=cache)
    assert without_clock(again) == without_clock(finished[1])


def test_each_norm_threshold_of_the_noisy_grid_is_kept(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    stages = finished[0] / "stages"
    assert {path.name for path in stages.glob("noise-*")} == {"noise-0.5.json", "noise-1.5.json"}


def test_another_plan_other_images_and_old_schemas_are_told_in_one_line(
    finished: tuple[Path, dict[str, Any]], flags: Path, cache: Path, tmp_path: Path
):
    out, _ = finished
    with pytest.raises(
        InputError, match=r"another plan: epochs \(2 there, 3 now\); choose another directory"
    ):
        run_paper(str(flags), replace(PLAN, epochs=3), out, cache=cache)
    other = tmp_path / "others"
    shutil.copytree(flags, other)
    (other / "down" / "00_10.png").unlink()
    with pytest.raises(InputError, match="a run on other data and split; choose another"):
        run_paper(str(other), PLAN, out, cache=cache)
    old = tmp_path / "old"
    shutil.copytree(out, old)
    (old / "paper.plan.json").write_text('{"schema": 0}')
    with pytest.raises(InputError, match="a run of another version of Secateurs"):
        run_paper(str(flags), PLAN, old, cache=cache)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty and not a run of the paper"):
        run_paper(str(flags), PLAN, full, cache=cache)
    with pytest.raises(InputError, match="expected a directory, got a file"):
        run_paper(str(flags), PLAN, full / "letter.txt", cache=cache)


def test_two_at_once_in_a_directory_are_told(
    finished: tuple[Path, dict[str, Any]], flags: Path, cache: Path
):
    out, _ = finished
    with Store(out).claim("paper") as mine:
        assert mine
        with pytest.raises(InputError, match="another process is at this run"):
            run_paper(str(flags), PLAN, out, cache=cache)


def test_quirks_are_switches_and_names_need_no_films(flags: Path, cache: Path, tmp_path: Path):
    plain = tmp_path / "plain"
    for path in flags.glob("*/*.png"):
        (plain / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, plain / path.parent.name / path.name.replace("_", "-"))
    plan = replace(
        PLAN,
        depths=(7,),
        runs=1,
        epochs=1,
        search=False,
        first_epoch_dropout=False,
        choose_on_test=False,
        noisy_activations=False,
    )
    answer = run_paper(str(plain), plan, tmp_path / "out", cache=cache)
    assert answer["best"]["on"] == "val"
    assert answer["search"] is None
    assert "quiet" not in answer["grid"]["ways"]
    assert [row["dropout"] for row in answer["readings"]["dropout"]] == ["on"]
    assert "dropout in every epoch" in answer["table1"][0]["why"]
    assert not list((tmp_path / "out" / "stages").glob("noise-*"))
    assert answer["beyond"]["apart"] is None
    assert not answer["beyond"]["smallest"]["apart"]
    assert answer["split"]["leakage"]["same_group"] is None
    page = render_paper(answer)
    assert "chosen on validation in the first part too" in page
    assert "As in the published program" not in page
    assert "Not run: file names do not start with a film and an underscore" in page
    with pytest.raises(InputError, match="finds nothing in the file name"):
        run_paper(str(plain), replace(plan, group_by="^x"), tmp_path / "never", cache=cache)
    assert not (tmp_path / "never").exists()


def test_noise_is_of_views_and_of_both_dropouts(
    finished: tuple[Path, dict[str, Any]], flags: Path, cache: Path
):
    context = open_context(str(flags), PLAN.config(), cache=cache)
    torch.manual_seed(0)
    model = context.new_model(seed=0, pretrained=False)
    layer = paper_pruning._open(model, context, Silent())  # pyright: ignore[reportPrivateUsage]
    assert layer.view.train.shape == (2 * len(context.dataset.sides["train"]), LINEAR[1])
    dropouts = [step for step in layer.noisy if isinstance(step, torch.nn.Dropout)]
    assert len(dropouts) == 2
    one, again, other = (
        paper_pruning._noisy(layer, context, number)  # pyright: ignore[reportPrivateUsage]
        for number in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # Without dropout the noise is of the views alone: another result again.
    for step in dropouts:
        step.p = 0.0
    assert not torch.equal(one, paper_pruning._noisy(layer, context, 0))  # pyright: ignore[reportPrivateUsage]


def test_the_command_runs_the_paper_and_writes_its_page(
    flags: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "paper"
    words = [
        "--weights",
        "none",
        "--depths",
        "7",
        "--runs",
        "1",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    words += ["--precision", "float32", "--no-noisy-activations", "--cache", str(cache)]
    command = ["secateurs", "paper", str(flags), "--out", str(out), *words]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert f"page: {out / 'paper.html'}" in said.out
    assert "42.2%" in said.out  # the paper's mean with seven frozen layers
    assert "48 images, not the paper's 675 frames; its split gives" in said.err
    assert "about" in said.err and "left for Table 1" in said.err
    assert len(json.loads((out / "paper.json").read_text())["cells"]) == 45
    for page in ("paper.html", "search/search.html", "apart/report.html"):
        assert (out / page).read_text().startswith("<!doctype html>")
    for change, message in (
        (["--runs", "2"], "another plan: runs (1 there, 2 now)"),
        (["--runs", "0"], "--runs is out of range: 0; expected a whole number from 1"),
        (["--depths", "8"], "another plan: depths"),
    ):
        monkeypatch.setattr("sys.argv", [*command, *change])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
