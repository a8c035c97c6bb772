"""The answer of a study over several networks: headline, tiles, captions, cautions."""

from __future__ import annotations

from typing import Any

from secateurs.report.common.baselines import majority
from secateurs.report.common.formatting import (
    integer,
    listed,
    milliseconds,
    percent,
    percent_interval,
    plural,
    size,
)
from secateurs.report.common.latency import latency_name, measured
from secateurs.report.frontier.figures import made_points
from secateurs.report.frontier.int8 import int8_rows, int8_sentences, shipped_int8
from secateurs.report.study.cautions import audit_warning, leakage_warnings
from secateurs.study.frontier.refit_words import refit_sentence

Record = dict[str, Any]
Tile = tuple[str, str, str]


def headline(results: Record) -> str:
    """The recommended network in one sentence."""
    test, row = results["recommended"]["test"], recommended(results)
    correct = round(test["accuracy"] * test["num_images"])
    return (
        f"{row['name']}: {integer(correct)} of {plural(test['num_images'], 'test image')} correct, "
        f"{row['mb']:.1f} MB"
    )


def recommended(results: Record) -> Record:
    """The point that is recommended."""
    name = results["answer"]["name"]
    return next(row for row in made_points(results) if row["name"] == name)


def standfirst(results: Record) -> str:
    """What was compared on which images."""
    data, points = results["data"], made_points(results)
    names = [one["backbone"].partition("+")[0] for one in results["probe"]["networks"]]
    classes = plural(len(data["classes"]), "class", "classes")
    return (
        f"{plural(len(points), 'network')} made from {listed(names)} on "
        f"{plural(data['num_images'], 'image')} of {classes} ({data['name']}), split: "
        f"{results['split']['rule']}."
    )


def tiles(results: Record) -> list[Tile]:
    """Test accuracy, size, time, and what the network was made from."""
    final, row = results["recommended"], recommended(results)
    test = final["test"]
    base = majority(test)
    note = f"95%: {percent(test['accuracy_low'])} to {percent(test['accuracy_high'])}"
    if base is not None:
        note += f"; majority-class baseline {percent(base)}"
    shown: list[Tile] = [("Test accuracy", percent(test["accuracy"]), note)]
    before, after = final["cost"]["before"], final["cost"]["after"]
    pruned = final["name"] != final["unpruned"]
    whole = f"{size(before['file_bytes'])} unpruned" if pruned else "not pruned"
    shown.append(("Weights", size(after["file_bytes"], beside=before["file_bytes"]), whole))
    batch = results["latency"]["batch"]
    where = f"{plural(batch, 'image')} in PyTorch, {results['latency']['device']}"
    shown.append(("Time", milliseconds(row["ms"]), where))
    rows = [one for one in final["cost"]["latency"] if pruned]
    if rows:
        least = max(rows, key=lambda one: one.get("ratio") or one.get("ratio_p50") or 0.0)
        speed = f"the smallest gain: {latency_name(least)}, batch {integer(least['batch'])}"
        shown.append(("Against unpruned", measured(least), speed))
    return shown


def advice(results: Record) -> list[str]:
    """The answer's own sentences, then the rule by which it was chosen."""
    loss = results["options"]["max_loss"]
    refit = results["recommended"].get("refit")
    return [
        *results["answer"]["sentences"],
        *_reads(recommended(results)["backbone"]),
        *([] if refit is None else [refit_sentence(refit)]),
        *int8_sentences(results),
        "Rule: the smallest network whose accuracy on validation images, adjusted by the "
        "cross-validation of its probe, is not significantly below the best (paired, 5%) and at "
        f"most {loss:g} {'point' if loss == 1 else 'points'} below it. The test images were used "
        f"once, for this network{' and its int8 file' if shipped_int8(results) else ''}.",
    ]


def _reads(backbone: str) -> list[str]:
    """Which earlier depths a network's head reads; nothing for the last features alone."""
    earlier = backbone.split("+")[1:]
    return [f"Its head reads {listed([*earlier, 'the last features'])}."] if earlier else []


def frontier_caption(results: Record) -> str:
    """What the two figures show."""
    asked = results["options"]
    limits = [
        f"{asked[key]:g} {unit}"
        for key, unit in (("max_mb", "MB"), ("max_ms", "ms"))
        if asked[key] is not None
    ]
    text = (
        "Each marker is one network; bars are 95% intervals of its accuracy on validation "
        "images. Lines join the sizes of one network. The ring is the recommended network, the "
        "dotted line the accuracy of always predicting the largest class."
    )
    if int8_rows(results):
        text += " The star is an int8 file; its time is in the table of int8 files."
    return f"{text} Dashed: the limit of {listed(limits)}." if limits else text


def cautions(results: Record) -> list[str]:
    """What a reader has to know before using the network."""
    found = leakage_warnings(results)
    found += [f"{text[:1].upper()}{text[1:]}." for text in results["cautions"]]
    if not results["answer"]["meets"]:
        found.append(
            "No network meets what was asked for; the nearest is shown. "
            "Smaller networks as --backbones may."
        )
    val = recommended(results)["val"]
    wide = val["accuracy_high"] - val["accuracy_low"]
    if wide > 0.1:
        found.append(
            f"There are {plural(val['num_images'], 'validation image')}: the 95% intervals of "
            f"accuracies are about ±{100 * wide / 2:.0f} points."
        )
    for row in results["points"]:
        if row.get("reason"):
            found.append(f"{row['name']} was not made: {row['reason']}.")
    for one in results["probe"]["skipped"]:
        found.append(f"{one['backbone']} was not tried: {one['reason']}.")
    return found + audit_warning(results)


def out_of_reach(results: Record) -> list[str]:
    """Which networks were not fine-tuned because of the limits, as sentences."""
    found = results.get("reach") or {"sentences": []}
    return [f"{text[:1].upper()}{text[1:]}." for text in found["sentences"]]


def point_rows(results: Record) -> tuple[tuple[str, ...], ...]:
    """A row of text for each point, largest accuracy first."""
    gaps, adjusted = results["answer"]["to_best"], results["answer"].get("accuracy", {})
    rows = sorted(made_points(results), key=lambda row: (-row["val"]["accuracy"], row["mb"]))
    return tuple(
        (
            row["name"],
            percent_interval(
                row["val"]["accuracy"], row["val"]["accuracy_low"], row["val"]["accuracy_high"]
            ),
            percent(adjusted.get(row["name"], row["val"]["accuracy"])),
            _gap(gaps[row["name"]], best=row["name"] == results["answer"]["best"]),
            f"{row['mb']:.1f}",
            f"{row['ms']:.1f}",
            f"{row['cost']['num_parameters'] / 1e6:.2f}",
            f"{row['cost']['macs'] / 1e6:,.0f}",
        )
        for row in rows
    )


def _gap(gap: Record, *, best: bool) -> str:
    if best:
        return "the best"
    low, high = 100 * gap["low"], 100 * gap["high"]
    return f"{100 * gap['difference']:+.1f} ({low:+.1f} to {high:+.1f}), p = {gap['p_value']:.2g}"
