from __future__ import annotations

from typing import Any

from secateurs.study.frontier.record import class_cautions


def evaluation(classes: dict[str, tuple[int, int]], majority: float) -> dict[str, Any]:
    """An evaluation with, for each class, how many test images it has and how often it is said."""
    return {
        "per_class": [
            {"class": name, "num_true": true, "num_predicted": said}
            for name, (true, said) in classes.items()
        ],
        "majority_accuracy": majority,
        "balanced_accuracy": 0.5,
    }


def test_classes_with_few_images_are_named():
    test = evaluation({"common": (60, 62), "rare": (2, 1), "thin": (6, 5)}, 0.4)
    assert class_cautions(test, [180, 5, 8]) == [
        "little is known of classes with few images: rare (5 training and 2 test images), thin (8 "
        "training and 6 test images)"
    ]


def test_many_classes_with_few_images_are_counted():
    test = evaluation({f"c{k}": (2, 2) for k in range(150)}, 0.01)
    (text,) = class_cautions(test, [7] * 150)
    assert text.startswith("all 150 classes have fewer than 10 training images")


def test_a_class_that_dominates_is_said_with_the_balanced_accuracy():
    test = evaluation({"a": (60, 66), "b": (8, 2)}, 0.88)
    (text,) = class_cautions(test, [180, 24])
    assert text.startswith("always answering the largest class gives 88.0%; the balanced accuracy")
    assert class_cautions(evaluation({"a": (40, 40), "b": (30, 30)}, 0.57), [90, 80]) == []


def test_classes_that_are_never_answered_are_named():
    test = evaluation({f"c{k}": (9, 0 if k < 6 else 20) for k in range(9)}, 0.2)
    assert class_cautions(test, [30] * 9) == [
        "never answered on the test images: c0, c1, c2, c3 and others"
    ]
