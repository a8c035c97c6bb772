"""What results.json keeps of a study over several networks, and the answer in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from secateurs.ship.cost import cost_lines
from secateurs.study.frontier.arms import Arm
from secateurs.study.frontier.points import Record
from secateurs.study.frontier.recommendation import Answer
from secateurs.study.frontier.refit_words import refit_sentence
from secateurs.study.frontier.shortlist import Probed
from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset
from secateurs.study.sweep.sweep import summarise_sweep

FEW_TRAINING = 10  # images of a class
FEW_TEST = 5
MOST_NAMED = 4  # classes in a caution
DOMINANT = 0.6  # share of the images in one class

OF_ONE_NETWORK = {
    *("backbone", "depths", "auto_depths", "scratch_runs", "layers", "rule", "low_deg", "high_deg"),
    *("norm_std", "keep", "keep_fraction", "max_loss", "compensation", "fitted"),
}


def shown_config(config: StudyConfig) -> Record:
    """The configuration without what only a study of one network and its layers uses."""
    plain = config.to_json()
    return {name: value for name, value in plain.items() if name not in OF_ONE_NETWORK}


def timing_json(
    probed: list[Probed],
    arms: list[Arm],
    points: list[Record],
    timing: Record,
    final: Record,
    trust: Record,
    int8: Record | None,
) -> Record:
    """Seconds of each part, as they were measured when it was computed, whenever that was."""
    seconds = {
        "probe": sum(one.found.record["seconds"] for one in probed),
        "fine-tuning": sum(row["timing"]["seconds"] for arm in arms for row in arm.trials),
        "sizes": sum(row["timing"]["seconds"] for row in points),
        "latency": timing["timing"]["seconds"],
        "answer": final["timing"]["seconds"] + final["cost"]["timing"]["seconds"],
        "trust": trust["timing"]["seconds"],
    }
    if int8 is not None:
        made = [*int8["networks"], *([int8["shipped"]] if int8["shipped"] else [])]
        seconds["int8"] = sum(row["timing"]["seconds"] for row in made)
    return seconds | {"total": sum(seconds.values())}


def caution_lines(final: Record, dataset: Dataset, config: StudyConfig) -> list[str]:
    """What a reader must know before relying on the test accuracy."""
    grouped = dataset.groups is not None or config.split in ("folders", "paper")
    train = np.bincount(dataset.sides["train"].labels, minlength=len(dataset.classes))
    return [
        *cautions(final["test"], grouped=grouped),
        *class_cautions(final["test"], train.tolist()),
    ]


def class_cautions(test: Record, num_train: Sequence[int]) -> list[str]:
    """What limits the statements on single classes: few images, or one class that dominates.

    `test` is an evaluation, `num_train` counts the training images of each of its classes.
    """
    found: list[str] = []
    scores = test["per_class"]
    few = [
        (score["class"], number, score["num_true"])
        for score, number in zip(scores, num_train, strict=True)
        if number < FEW_TRAINING or score["num_true"] < FEW_TEST
    ]
    if 0 < len(few) <= MOST_NAMED:
        parts = [f"{name} ({train} training and {num} test images)" for name, train, num in few]
        found.append(f"little is known of classes with few images: {', '.join(parts)}")
    elif few:
        which = "all" if len(few) == len(scores) else f"{len(few)} of"
        found.append(
            f"{which} {len(scores)} classes have fewer than {FEW_TRAINING} training images "
            f"or fewer than {FEW_TEST} test images: little is known of a single class"
        )
    base = test.get("majority_accuracy")
    if base is not None and base > max(DOMINANT, 1.5 / len(scores)):
        found.append(
            f"always answering the largest class gives {base:.1%}; the balanced accuracy, the mean "
            f"of all classes, is {test['balanced_accuracy']:.1%}"
        )
    never = [score["class"] for score in scores if score["num_predicted"] == 0]
    if never:
        names = ", ".join(never[:MOST_NAMED]) + (" and others" if len(never) > MOST_NAMED else "")
        found.append(f"never answered on the test images: {names}")
    return found


def arm_json(arm: Arm) -> Record:
    """What is kept of the fine-tuning of a network."""
    num_images = len(arm.context.dataset.sides["val"])
    return {
        "backbone": arm.context.config.backbone,
        "depths": list(arm.context.depths),
        "weights": arm.context.weights.to_json(),
        "trials": arm.trials,
        "sweep": summarise_sweep(arm.trials, num_images=num_images),
        "depth": arm.choice.advice.depth,
        "sentences": list(arm.choice.advice.sentences),
    }


def answer_json(answer: Answer) -> Record:
    """The answer as plain data."""
    return {
        "name": answer.name,
        "best": answer.best,
        "meets": answer.meets,
        "as_good": list(answer.as_good),
        "accuracy": dict(answer.accuracy),
        "to_best": {name: asdict(gap) for name, gap in answer.to_best.items()},
        "sentences": list(answer.sentences),
    }


def headline(results: Record) -> str:
    """A study's answer in a few lines."""
    final = results["recommended"]
    lines = [*results["answer"]["sentences"]]
    refit = final.get("refit")
    if refit is not None:
        lines.append(refit_sentence(refit))
    lines.append(evaluation_words(final["test"], "test"))
    if final["unpruned"] != final["name"]:
        lines += cost_lines(final["cost"]["sentence"])
    lines += (results.get("int8") or {"sentences": []})["sentences"]
    lines += [f"caution: {text}" for text in results["cautions"]]
    lines += [f"note: {text}" for text in results["reach"]["sentences"]]
    lines += [
        f"not made: {row['name']}: {row['reason']}" for row in results["points"] if "reason" in row
    ]
    return "\n".join(line for line in lines if line)
