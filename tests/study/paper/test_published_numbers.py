"""The printed numbers checked against each other, and against what the text says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.audit import audit
from secateurs.data.scan import Listing, scan
from secateurs.data.splits.split import paper_split
from secateurs.prune.layer_grid import PAPER_ANGLES, PAPER_STDS
from secateurs.study.paper.protocol import EPOCHS, LR, RUNS, PaperPlan
from secateurs.study.paper.pruning import CELL
from secateurs.study.paper.published_numbers import is_sfew, published
from secateurs.study.search.plan import PAPER_EPOCHS, PAPER_LRS

SPLIT = published()["images"]["split"]
BEST = 67  # of 134 test images


def test_images_and_split():
    images = published()["images"]
    assert sum(images["per_class"]) == 675
    assert [sum(SPLIT[side]) for side in ("train", "val", "test")] == [392, 149, 134]
    by_class = np.array([SPLIT[side] for side in ("train", "val", "test")])
    assert by_class.sum(0).tolist() == images["per_class"]
    labels = [k for k, number in enumerate(images["per_class"]) for _ in range(number)]
    dealt = paper_split(labels)
    for side in ("train", "val", "test"):
        rows = np.asarray(labels)[getattr(dealt, side)]
        assert np.bincount(rows).tolist() == SPLIT[side]


def test_means_of_table_1_are_those_of_its_runs():
    rows = published()["table1"]
    assert [row["depth"] for row in rows] == list(range(8))
    for row in rows:
        assert len(row["runs"]) == RUNS
        # Two decimals a run, three a mean.
        assert np.mean(row["runs"]) == pytest.approx(row["mean"], abs=0.0011)
        counts = np.array(row["runs"]) / 100 * sum(SPLIT["test"])
        assert counts == pytest.approx(counts.round(), abs=0.007)
    assert max(max(row["runs"]) for row in rows) == published()["table2"]["accuracy"] == 50.0
    # "Fine tuning all the layers results in worse performance that training with random weights."
    assert rows[0]["mean"] < published()["scratch_mean"]


def test_table_2_is_of_one_confusion_matrix_with_67_right():
    table, sizes = published()["table2"], np.array(SPLIT["test"])
    right = (np.array(table["recall"]) * sizes).round()
    assert right.tolist() == [12, 7, 10, 15, 6, 13, 4]
    assert right.sum() == BEST
    assert right.sum() / sizes.sum() == table["accuracy"] / 100
    assert right / sizes == pytest.approx(np.array(table["recall"]), abs=0.005)
    said = (right / np.array(table["precision"])).round()
    assert said.sum() == sizes.sum()
    assert right / said == pytest.approx(np.array(table["precision"]), abs=0.0051)
    others = sizes.sum() - sizes
    specificity = (others - (said - right)) / others
    assert specificity == pytest.approx(np.array(table["specificity"]), abs=0.0051)


def test_table_3_is_the_mean_of_the_grid():
    table, grid = published()["table3"], published()["grid"]
    assert table["angles_deg"] == grid["angles_deg"]
    accuracy, removed = np.array(grid["accuracy"]), np.array(grid["num_pruned"])
    assert accuracy.shape == removed.shape == (9, 5)
    assert 100 * accuracy.mean(0) == pytest.approx(np.array(table["mean_accuracy"]), abs=0.006)
    assert removed.mean(0) == pytest.approx(np.array(table["mean_num_pruned"]), abs=1e-5)
    # The cells the text names: 12.5 degrees 292 neurons, 15 degrees 175, both at 50.0%.
    low, std = CELL
    place = grid["norm_stds"].index(std), grid["angles_deg"].index(low)
    assert (removed[place], accuracy[place]) == (292, 0.5)
    assert 0.5 in accuracy[:, 3][removed[:, 3] == 175]
    counts = accuracy * sum(SPLIT["test"])
    assert counts == pytest.approx(counts.round(), abs=0.007)


def test_what_is_run_is_what_was_published():
    training, grid, config = published()["training"], published()["grid"], PaperPlan().config()
    assert (training["lr"], training["epochs"], training["runs"]) == (LR, EPOCHS, RUNS)
    assert (config.lr, config.epochs, config.runs, config.scratch_runs) == (LR, EPOCHS, RUNS, RUNS)
    assert (config.batch_size, config.dropout, config.keep_epoch) == (None, "first-epoch", "last")
    assert tuple(training["searched_lr"]) == PAPER_LRS
    assert tuple(training["searched_epochs"]) == PAPER_EPOCHS
    assert PaperPlan().search_plan().epochs == PAPER_EPOCHS
    assert PaperPlan(epochs=20).search_plan().epochs == (20, 30, 40)
    assert PaperPlan(epochs=3).search_plan().epochs == (3, 6)
    assert (tuple(grid["angles_deg"]), tuple(grid["norm_stds"])) == (PAPER_ANGLES, PAPER_STDS)
    augmentation = config.augmentation()
    assert augmentation is not None
    assert (augmentation.rotation_deg, augmentation.scale) == (30.0, (0.08, 1.0))


def frames(root: Path, size: tuple[int, int], counts: list[int]) -> Listing:
    for name, number in zip(published()["images"]["classes"], counts, strict=True):
        (root / name).mkdir(parents=True)
        for k in range(number):
            # As small a file as there is: one colour, another for each.
            picture = Image.new("P", size, k % 256)
            picture.save(root / name / f"film{k % 9}_{k:03d}.png", compress_level=1)
    return scan(root)


def test_the_papers_frames_are_known_by_classes_counts_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Fewer images of each class, so that the test is quick.
    images = {**published()["images"], "per_class": [2, 1, 2, 2, 2, 2, 2]}
    monkeypatch.setitem(published(), "images", images)
    cache = tmp_path / "cache"
    right = audit(frames(tmp_path / "right", (720, 576), images["per_class"]), cache=cache)
    small = audit(frames(tmp_path / "small", (576, 720), images["per_class"]), cache=cache)
    fewer = audit(frames(tmp_path / "fewer", (720, 576), [2, 2, 2, 2, 2, 2, 2]), cache=cache)
    assert [is_sfew(found) for found in (right, small, fewer)] == [True, False, False]
