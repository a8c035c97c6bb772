"""A saved network knows the images it was trained on: they are never counted as test images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secateurs.errors import InputError
from secateurs.fit.metrics import evaluate
from secateurs.ship.checkpoint import load, save
from secateurs.ship.spec import ImageInput, ModelSpec, describe
from secateurs.study.pruning.saved_layers import prune_saved
from secateurs.study.saved.evaluate_saved import (
    cautions,
    evaluate_saved,
    evaluation_table,
    evaluation_words,
)
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.opened import open_saved
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, open_dataset, seeded_model

BACKBONE = "mobilenet_v3_small"
CLASSES = ("across", "down", "plain")
CONFIG = StudyConfig(
    backbone=BACKBONE,
    weights="none",
    group_by=r"^(\d+)_",
    device="cpu",
    layers=("classifier.0",),
    augment=False,
)
SIZE = 64  # smaller than the backbone's own: what the model says of itself is what counts


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained_on(flags: Path, cache: Path) -> Dataset:
    return open_dataset(str(flags), CONFIG, cache=cache)


@pytest.fixture(scope="module")
def model(trained_on: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights that says it was trained on a split of `flags`."""
    path = tmp_path_factory.mktemp("model")
    network = seeded_model(BACKBONE, 3, 0)
    spec = describe(
        network,
        BACKBONE,
        CLASSES,
        ImageInput.of(BACKBONE, size=SIZE),
        extra={"config": CONFIG.to_json()},
        split=trained_on.record(),
    )
    save(network, spec, path)
    return path


@pytest.fixture
def copy(flags: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flags, tmp_path / "photos"))


@pytest.fixture
def run(model: Path, copy: Path, cache: Path) -> Callable[..., dict[str, Any]]:
    def call(data: Path = copy, of: Path = model, **options: Any) -> dict[str, Any]:
        return evaluate_saved(of, str(data), cache=cache, **options)

    return call


@pytest.fixture(scope="module")
def answers(model: Path, trained_on: Dataset, flags: Path, cache: Path) -> dict[str, int]:
    """What the network answers to each image of `flags`, by name."""
    loaded, _, dataset = open_saved(model, str(flags), {}, cache, _silent(), sides=("test",))
    found: dict[str, int] = {}
    for side in ("train", "val", "test"):
        best = side_logits(loaded.model, dataset, side, _cpu()).argmax(1).tolist()
        found |= dict(zip(trained_on.names(side), best, strict=True))
    return found


def _silent() -> Any:
    from secateurs.progress import SILENT

    return SILENT


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def accuracy(names: list[str], answers: dict[str, int]) -> float:
    right = [CLASSES.index(name.split("/")[0]) == answers[name] for name in names]
    return sum(right) / len(right)


def new_picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_the_model_carries_its_split(model: Path, trained_on: Dataset):
    record = load(model).spec.split
    assert record == trained_on.record()
    assert record is not None
    assert {side: len(keys) for side, keys in record.sides.items()} == {
        side: len(trained_on.sides[side]) for side in ("train", "val", "test")
    }
    assert "00" not in json.dumps(record.to_json()["groups"]).split('"')  # no name of a sender


def test_an_unchanged_folder_gives_the_sides_of_training(
    run: Callable[..., dict[str, Any]], trained_on: Dataset, answers: dict[str, int]
):
    for side in ("train", "val", "test"):
        found = run(side=side)
        assert found["accuracy"] == accuracy(trained_on.names(side), answers)
        assert found["num_images"] == len(trained_on.sides[side])
        assert found["split"]["notes"] == []
        assert sum(found["split"]["missing"].values()) == 0


def test_deleted_and_renamed_files_change_no_side(
    run: Callable[..., dict[str, Any]], copy: Path, trained_on: Dataset, answers: dict[str, int]
):
    """The case that was reported: one file of each class deleted, the split was drawn again."""
    gone = [f"{label}/{sorted(p.name for p in (copy / label).iterdir())[0]}" for label in CLASSES]
    for name in gone:
        (copy / name).unlink()
    for number, path in enumerate(sorted(copy.rglob("*.png"))):
        path.rename(path.with_name(f"{number % 7:02d}_new{number}.png"))  # other groups, too
    left = [name for name in trained_on.names("test") if name not in gone]
    found = run()
    assert found["num_images"] == len(left)
    assert found["accuracy"] == accuracy(left, answers)
    assert found["split"]["num_train"] == sum(n not in gone for n in trained_on.names("train"))
    missing = found["split"]["missing"]
    assert sum(missing.values()) == 3
    assert missing["test"] == len(trained_on.names("test")) - len(left)
    (note,) = [text for text in found["split"]["notes"] if "not in the folder" in text]
    assert f"of its {len(trained_on.names('train'))} training images" in note


def test_no_other_split_tests_on_what_was_seen(
    run: Callable[..., dict[str, Any]], trained_on: Dataset, answers: dict[str, int]
):
    unseen = set(trained_on.names("test"))
    for options, changes in (
        ({"seed": 5}, {"group_by": CONFIG.group_by, "seed": 5}),
        ({"split": "random", "seed": 1}, {"seed": 1}),
        ({"split": "paper"}, {"split": "paper"}),
        ({"group_by": r"^\d(\d)_"}, {"group_by": r"^\d(\d)_"}),
    ):
        left = sorted(_names_drawn(trained_on, StudyConfig(**changes)) & unseen)
        if not left:
            with pytest.raises(InputError, match="no unseen image"):
                run(**options)
            continue
        found = run(**options)
        assert found["num_images"] == len(left), options
        assert found["accuracy"] == accuracy(left, answers)
        assert any("images of this split's" in text for text in found["split"]["notes"])


def _names_drawn(dataset: Dataset, config: StudyConfig) -> set[str]:
    from secateurs.study.setup.splitting import split_listing

    listing = dataset.audit.listing
    split, _ = split_listing(listing, rule=config.split, group_by=config.group_by, seed=config.seed)
    return {listing.names[row] for row in split.test}


def test_the_models_own_words_given_again_are_no_other_split(
    run: Callable[..., dict[str, Any]], trained_on: Dataset
):
    found = run(group_by=CONFIG.group_by, seed=0)
    assert found["num_images"] == len(trained_on.names("test"))
    assert found["split"]["notes"] == []


def test_new_images_are_test_images_and_those_of_known_senders_are_said(
    run: Callable[..., dict[str, Any]], copy: Path, trained_on: Dataset
):
    known = trained_on.names("train")[0].split("/")[1][:2]
    new_picture(copy / "plain" / f"{known}_new.png", 1)
    new_picture(copy / "down" / "77_new.png", 2)
    found = run()
    assert found["split"]["num_new"] == 2
    assert found["num_images"] == len(trained_on.names("test")) + 2
    notes = " ".join(found["split"]["notes"])
    assert "2 of the 50 images are new to the model; 2 of them are test images" in notes
    assert "1 of the new test images belong to a group that the model was trained" in notes


def test_the_sender_of_a_new_image_is_known_without_the_training_images(
    run: Callable[..., dict[str, Any]], tmp_path: Path, trained_on: Dataset
):
    known = trained_on.names("val")[0].split("/")[1][:2]
    new_picture(tmp_path / "holdout" / "plain" / f"{known}_new.png", 1)
    found = run(tmp_path / "holdout")
    assert found["num_images"] == 1
    assert any("belong to a group" in text for text in found["split"]["notes"])


def test_a_hold_out_needs_no_split_no_groups_and_not_every_class(
    run: Callable[..., dict[str, Any]], tmp_path: Path, model: Path
):
    for number in range(3):
        new_picture(tmp_path / "holdout" / "down" / f"no group {number}.png", number)
    for side in ("all", "test"):
        found = run(tmp_path / "holdout", side=side)
        assert found["num_images"] == 3
        assert found["split"]["num_new"] == 3
        assert found["apart"] is None
        assert "class across has no image here" in found["notes"]
    spec = load(model).spec
    plain = ModelSpec(spec.backbone, spec.classes, spec.preprocessing)  # nobody says how trained
    bare = tmp_path / "bare"
    save(load(model).model, plain, bare)
    found = run(tmp_path / "holdout", of=bare, side="all")
    assert (found["num_images"], found["split"]["known"]) == (3, False)
    with pytest.raises(InputError, match="does not say how it was trained; give --split"):
        run(tmp_path / "holdout", of=bare)
    (tmp_path / "holdout" / "up").mkdir()
    new_picture(tmp_path / "holdout" / "up" / "x.png", 9)
    with pytest.raises(InputError, match="knows the classes across, down, plain; the folder has"):
        run(tmp_path / "holdout", side="all")


def test_all_images_of_the_training_folder_are_reported_apart(
    run: Callable[..., dict[str, Any]], trained_on: Dataset, answers: dict[str, int], copy: Path
):
    found = run(side="all")
    assert found["num_images"] == len(trained_on.names("test"))
    assert found["accuracy"] == accuracy(trained_on.names("test"), answers)
    for side in ("train", "val"):
        assert found["apart"][side]["accuracy"] == accuracy(trained_on.names(side), answers)
    text = evaluation_table(found, "all")
    assert text.startswith("unseen accuracy")
    assert "apart, the images that it was trained on: train accuracy" in text
    with pytest.raises(InputError, match="leave out --split, --group-by and --seed"):
        run(side="all", seed=3)
    for name in trained_on.names("test"):
        (copy / name).unlink()
    for side in ("all", "test"):
        with pytest.raises(InputError, match="no unseen image"):
            run(side=side)
    with pytest.raises(InputError, match="no unseen image"):
        run(seed=4)


def test_copies_of_training_images_are_not_tested_on(
    run: Callable[..., dict[str, Any]], copy: Path, trained_on: Dataset
):
    for number, name in enumerate(trained_on.names("train")[:4]):
        shutil.copy(copy / name, copy / "plain" / f"99_copy{number}.png")
    found = run()
    assert found["num_images"] == len(trained_on.names("test"))
    assert found["split"]["num_new"] == 0


def test_nearly_the_same_images_are_said(
    run: Callable[..., dict[str, Any]], copy: Path, trained_on: Dataset
):
    name = next(n for n in trained_on.names("train") if n.startswith("down"))
    with Image.open(copy / name) as image:
        image.save(copy / "down" / "99_again.jpg", quality=95)
    found = run()
    assert found["split"]["num_new"] == 1
    assert any("1 test image is nearly the same" in text for text in found["split"]["notes"])
    (copy / name).unlink()  # the model remembers what it looked like
    found = run()
    assert any("1 test image is nearly the same" in text for text in found["split"]["notes"])


def test_an_older_model_gets_a_split_drawn_again_and_says_so(
    run: Callable[..., dict[str, Any]], model: Path, copy: Path, tmp_path: Path
):
    old = Path(shutil.copytree(model, tmp_path / "old"))
    plain = json.loads((old / "model.json").read_text())
    del plain["split"]
    (old / "model.json").write_text(json.dumps(plain))
    found = run(of=old)
    assert not found["split"]["known"]
    assert "does not say which images it was trained on" in found["split"]["notes"][0]
    assert run(of=old, side="all")["num_images"] == 48


@pytest.mark.usefixtures("without_onnx")
def test_pruning_uses_the_images_of_training_and_the_result_knows_them(
    model: Path, copy: Path, cache: Path, trained_on: Dataset, tmp_path: Path, run: Any
):
    gone = [trained_on.names("train")[0], trained_on.names("val")[0], trained_on.names("test")[0]]
    for name in gone:
        (copy / name).unlink()
    new_picture(copy / "plain" / "55_new.png", 3)
    _, _, dataset = open_saved(model, str(copy), {}, cache, _silent())
    assert set(dataset.names("train")) == set(trained_on.names("train")) - set(gone)
    assert set(dataset.names("val")) == set(trained_on.names("val")) - set(gone)
    small = tmp_path / "small"
    changes = {"layers": ("classifier.0",), "keep": (64,), "max_loss": -1.0, "rule": "l2"}
    answer = prune_saved(model, str(copy), small, changes=changes, cache=cache)
    assert answer["before"]["num_images"] == len(trained_on.names("val")) - 1
    assert answer["split"]["missing"] == {"train": 1, "val": 1, "test": 1}
    before, after = load(model).spec.split, load(small).spec.split
    assert before is not None and after is not None
    for side in ("train", "val"):
        assert set(after.sides[side]) == set(before.sides[side])
    assert set(before.sides["test"]) < set(after.sides["test"])
    found = run(of=small)
    assert found["num_images"] == len(trained_on.names("test"))  # one gone, one new


def test_another_seed_moves_no_test_image_into_pruning(
    model: Path, copy: Path, cache: Path, trained_on: Dataset
):
    _, _, dataset = open_saved(model, str(copy), {"seed": 7}, cache, _silent())
    kept = set(trained_on.names("test"))
    assert not kept & set(dataset.names("train")) and not kept & set(dataset.names("val"))
    assert not set(trained_on.names("train")) & set(dataset.names("val"))
    assert set(dataset.names("test")) <= kept


def test_a_folder_of_new_images_can_be_pruned_on(model: Path, cache: Path, tmp_path: Path):
    for label in CLASSES:
        for number in range(6):
            path = tmp_path / "new" / label / f"{number:02d}_{label}.png"
            new_picture(path, 100 * CLASSES.index(label) + number)
    _, _, dataset = open_saved(model, str(tmp_path / "new"), {}, cache, _silent())
    assert {side: len(images) for side, images in dataset.sides.items()} == {
        "train": 9,
        "val": 6,
        "test": 3,
    } or all(len(images) for images in dataset.sides.values())
    assert dataset.image_status is not None
    assert any("new ones take their place" in text for text in dataset.image_status.notes)


def test_the_headline_has_its_baseline_and_its_cautions():
    import torch

    labels = torch.tensor([0] * 60 + [1] * 8 + [2] * 6)
    logits = torch.zeros(74, 3)
    logits[:, 0] = 1
    record = evaluate(logits, labels, CLASSES).to_json()
    words = evaluation_words(record, "test")
    assert "accuracy 81.1%" in words
    assert "balanced accuracy 33.3%" in words
    assert "always answering the largest class gives 81.1%" in words
    assert cautions(record, grouped=True) == []
    (text,) = cautions(record, grouped=False)
    assert "without --group-by" in text
    few = evaluate(logits[:40], labels[:40], CLASSES).to_json()
    (text,) = cautions(few, grouped=True)
    assert text.startswith("only 40 images")


@pytest.mark.parametrize("split", ["random", "ungrouped"])
def test_copies_of_an_image_are_on_one_side(flags: Path, tmp_path: Path, split: str):
    folder = tmp_path / "twice"
    shutil.copytree(flags, folder)
    for path in sorted(flags.rglob("*.png")):
        copy = folder / path.relative_to(flags).with_name(f"99_{path.name}")
        Image.open(path).save(copy.with_suffix(".bmp"))
    config = StudyConfig(backbone=BACKBONE, weights="none", split=split)
    dataset = open_dataset(str(folder), config, cache=tmp_path / "cache")
    assert len(dataset.audit.exact) == 48
    assert dataset.leakage.duplicate == 0
    side = {row: name for name in dataset.sides for row in getattr(dataset.split, name).tolist()}
    assert sorted(side) == list(range(96))
    assert all(len({side[row] for row in same}) == 1 for same in dataset.audit.exact)
