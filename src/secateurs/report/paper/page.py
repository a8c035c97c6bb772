"""The page of a run of the paper: published numbers beside ours, and further experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.report.common.baselines import FEW_IMAGES, balanced, majority
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    integer,
    listed,
    percent,
    percent_interval,
    plain,
    plural,
    runs_of,
    seconds,
    some,
)
from secateurs.report.common.machines import machine_words
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.render import render_page, write_page
from secateurs.report.common.sweep_rows import Record, depth_rows, random_frozen
from secateurs.report.paper import beyond, panels
from secateurs.shape import Maybe, check_shape
from secateurs.study.paper.published_numbers import published

NAME = "paper.html"
SCHEMA = 1
PARTS = (
    *("plan", "data", "split", "weights", "table1", "table2", "table3", "cells", "counted"),
    *("sweep", "best", "search", "grid", "readings", "beyond", "published_grid", "files"),
)
_OBJECTS = (
    *("plan", "data", "split", "weights", "table3", "counted", "best", "grid", "readings"),
    *("beyond", "files", "published_grid"),
)
_KIND: dict[str, Any] = {
    **dict.fromkeys(_OBJECTS, dict),
    **{key: [dict] for key in ("table1", "table2", "cells", "sweep")},
    "search": Maybe(dict),
}
QUIRKS = {
    "first_epoch_dropout": "dropout active in the first epoch alone",
    "choose_on_test": "the best network chosen on test",
    "noisy_activations": "activations taken with dropout and new views in each cell",
}


def load_paper(directory: Path) -> Record:
    """What `directory`/paper.json holds.

    Raises InputError when it is missing, broken, of another schema, or lacks a part.
    """
    path = directory / "paper.json"
    if not path.exists():
        raise InputError(
            f"{directory}: no paper.json here; give the --out directory of a finished run"
        )
    answer = read_json(path)
    if not isinstance(answer, dict):
        raise InputError(f"{path}: not a run of the paper")
    if answer.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema is {answer.get('schema')!r}, expected {SCHEMA}; run secateurs paper "
            "again in a new directory"
        )
    missing = sorted(set(PARTS) - answer.keys())
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}")
    return check_shape(answer, _KIND, where=str(path))


def write_paper_page(answer: Record, directory: Path, *, data: str | None = None) -> Path:
    """Write the page of a run (what `paper.json` holds) to `directory`/paper.html.

    `data` is where the images are, for the commands on the page. The file is written whole or not
    at all and loads nothing from anywhere. Raises InputError when the run is of another schema or
    the page cannot be written.
    """
    if answer.get("schema") != SCHEMA:
        raise InputError(f"paper: schema is {answer.get('schema')!r}, expected {SCHEMA}")
    return write_page(directory / NAME, render_paper(answer, directory, data=data))


def render_paper(answer: Record, directory: Path | None = None, *, data: str | None = None) -> str:
    """The page as text."""
    answer = isolate_names(answer)
    first = [
        panels.table1(answer),
        *panels.search(answer),
        panels.table2(answer),
        panels.table3(answer),
        panels.grid(answer),
        panels.readings(answer),
    ]
    second = [
        *beyond.apart(answer),
        beyond.choices(answer),
        beyond.compensation(answer),
        beyond.smallest(answer),
    ]
    return render_page(
        "paper.html.j2",
        (*first, *second),
        {
            "paper": answer,
            "headline": headline(answer),
            "standfirst": standfirst(answer),
            "tiles": _tiles(answer),
            "cautions": cautions(answer),
            "first": first,
            "second": second,
            "record_groups": _record(answer),
            **page_values(next_steps(answer, directory, data), answer, directory),
        },
    )


def next_steps(answer: Record, directory: Path | None, data: str | None) -> list[Step]:
    """Commands that print the tables, and that study the same images without the paper's limits."""
    out = None if directory is None else shown_path(directory)
    images = shown_data(data)
    beside = "DIR" if out is None else f"{out}-study"
    steps = [] if out is None else [step("Print the tables:", "results", out)]
    if answer["search"] and directory is not None:
        searched = shown_path(directory / answer["files"]["search"])
        steps.append(step("Print the search as a table:", "results", searched))
    words = ("study", images, "--preset", "full", "--out", beside)
    return [*steps, step("Run a full study of the same images (hours):", *words)]


def _record(answer: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Plan, versions and times of the run."""
    times = [(key, seconds(value)) for key, value in answer.get("timing", {}).items()]
    plan = [(key, plain(value)) for key, value in answer["plan"].items()]
    versions = [(key, str(value)) for key, value in answer.get("versions", {}).items()]
    machines = list(machine_words(answer.get("machines")).items())
    where = [("Where trials ran", machines)] if machines else []
    return [("Plan", plan), ("Versions", versions), ("Time", times), *where]


def headline(answer: Record) -> str:
    """The result in one sentence."""
    counted = answer["counted"]
    if not answer["data"]["is_sfew"]:
        best = answer["best"]["test"]["accuracy"]
        return (
            f"The paper's protocol reaches {percent(best)} on the test images of "
            f"{answer['data']['name']}; published: 50% on SFEW"
        )
    return (
        f"{counted['inside']} of the published numbers are inside our intervals, "
        f"{counted['outside']} outside; {counted['not comparable']} cannot be compared"
    )


def standfirst(answer: Record) -> str:
    """Runs, epochs, images and weights."""
    plan, split = answer["plan"], answer["split"]["counts"]
    quirks = [text for name, text in QUIRKS.items() if plan[name]]
    return (
        f"{plural(plan['runs'], 'run')} of {plural(plan['epochs'], 'full-batch epoch')} at each "
        f"depth on {split['train']} training images; {split['val']} validation and {split['test']} "
        f"test images. {answer['weights']['sentence'].capitalize()}."
        + (f" As in the published program: {listed(quirks)}." if quirks else "")
    )


def cautions(answer: Record) -> list[str]:
    """The limitations of the results."""
    found: list[str] = []
    if not answer["data"]["is_sfew"]:
        found.append(
            "These are not the images of the paper, so the published numbers are shown for "
            "comparison only; this run cannot confirm or refute them."
        )
    if answer["best"]["on"] == "test":
        found.append(
            "The best network was chosen by its test accuracy, as in the paper, so that accuracy "
            "is too optimistic."
        )
    random = {row["depth"]: random_frozen(answer, row) for row in depth_rows(answer)}
    random = {depth: names for depth, names in random.items() if names}
    if random:
        names = list(dict.fromkeys(name for group in random.values() for name in group))
        found.append(
            f"Depth {runs_of(list(random))} {'freezes' if len(random) == 1 else 'freeze'} "
            f"{some(names)} with random weights, because no pretrained weights were loaded "
            "for them. With pretrained weights the result can differ."
        )
    tested = answer["best"]["test"]["num_images"]
    if tested < FEW_IMAGES:
        found.append(f"Only {plural(tested, 'test image')}: the accuracies have wide intervals.")
    same = answer["split"]["leakage"]["same_group"]
    if same:
        share = same / answer["split"]["counts"]["test"]
        found.append(
            f"{percent(share, digits=0)} of the test images share a film (or sender, or person) "
            "with a training image; the second part has a split without such pairs."
        )
    return found


def paper_words(answer: Record) -> str:
    """The run as text for a terminal."""
    lines = [headline(answer), "test accuracy over frozen layers, published and ours:"]
    for row in answer["table1"]:
        theirs = "–" if row["published"] is None else percent(row["published"])
        ours = percent_interval(row["ours"], row["low"], row["high"])
        lines.append(f"  {row['what']:<22} {theirs:>6}   {ours:<22} {row['verdict']}")
    test = answer["best"]["test"]
    lines.append(
        f"best: balanced accuracy {percent(balanced(test))}; majority-class baseline "
        f"{percent(majority(test))}"
    )
    rows = answer["beyond"]["smallest"]["rows"]
    lines.append("smallest networks without loss of validation accuracy:")
    lines += [
        f"  {row['what']:<22} {percent(row['fraction'])} of the parameters, test "
        f"{percent(row['test']['accuracy'])}"
        for row in rows
    ]
    apart = answer["beyond"]["apart"]
    if apart:
        lines.append(
            f"split by film: test {percent(apart['chosen']['test']['accuracy'])} "
            f"at {apart['chosen']['depth']} frozen layers"
        )
    return "\n".join(lines)


def _tiles(answer: Record) -> list[tuple[str, str, str]]:
    best, apart = answer["best"], answer["beyond"]["apart"]
    unpruned, *cut = answer["beyond"]["smallest"]["rows"]
    fc7 = cut[0]["kept"] or {}
    tiles = [
        (
            "Best network",
            percent(best["test"]["accuracy"]),
            f"published {percent(published()['table2']['accuracy'] / 100)}; "
            f"{best['depth']} frozen layers, chosen on {best['on']}; balanced "
            f"{percent(balanced(best['test']))}; majority-class baseline "
            f"{percent(majority(best['test']))}",
        ),
        (
            "Kept units of fc7 without loss",
            integer(next(iter(fc7.values()), None)),
            f"of {integer(answer['grid']['num_units'])} units; the paper removed 292",
        ),
        (
            "Parameters without loss",
            percent(cut[-1]["fraction"]),
            f"whole network pruned; test {percent(cut[-1]['test']['accuracy'])}, "
            f"{percent(unpruned['test']['accuracy'])} unpruned",
        ),
    ]
    if apart:
        chosen = apart["chosen"]
        tiles.append(
            (
                "Split by film",
                percent(chosen["test"]["accuracy"]),
                f"on test, with {chosen['depth']} frozen layers chosen on validation",
            )
        )
    return tiles
