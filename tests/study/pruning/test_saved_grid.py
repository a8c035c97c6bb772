"""A saved network's grid in a folder: what is written, that it is right, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.fit.metrics import grouped_interval
from secateurs.prune.layer import PruneOptions, prune_layer
from secateurs.prune.layer_grid import GridOptions
from secateurs.ship.checkpoint import load, save
from secateurs.ship.spec import ImageInput, describe
from secateurs.study.pruning.grid_rows import grid_words
from secateurs.study.pruning.saved_grid import GridPlan, grid_saved, parse_numbers
from secateurs.study.records.checksummed import read_sealed
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_dataset, seeded_model

BACKBONE = "mobilenet_v3_small"
LAYER = "classifier.0"
CONFIG = StudyConfig(
    backbone=BACKBONE,
    weights="none",
    group_by=r"^(\d+)_",
    device="cpu",
    seed=1,
    layers=(LAYER,),
)
PLAN = GridPlan(GridOptions((4.0, 9.0), (0.5, 1.5)), layer=LAYER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network with random weights."""
    path = tmp_path_factory.mktemp("model")
    network = seeded_model(BACKBONE, 3, 0)
    classes = ("across", "down", "plain")
    extra = {"config": CONFIG.to_json(), "depth": 53}
    preprocessing = ImageInput.of(BACKBONE, resize="straight")
    save(network, describe(network, BACKBONE, classes, preprocessing, kept={}, extra=extra), path)
    return path


def run(model: Path, data: Path, cache: Path, out: Path, plan: GridPlan = PLAN, **changes: Any):
    return grid_saved(model, str(data), plan, out, changes=changes, cache=cache)


@pytest.fixture(scope="module")
def finished(model: Path, flags: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("grid")
    return out, run(model, flags, cache, out)


def test_cells_are_those_of_pruning_once_a_cell(finished, model: Path, flags: Path, cache: Path):
    _, answer = finished
    network = load(model).model.eval()
    dataset = open_dataset(str(flags), CONFIG, cache=cache)
    train = dataset.sides["train"].eval_views(slice(None), torch.device("cpu"))
    train = torch.cat([train, train.flip(-1)])
    labels = torch.from_numpy(dataset.sides["val"].labels)
    groups = dataset.side_groups("val")
    before = side_logits(network, dataset, "val", torch.device("cpu"))
    assert answer["unpruned"]["num_correct"] == int((before.argmax(1) == labels).sum())
    assert [(c["norm_std"], c["low_deg"]) for c in answer["cells"]] == [
        (0.5, 4.0), (0.5, 9.0), (1.5, 4.0), (1.5, 9.0),
    ]  # fmt: skip
    removed = set()
    for cell in answer["cells"]:
        angle = cell["low_deg"]
        options = PruneOptions(
            low_deg=angle,
            high_deg=180 - angle,
            norm_std=cell["norm_std"],
            check_parity=False,
        )
        cut = prune_layer(network, LAYER, train, options=options)
        after = side_logits(cut.model, dataset, "val", torch.device("cpu"))
        correct = int((after.argmax(1) == labels).sum())
        assert cell["num_kept"] == len(cut.selection.survivors)
        assert cell["num_removed"] == len(cut.selection.removed)
        assert cell["num_parameters"] == sum(p.numel() for p in cut.model.parameters())
        assert (cell["num_correct"], cell["accuracy"]) == (correct, correct / len(labels))
        bounds = grouped_interval((after.argmax(1) == labels).numpy(), groups)
        assert (cell["accuracy_low"], cell["accuracy_high"]) == bounds
        removed.add(cell["num_removed"])
    assert len(removed) == 4


def test_what_is_written_is_what_is_returned(finished):
    out, answer = finished
    assert read_sealed(out / "grid.json") == json.loads(json.dumps(answer))
    rows = list(csv.DictReader((out / "grid.csv").read_text().splitlines()))
    assert [int(row["num_removed"]) for row in rows] == [
        cell["num_removed"] for cell in answer["cells"]
    ]
    assert [float(row["accuracy"]) for row in rows] == [c["accuracy"] for c in answer["cells"]]
    assert answer["layer"]["num_units"] == 1024
    assert answer["evaluated"]["side"] == "validation"
    for at, row in enumerate(answer["by_angle"]):
        mine = [cell for cell in answer["cells"] if cell["low_deg"] == row["low_deg"]]
        assert row["low_deg"] == PLAN.options.angles_deg[at]
        assert row["accuracy_mean"] == sum(cell["accuracy"] for cell in mine) / 2
        assert row["num_removed_mean"] == sum(cell["num_removed"] for cell in mine) / 2


def test_a_damaged_grid_is_made_again(
    finished, model: Path, flags: Path, cache: Path, tmp_path: Path
):
    out, answer = finished
    path = tmp_path / "grid.json"
    text = (out / "grid.json").read_text()
    damaged = re.sub(r'("num_removed": )\d+', r"\g<1>1", text, count=1)
    assert damaged != text
    for content in (damaged, "true"):
        path.write_text(content)
        again = run(model, flags, cache, tmp_path)
        assert again | {"timing": 0} == answer | {"timing": 0}
        assert read_sealed(path) == again


def test_a_second_run_looks_at_nothing(
    finished, model: Path, flags: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(*args: object, **options: object) -> None:
        raise AssertionError("done again")

    out, answer = finished
    monkeypatch.setattr("secateurs.study.pruning.saved_grid.prefix_outputs", never)
    monkeypatch.setattr("secateurs.study.pruning.saved_grid.grid_cells", never)
    table = (out / "grid.csv").read_text()
    (out / "grid.csv").unlink()
    assert run(model, flags, cache, out) == answer
    assert (out / "grid.csv").read_text() == table
    (out / "grid.csv").write_text(table.replace("5", "6"))
    run(model, flags, cache, out)
    assert (out / "grid.csv").read_text() == table


def test_another_grid_in_the_same_folder_is_refused(
    finished, model: Path, flags: Path, cache: Path, tmp_path: Path
):
    out, _ = finished
    plan = replace(PLAN, options=GridOptions((4.0, 9.0), (0.5, 1.5), "pairwise", "drop"))
    with pytest.raises(InputError, match=r"compensation \(least_squares there, drop now\)"):
        run(model, flags, cache, out, plan)
    with pytest.raises(InputError, match=r"other settings: on \(val there, test now\)"):
        run(model, flags, cache, out, replace(PLAN, side="test"))
    with pytest.raises(InputError, match=r"seed \(1 there, 2 now\)"):
        run(model, flags, cache, out, seed=2)
    loaded, other = load(model), tmp_path / "other"
    save(seeded_model(BACKBONE, 3, 7), loaded.spec, other)
    with pytest.raises(InputError, match="holds a grid of other model"):
        run(other, flags, cache, out)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a grid"):
        run(model, flags, cache, tmp_path / "letters")
    with pytest.raises(InputError, match="expected a directory, got a file"):
        run(model, flags, cache, tmp_path / "letters" / "mine.txt")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "grid.json").write_text('{"schema": 0}')
    with pytest.raises(InputError, match="another version"):
        run(model, flags, cache, tmp_path / "old")


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (replace(PLAN, layer="fc9"), "has no weighted layer 'fc9'; it has"),
        (replace(PLAN, layer="features.0.0"), "expected a Linear"),
        (replace(PLAN, layer="classifier.3"), "no linear layer found that reads its units"),
        (replace(PLAN, side="train"), "side: expected one of val, test, got 'train'"),
        (replace(PLAN, options=GridOptions((95.0,), (1.0,))), "below 90"),
    ],
)
def test_bad_words_come_before_the_images(
    model: Path, flags: Path, cache: Path, tmp_path: Path, plan: GridPlan, text: str
):
    with pytest.raises(InputError, match=text):
        run(model, flags, cache, tmp_path / "out", plan)
    assert not (tmp_path / "out").exists()


def test_a_pruned_network_and_other_classes_are_refused(
    model: Path, flags: Path, cache: Path, tmp_path: Path
):
    loaded = load(model)
    cut = prune_layer(
        loaded.model, LAYER, torch.rand(6, 3, 64, 64), options=PruneOptions(low_deg=20)
    )
    kept = {LAYER: cut.selection.survivors.tolist()}
    spec = describe(
        cut.model,
        BACKBONE,
        loaded.spec.classes,
        loaded.spec.preprocessing,
        kept=kept,
        extra=loaded.spec.extra,
    )
    save(cut.model, spec, tmp_path / "small")
    with pytest.raises(InputError, match="already pruned"):
        run(tmp_path / "small", flags, cache, tmp_path / "out")
    others = tmp_path / "flags"
    for name in ("a", "b", "c"):
        (others / name).mkdir(parents=True)
        for file in sorted((flags / "plain").iterdir()):
            (others / name / f"{file.stem}.png").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="the model knows the classes across, down, plain"):
        run(model, others, cache, tmp_path / "out")


def test_the_published_rule_keeps_the_size(model: Path, flags: Path, cache: Path, tmp_path: Path):
    plan = replace(PLAN, options=GridOptions((9.0,), (0.5,), "published"), side="test")
    answer = run(model, flags, cache, tmp_path / "out", plan)
    (cell,) = answer["cells"]
    assert cell["num_removed"] > 0
    assert cell["num_parameters"] == answer["model"]["num_parameters"]
    assert answer["settings"]["compensation"] is None
    assert "these are test images" in grid_words(answer)


def test_the_command_as_typed(
    model: Path, flags: Path, cache: Path, tmp_path: Path, capsys, monkeypatch
):
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["secateurs", "grid", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    monkeypatch.setattr("secateurs.report.common.render.packed_plotly", lambda: "")
    common = [str(model), str(flags), "--layer", LAYER, "--cache", str(cache), "--quiet"]
    out = str(tmp_path / "out")
    words = [*common, "--out", out, "--angles-deg", "4,9", "--norm-stds", "1.5"]
    code, text, err = call(*words)
    assert (code, err) == (0, "")
    assert "accuracy and units removed" in text
    assert (tmp_path / "out" / "grid.html").stat().st_size > 10_000
    code, text, _ = call(*words, "--json")
    assert json.loads(text) == read_sealed(tmp_path / "out" / "grid.json")
    code, _, err = call(*words, "--device", "cpu", "--compensation", "add")
    assert (code, err.count("\n")) == (2, 1)
    assert "least_squares there, add now" in err
    code, _, err = call(*common, "--out", out, "--angles-deg", "4,nine")
    assert (code, err) == (2, "error: angles-deg: expected numbers with commas, got '4,nine'\n")
    code, _, err = call(*common, "--out", out, "--rule", "published", "--compensation", "add")
    assert code == 2
    assert "the published rule changes incoming weights" in err
    _, text, _ = call("--help")
    assert "[default: 7.5,10,12.5,15,17.5]" in " ".join(text.split())


def test_numbers_from_words():
    assert parse_numbers("1, 2.5", "stds") == (1.0, 2.5)
    assert parse_numbers(" ", "stds") == ()
    with pytest.raises(InputError, match="stds: expected numbers with commas, got '1,,2'"):
        parse_numbers("1,,2", "stds")
