"""The summary of a study: headline, tiles and accuracies."""

from __future__ import annotations

from dataclasses import dataclass

from secateurs.report.common.baselines import balanced, majority
from secateurs.report.common.formatting import (
    change,
    count,
    integer,
    listed,
    milliseconds,
    percent,
    percent_interval,
    plural,
    proper,
    runs_of,
    share,
    size,
)
from secateurs.report.common.latency import latency_name, least_gain, measured, ratio_of, verdict
from secateurs.report.common.sweep_rows import Record, depth_rows, is_scratch
from secateurs.report.study.evaluations import (
    Evaluations,
    chosen_row,
    num_correct,
    shown_evaluations,
)


@dataclass(frozen=True)
class Tile:
    """One number of the summary, before and after pruning, with a note."""

    title: str
    before: str
    after: str = ""
    note: str = ""
    ratio: float | None = None  # after / before, for the bar


@dataclass(frozen=True)
class Span:
    """A fraction with its interval, for the small figure beside the accuracy."""

    name: str
    value: float
    low: float
    high: float


def headline(results: Record) -> str:
    """The result of the study in one sentence, as far as it ran."""
    found, name = shown_evaluations(results), results["data"]["name"]
    if found is None:
        return f"{name}: no model was chosen yet"
    correct, total = num_correct(found.before), found.before["num_images"]
    text = f"{integer(correct)} of {integer(total)} {found.side} images correct"
    if ends_with_choice(results):
        return f"Freeze {plural(results['recommendation']['depth'], 'layer')}: {text}"
    if found.after is None:
        return f"{text}; nothing was pruned" if not results["pruned"] else text
    removed = listed(
        [_removed(layer) for layer in results["pruned"]["layers"] if layer["num_units"]]
    )
    after = num_correct(found.after)
    still = "still " if after == correct else ""
    pruning = f"removing {removed}" if removed else "pruning"
    return f"{text}; {still}{integer(after)} after {pruning}"


def _removed(layer: Record) -> str:
    removed = 1 - layer["num_kept"] / layer["num_units"]
    return f"{share(removed)} of {layer['layer']}"


def advice(results: Record) -> list[str]:
    """Sentences on the recommended depth besides the reason for the choice."""
    found = results["recommendation"]
    if not found:
        return []
    cost = (found.get("timing") or {}).get("sentence")
    return [*found["sentences"][1:], *([cost] if cost else [])]


def ends_with_choice(results: Record) -> bool:
    """Whether this is a sweep: it recommends a depth and nothing is pruned or measured."""
    return bool(results["recommendation"]) and not results["pruned"] and not results["cost"]


def standfirst(results: Record) -> str:
    """What was trained on which images."""
    config, data = results["config"], results["data"]
    backbone = proper(str(config.get("backbone", "A network")))
    text = (
        f"{backbone} fine-tuned on {plural(data['num_images'], 'image')} of "
        f"{plural(len(data['classes']), 'class', 'classes')} ({data['name']}), "
        f"split: {results['split']['rule']}."
    )
    return f"{text} Weights: {results['weights']['sentence'].rstrip('.')}."


def tiles(results: Record) -> list[Tile]:
    """Depth, parameters, file size and latency; the accuracy has its own tile."""
    shown = [_depth_tile(results)] if results["chosen"] else []
    cost = results["cost"]
    if cost:
        for key, title, text in (
            ("num_parameters", "Parameters", count),
            ("file_bytes", "Model file", size),
        ):
            before, after = cost["before"][key], (cost["after"] or {}).get(key)
            shown.append(_pair_tile(title, before, after, text))
    if cost and cost["latency"]:
        shown.append(_latency_tile(cost["latency"]))
    return shown


def _latency_tile(rows: list[Record]) -> Tile:
    """The measurement with the smallest gain, and the range of all."""
    row = least_gain(rows)
    if row is None:
        only = rows[0]
        where = f"{latency_name(only)}, batch {integer(only['batch'])}"
        return Tile("Latency", milliseconds(only["before_ms"]["median"]), note=where)
    tile = _pair_tile("", row["before_ms"]["median"], row["after_ms"]["median"], milliseconds)
    note = f"{latency_name(row)}, batch {integer(row['batch'])}: {verdict(row)}"
    known = [one for one in rows if ratio_of(one) is not None]
    if len(known) > 1:
        best = min(known, key=lambda one: ratio_of(one) or 0.0)
        note += (
            f". The smallest gain of {len(known)} measurements; the largest is {measured(best)}, "
            f"{latency_name(best)}, batch {integer(best['batch'])}"
        )
    title = "Latency, smallest gain" if len(known) > 1 else "Latency"
    return Tile(title, tile.before, tile.after, note, tile.ratio)


def _depth_tile(results: Record) -> Tile:
    chosen, row = results["chosen"], chosen_row(results)
    found = results["recommendation"]
    title = "Recommended depth" if found and found["depth"] == chosen["depth"] else "Chosen depth"
    if row and is_scratch(row):
        return Tile("Chosen depth", "scratch", note="random initial weights, every layer trained")
    tried = runs_of([entry["depth"] for entry in depth_rows(results)])
    layers = num_layers(results)
    parts = [
        f"{chosen['depth']} of {plural(layers, 'layer')} frozen"
        if layers
        else plural(chosen["depth"], "frozen layer"),
        f"depths {tried} tried" if tried else "",
    ]
    return Tile(title, str(chosen["depth"]), note="; ".join(filter(None, parts)))


def num_layers(results: Record) -> int | None:
    """How many weighted layers the network has, the head included, if the weights say."""
    weights, chosen = results["weights"], results["chosen"]
    total = len(weights["loaded"]) + len(weights["fresh"])
    return total if chosen and total > chosen["depth"] else None


def _pair_tile(title: str, before: float | None, after: float | None, text: object) -> Tile:
    assert callable(text)
    if after is None or before is None:
        return Tile(title, str(text(before)))
    ratio = after / before if before else None
    return Tile(title, str(text(before)), str(text(after)), change(before, after), ratio)


def accuracy_lines(found: Evaluations) -> list[tuple[str, str]]:
    """The accuracy before, and after if something was pruned."""
    lines = [("before", found.before), ("after", found.after)]
    return [
        (
            name,
            percent_interval(
                evaluation["accuracy"], evaluation["accuracy_low"], evaluation["accuracy_high"]
            ),
        )
        for name, evaluation in lines
        if evaluation
    ]


def accuracy_spans(found: Evaluations) -> list[Span]:
    """Accuracy with interval before and after, as far as both bounds are known."""
    keys = ("accuracy", "accuracy_low", "accuracy_high")
    lines = [("before", found.before), ("after", found.after)]
    return [
        Span(name, *(evaluation[key] for key in keys))
        for name, evaluation in lines
        if evaluation and all(evaluation[key] is not None for key in keys)
    ]


def accuracy_note(found: Evaluations) -> str:
    """How the two accuracies differ, in images and points."""
    total = found.before["num_images"]
    text = f"on {plural(total, f'{found.side} image')}, with 95% intervals"
    if found.after is None:
        return text
    moved = num_correct(found.after) - num_correct(found.before)
    if moved == 0:
        return f"{text}; the number of correct images is the same after pruning"
    more = "more" if moved > 0 else "fewer"
    points = f"{100 * abs(moved) / total:.1f}"
    return f"{text}; {plural(abs(moved), 'image')} {more} correct after pruning ({points} points)"


def baseline_note(found: Evaluations) -> str:
    """Balanced accuracy before and after pruning, and the majority-class baseline.

    >>> baseline_note(Evaluations("test", {"confusion": [[3, 1], [0, 1]]}, None))
    'Balanced accuracy 87.5%; majority-class baseline 80.0%'
    """
    shown = [percent(balanced(one)) for one in (found.before, found.after) if one]
    return (
        f"Balanced accuracy {' → '.join(shown)}; majority-class baseline "
        f"{percent(majority(found.before))}"
    )
