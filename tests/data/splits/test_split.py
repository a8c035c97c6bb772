from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.data.audit import Audit
from secateurs.data.scan import Listing
from secateurs.data.splits.split import (
    Split,
    folder_split,
    group_split,
    leakage,
    make_split,
    paper_split,
    random_split,
    split_json,
)
from secateurs.errors import InputError

SFEW = (100, 75, 100, 100, 100, 100, 100)


def labels_of(*counts: int) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


def listing_of(labels: list[int], folds: tuple[str, ...] | None = None) -> Listing:
    classes = tuple("abcdefgh"[: max(labels) + 1])
    names = tuple(f"{classes[label]}/{index:04d}.png" for index, label in enumerate(labels))
    return Listing(Path("somewhere"), classes, names, tuple(labels), folds)


def per_class(split, labels: list[int]) -> dict[str, list[int]]:
    return split_json(split, listing_of(labels))["per_class"]


def test_the_papers_rule_gives_the_papers_numbers():
    split = paper_split(labels_of(*SFEW))
    assert per_class(split, labels_of(*SFEW)) == {
        "train": [61, 45, 55, 60, 57, 54, 60],
        "val": [16, 14, 21, 21, 23, 26, 28],
        "test": [23, 16, 24, 19, 20, 20, 12],
    }
    assert (len(split.train), len(split.val), len(split.test)) == (392, 149, 134)


def test_the_papers_rule_agrees_with_a_loop_that_draws_one_by_one():
    generator = np.random.RandomState(1)
    sides: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    start = 0
    for count in SFEW:
        train = [i for i in range(start, start + count) if generator.uniform() < 0.6]
        for i in range(start, start + count):
            if i not in train:
                sides["val" if generator.uniform() < 0.5 else "test"].append(i)
        sides["train"] += train
        start += count
    split = paper_split(labels_of(*SFEW))
    for name, rows in sides.items():
        assert getattr(split, name).tolist() == rows


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 40), min_size=2, max_size=6), st.integers(0, 10**6))
def test_a_random_split_is_a_stratified_partition(counts: list[int], seed: int):
    labels = labels_of(*counts)
    split = random_split(labels, seed=seed)
    together = np.concatenate([split.train, split.val, split.test])
    assert sorted(together) == list(range(len(labels)))
    for name, fraction in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        for got, count in zip(per_class(split, labels)[name], counts, strict=True):
            assert got >= 1
            assert abs(got - fraction * count) <= 1.0


def test_seeds_decide_and_repeat():
    labels = labels_of(30, 30)
    a, b, c = (random_split(labels, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(a.train, b.train)
    assert not np.array_equal(a.train, c.train)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(2, 4))
def test_no_group_is_on_two_sides(seed: int, num_groups: int, num_classes: int):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, 6 * num_groups).tolist()
    groups = [f"g{k}" for k in generator.integers(0, num_groups, len(labels))]
    split = group_split(labels, groups, seed=seed)
    together = np.concatenate([split.train, split.val, split.test])
    assert sorted(together) == list(range(len(labels)))
    names = [{groups[i] for i in side} for side in (split.train, split.val, split.test)]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    again = group_split(labels, groups, seed=seed)
    assert np.array_equal(split.test, again.test)


def test_classes_stay_even_when_groups_stay_whole():
    generator = np.random.default_rng(0)
    labels = labels_of(100, 75, 100)
    groups = [f"g{k}" for k in generator.integers(0, 60, len(labels))]
    counts = per_class(group_split(labels, groups, seed=0), labels)
    for name, fraction in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        for got, whole in zip(counts[name], (100, 75, 100), strict=True):
            assert abs(got - fraction * whole) <= 2


def test_every_class_is_on_every_side_when_that_can_be():
    # Class 1 has three groups, each of which also holds many images of class 0.
    labels = [0] * 90 + [1] * 6
    groups = [f"g{k % 9}" for k in range(90)] + ["g0", "g0", "g1", "g1", "g2", "g2"]
    assert min(
        min(side) for side in per_class(group_split(labels, groups, seed=0), labels).values()
    )


def test_too_few_groups_and_a_class_in_two_groups():
    with pytest.raises(InputError, match="found 2 groups; a split needs at least 3"):
        group_split([0, 1] * 6, ["a", "b"] * 6, seed=0)
    labels = [0] * 30 + [1] * 4
    groups = [f"g{k % 10}" for k in range(30)] + ["g0", "g0", "g1", "g1"]
    with pytest.raises(InputError, match=r"class b has no image on the \w+ side: its .* 2 groups"):
        group_split(labels, groups, seed=0, classes=("a", "b"))


def test_too_small_a_class():
    with pytest.raises(InputError, match="class b has 2 usable images; a split needs at least 3"):
        random_split(labels_of(5, 2), seed=0, classes=("a", "b"))


def test_ready_made_folders():
    folds = ("train",) * 4 + ("val",) * 2 + ("test",) * 2
    listing = listing_of([0, 1] * 4, folds)
    split = folder_split(listing)
    assert [len(x) for x in (split.train, split.val, split.test)] == [4, 2, 2]
    assert split.rule == "folders"


def test_validation_is_taken_from_train_where_it_is_missing():
    folds = ("train",) * 16 + ("test",) * 4
    listing = listing_of([0, 1] * 10, folds)
    split = folder_split(listing)
    assert per_class(split, [0, 1] * 10)["val"] == [2, 2]
    assert set(split.val) < set(range(16))
    assert split.rule == "folders, validation taken from train"


def test_missing_folders():
    with pytest.raises(InputError, match="no train/, val/ and test/ folders"):
        folder_split(listing_of([0, 1]))
    with pytest.raises(InputError, match="no images in test/"):
        folder_split(listing_of([0, 1], ("train", "val")))


def tree(folds: tuple[str, ...], *, labels: list[int], there: tuple[str, ...]) -> Listing:
    sides = tuple((side, side.title()) for side in there)
    return replace(listing_of(labels, folds), sides=sides)


def test_the_test_side_is_taken_from_train_where_it_has_no_folder():
    labels = [0, 1] * 10
    listing = tree(("train",) * 16 + ("val",) * 4, labels=labels, there=("train", "val"))
    split = make_split(listing, rule="auto")
    assert per_class(split, labels)["test"] == [2, 2]
    assert set(split.test) < set(range(16)) and set(split.val) == set(range(16, 20))
    assert split.rule == "folders, test taken from train"


def test_a_folder_without_a_usable_image_is_no_missing_folder():
    labels = [0, 1] * 10
    listing = tree(("train",) * 16 + ("val",) * 4, labels=labels, there=("train", "val", "test"))
    with pytest.raises(InputError, match="no usable images in Test/"):
        make_split(listing, rule="auto")


def test_auto_goes_by_the_folders():
    labels = [0, 1] * 10
    assert make_split(listing_of(labels), rule="auto").rule == "random"
    listing = tree(("train",) * 16 + ("test",) * 4, labels=labels, there=("train", "test"))
    split = make_split(listing, rule="auto")
    assert set(split.test) == set(range(16, 20))
    assert split.rule == "folders, validation taken from train"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_no_group_is_divided_by_what_is_taken_from_train(seed: int):
    labels = [0, 1] * 20
    folds = ("train",) * 32 + ("test",) * 8
    groups = [f"g{k // 4}" for k in range(40)]
    listing = tree(folds, labels=labels, there=("train", "test"))
    split = make_split(listing, rule="auto", groups=groups, seed=seed)
    assert set(split.test) == set(range(32, 40))
    assert sorted([*split.train, *split.val]) == list(range(32))
    assert not {groups[i] for i in split.train} & {groups[i] for i in split.val}
    assert per_class(split, labels)["val"] == [4, 4]


def test_too_few_groups_to_take_some_from_train():
    listing = tree(("train",) * 8 + ("test",) * 2, labels=[0, 1] * 5, there=("train", "test"))
    with pytest.raises(InputError, match="found 1 group in train/; a split needs at least 2"):
        make_split(listing, rule="auto", groups=["g"] * 10)
    groups = ["x", "y"] * 5  # a group for each class
    with pytest.raises(InputError, match="class a: its training images are in 1 groups, too few"):
        make_split(listing, rule="auto", groups=groups)


def test_a_class_that_became_small_is_missing_from_sides():
    labels = labels_of(10, 2, 1)
    split = random_split(labels, seed=0, spared=(1, 2))
    assert per_class(split, labels) == {"train": [6, 1, 1], "val": [2, 0, 0], "test": [2, 1, 0]}
    with pytest.raises(InputError, match="class c has 1 usable image;"):
        random_split(labels, seed=0, spared=(1,), classes=("a", "b", "c"))
    groups = [f"g{k % 5}" for k in range(10)] + ["g0", "g1", "g2"]
    by_group = group_split(labels, groups, seed=0, spared=(1, 2))
    assert all(num > 0 for num in per_class(by_group, labels)["train"])
    folds = ("train",) * 8 + ("test",) * 2 + ("train", "train", "train")
    listing = tree(folds, labels=labels, there=("train", "test"))
    with pytest.raises(InputError, match="class c has 1 training image"):
        folder_split(listing)
    assert per_class(folder_split(listing, spared=(2,)), labels)["val"] == [2, 1, 0]


def test_nothing_to_split():
    for make in (
        lambda: random_split([], seed=0),
        lambda: paper_split([]),
        lambda: group_split([], [], seed=0),
    ):
        with pytest.raises(InputError, match="there are no usable images to split"):
            make()


def test_rules_by_name():
    listing = listing_of(labels_of(10, 10))
    assert make_split(listing, rule="random").rule == "random"
    groups = [f"g{i % 7}" for i in range(20)]
    assert make_split(listing, rule="random", groups=groups).rule == "random by group"
    assert make_split(listing, rule="paper").rule == "paper"
    with pytest.raises(InputError, match="must be random, ungrouped, paper or folders, got 'half'"):
        make_split(listing, rule="half")
    with pytest.raises(InputError, match="--group-by goes with --split random, not with paper"):
        make_split(listing, rule="paper", groups=groups)


def test_plain_data_names_the_images_of_each_side():
    listing = listing_of(labels_of(10, 12))
    split = random_split(listing.labels, seed=3)
    plain = split_json(split, listing)
    assert plain["names"]["val"] == [listing.names[row] for row in split.val]
    assert plain["counts"] == {side: len(names) for side, names in plain["names"].items()}
    assert [sum(counts) for counts in plain["per_class"].values()] == [*plain["counts"].values()]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 30))
def test_leakage_agrees_with_a_double_loop(seed: int, num: int):
    generator = np.random.default_rng(seed)
    listing = listing_of([0] * num)
    side = np.concatenate([[0, 1, 2], generator.integers(0, 3, num - 3)])
    split = Split("x", 0, *(np.flatnonzero(side == k) for k in range(3)))
    pixels = generator.integers(0, num, num)  # equal numbers are equal pictures
    looks = generator.random((num, num)) < 0.1
    pairs = [(i, j) for i in range(num) for j in range(i + 1, num)]
    audit = Audit(
        listing=listing,
        sizes=np.full((num, 2), 9),
        content_ids=np.arange(num, dtype=np.uint64),
        bad=(),
        exact=tuple(
            tuple(np.flatnonzero(pixels == p).tolist())
            for p in np.unique(pixels)
            if (pixels == p).sum() > 1
        ),
        near=tuple((i, j) for i, j in pairs if looks[i, j] and pixels[i] != pixels[j]),
        conflicts=(),
    )
    groups = [f"g{k}" for k in generator.integers(0, 4, num)]
    same = exact = near = 0
    for i in split.test:
        same += any(groups[i] == groups[j] for j in split.train)
        copied = any(pixels[i] == pixels[j] for j in split.train)
        exact += copied
        near += not copied and any((min(i, j), max(i, j)) in audit.near for j in split.train)
    assert leakage(split, audit, groups).to_json() == {
        "num_test": len(split.test),
        "same_group": same,
        "duplicate": exact,
        "near_duplicate": near,
    }


def test_leakage_counts_what_a_training_image_gives_away():
    listing = listing_of([0] * 8)
    split = Split("x", 0, np.arange(4), np.arange(4, 5), np.arange(5, 8))
    audit = Audit(
        listing=listing,
        sizes=np.full((8, 2), 9),
        content_ids=np.arange(8, dtype=np.uint64),
        bad=(),
        exact=((0, 5), (4, 6)),
        near=((1, 6), (2, 5), (4, 7)),
        conflicts=(),
    )
    # 5 equals 0 (and resembles 2), 6 resembles 1, 7 resembles only a validation image.
    found = leakage(split, audit, ["a", "b", "c", "d", "x", "e", "b", "x"])
    assert found.to_json() == {
        "num_test": 3,
        "same_group": 1,
        "duplicate": 1,
        "near_duplicate": 1,
    }
    assert leakage(split, audit).same_group is None
