"""The founding paper from end to end, beside what it printed, and what it would have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import secateurs
from secateurs.directories import INSTEAD, clear_output, open_output
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.fit.cache import PrefixCache
from secateurs.nets.backbones import layers
from secateurs.progress import SILENT, Progress
from secateurs.shape import read_record
from secateurs.ship.checkpoint import load
from secateurs.stopping import StopFlag
from secateurs.study.paper import comparison_with_paper
from secateurs.study.paper.best_network import best, network_of, tested_trials
from secateurs.study.paper.films import Films, find_films, with_films
from secateurs.study.paper.protocol import BACKBONE, PaperPlan
from secateurs.study.paper.pruning import grids
from secateurs.study.paper.published_numbers import is_sfew, published
from secateurs.study.paper.smallest import smallest
from secateurs.study.paper.time_remaining import remaining_words
from secateurs.study.paper.variants import both_dropouts, both_resizes, overall_accuracy
from secateurs.study.records.kinds import PAPER_PLAN, odd_keys
from secateurs.study.search.run import run_search
from secateurs.study.setup.config import difference
from secateurs.study.setup.trial_context import TrialContext, open_context, open_dataset
from secateurs.study.stages import Stages, versions
from secateurs.study.study import run_study
from secateurs.study.sweep.sweep import choose, summarise_sweep
from secateurs.study.trials.machines import machine_rows, machine_totals
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor
from secateurs.study.trials.trial import Trial

SCHEMA = 1
PLAN = "paper.plan.json"
FILES = {"paper": "paper.json", "page": "paper.html", "apart": "apart", "search": "search"}

Record = dict[str, Any]


def run_paper(
    data: str,
    plan: PaperPlan,
    out: Path,
    *,
    cache: Path,
    overwrite: bool = False,
    prefix_cache: PrefixCache | None = None,
    executor: Executor | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Run every experiment of the paper on a folder of images, in the directory `out`.

    Returns what it writes to `out`/paper.json: each published number beside ours, then what the
    same images say when films are kept apart, validation chooses and weights are refitted. What is
    already done is not done again. Raises InputError for bad input and when `out` holds something
    else or another process is at it, StopRequested when asked to stop.
    """
    _check_directory(out, plan, overwrite=overwrite)
    context = open_context(data, plan.config(), cache=cache, progress=progress)
    listing = context.dataset.audit.listing
    films = find_films(listing.names, listing.labels, listing.classes, asked=plan.group_by)
    context = with_films(context, films)
    if films.group_by is None:
        progress.note(f"films cannot be kept apart: {films.why_not}")
    progress.note(_split_words(context))
    if overwrite:
        clear_output(out, "paper")
    _claim(out, plan, context)
    with Store(out).claim("paper") as mine:
        if not mine:
            raise InputError(f"{out}: another process is at this run; wait for it, or stop it")
        Store(out).tidy()
        kept = prefix_cache or PrefixCache()
        words = {
            "prefix_cache": kept,
            "executor": executor,
            "stop": stop or StopFlag(),
            "progress": progress,
        }
        run = _Run(data, plan, out, cache, context, films, words)
        answer = run.answer()
        kept.close()
    write_json(out / FILES["paper"], answer)
    return answer


class _Run:
    """The parts of one run, each done once or read from what an earlier run left."""

    def __init__(
        self,
        data: str,
        plan: PaperPlan,
        out: Path,
        cache: Path,
        context: TrialContext,
        films: Films,
        words: dict[str, Any],
    ) -> None:
        self.data, self.plan, self.out, self.cache = data, plan, out, cache
        self.context, self.films = context, films
        self.stop, self.progress = words["stop"], words["progress"]
        self.words = words
        self.stages, self.store = Stages(out), Store(out)
        self._models: dict[str, nn.Module] = {}
        self._machines: dict[str, list[Record]] = {"search": [], "apart": []}

    def answer(self) -> Record:
        """Run or read all parts; what `paper.json` holds."""
        plan, context = self.plan, self.context
        records = tested_trials(context, self.store, left=self._left, **self.words)
        side = "test" if plan.choose_on_test else "val"
        chosen, honest = best(records, side), best(records, "val")
        identity = {
            "chosen": chosen["key"],
            "version": secateurs.__version__,
            "plan": plan.to_json(),
        }
        resized = self.stages.run(
            "resize",
            identity,
            lambda: both_resizes(self._model(chosen), self.data, context, self.cache),
        )
        dropouts, always = both_dropouts(
            plan, context, self.store, records, chosen["depth"], **self.words
        )
        pruned = self.stages.run("grids", identity, lambda: self._grids(chosen, identity))
        searched = self._search(chosen["depth"]) if plan.search else None
        apart = self._apart()
        whence = {**identity, "honest": honest["key"], "apart": apart and apart["chosen"]["key"]}
        small = self.stages.run(
            "smallest",
            whence,
            lambda: {"rows": self._smallest(honest, whence)},
        )
        parts = {"grids": pruned, "resize": resized, "smallest": small}
        seconds = {name: part.pop("timing")["seconds"] for name, part in parts.items()}
        return {
            "schema": SCHEMA,
            "plan": plan.to_json(),
            **self._described(),
            **self._tables(records, chosen, pruned),
            "sweep": summarise_sweep(records, num_images=len(context.dataset.sides["val"])),
            "best": {
                "on": side,
                **{key: chosen[key] for key in ("depth", "run", "val_accuracy", "curve", "test")},
            },
            "search": searched,
            "published_search": published()["training"],
            "grid": pruned,
            "published_grid": published()["grid"],
            "readings": {
                "resize": resized["rows"],
                "dropout": dropouts,
                "overall_accuracy": {
                    "answers": chosen["test"]["accuracy"],
                    "formula": overall_accuracy(chosen["test"]["confusion"]),
                },
            },
            "beyond": {
                "chosen_on_validation": {
                    key: honest[key] for key in ("depth", "run", "val_accuracy", "test")
                },
                "indistinguishable": _indistinguishable(records, context),
                "apart": apart,
                "no_films": self.films.why_not,
                "smallest": {"apart": apart is not None, "rows": small["rows"]},
            },
            "files": FILES,
            "versions": versions(context),
            "machines": machine_totals(
                machine_rows([*records, *always]), self._machines["search"], self._machines["apart"]
            ),
            "timing": {"trials": sum(r["timing"]["seconds"] for r in records), **seconds},
        }

    def _left(self, trials: Sequence[Trial], records: Sequence[Record]) -> str:
        return remaining_words(self.plan, trials, records, films=self.films.group_by is not None)

    def _described(self) -> Record:
        dataset = self.context.dataset
        listing = dataset.audit.listing
        return {
            "data": {
                "name": dataset.name,
                "num_images": len(listing.names),
                "classes": list(dataset.classes),
                "per_class": [listing.labels.count(k) for k in range(len(listing.classes))],
                "is_sfew": is_sfew(dataset.audit),
            },
            "split": {k: v for k, v in dataset.split_json().items() if k != "names"},
            "weights": self.context.weights.to_json(),
        }

    def _tables(self, records: list[Record], chosen: Record, pruned: Record) -> Record:
        context = self.context
        why = [] if is_sfew(context.dataset.audit) else [comparison_with_paper.OTHER_IMAGES]
        why += self.plan.departures()
        names = [
            layer.alias for layer in layers(context.new_model(seed=0, pretrained=False), BACKBONE)
        ]
        program = pruned["ways"]["published"]
        tables: Record = {
            "table1": comparison_with_paper.table1(records, names, context.weights.fresh, why=why),
            "table2": comparison_with_paper.table2(chosen["test"], why=why),
            "table3": comparison_with_paper.table3(
                program["by_angle"],
                program["cells"],
                len(context.dataset.sides["test"]),
                why=why,
            ),
            "cells": comparison_with_paper.grid(program["cells"], why=why),
        }
        compared = [*tables["table1"], *tables["table2"], *tables["table3"]["accuracy"]]
        return {**tables, "counted": comparison_with_paper.counted([*compared, *tables["cells"]])}

    def _model(self, record: Record) -> nn.Module:
        """A trial's network, opened once."""
        key = record["key"]
        if key not in self._models:
            here = {name: word for name, word in self.words.items() if name != "executor"}
            self._models[key] = network_of(self.context, self.store, record, **here)
        return self._models[key]

    def _grids(self, chosen: Record, identity: Record) -> Record:
        return grids(
            self._model(chosen),
            self.context,
            self.plan,
            self.stages,
            identity,
            stop=self.stop,
            progress=self.progress,
        )

    def _search(self, depth: int) -> Record:
        self.progress.note(f"learning rate and epochs, at {depth} frozen layers")
        config = replace(self.plan.config(), depths=(depth,), runs=1, scratch_runs=0)
        found = run_search(
            self.data,
            config,
            self.plan.search_plan(),
            self.out / FILES["search"],
            cache=self.cache,
            **self.words,
        )
        self._machines["search"] = found["machines"]
        names = ("settings", "cells", "best", "alike", "evaluated")
        return {"depth": depth, **{key: found[key] for key in names}}

    def _apart(self) -> Record | None:
        if self.films.group_by is None:
            return None
        self.progress.note("the sweep again, with films kept apart")
        found = run_study(
            self.data,
            self.plan.apart(self.films.group_by),
            self.out / FILES["apart"],
            cache=self.cache,
            prune=False,
            **self.words,
        )
        self._machines["apart"] = found["machines"]
        split = {key: value for key, value in found["split"].items() if key != "names"}
        names = ("sweep", "recommendation", "chosen")
        return {"split": split, **{key: found[key] for key in names}}

    def _smallest(self, honest: Record, whence: Record) -> list[Record]:
        """From the network that validation chose, with films apart where they are known."""
        context, stages = self.context, self.stages
        found = partial(smallest, stop=self.stop, progress=self.progress)
        if self.films.group_by is None:
            return found(self._model(honest), context, stages, whence)
        config = self.plan.apart(self.films.group_by)
        dataset = open_dataset(self.data, config, cache=self.cache)
        model = load(self.out / FILES["apart"] / "unpruned").model.to(context.device)
        return found(model, replace(context, config=config, dataset=dataset), stages, whence)


def _check_directory(out: Path, plan: PaperPlan, *, overwrite: bool) -> None:
    """Refuse a folder with anything else, or with another plan, before anything long begins."""
    open_output(out, marker=PLAN, kind="a run of the paper")
    if overwrite or not (out / PLAN).exists():
        return
    found = read_record(out / PLAN, PAPER_PLAN, schema=SCHEMA, what="a run")
    asked = plan.to_json()
    if found["plan"] != asked:
        raise InputError(
            f"{out}: holds a run with another plan: {difference(found['plan'], asked)}; {INSTEAD}"
        )


def _claim(out: Path, plan: PaperPlan, context: TrialContext) -> None:
    """Mark a directory as this run's; refuse one of other images or weights."""
    weights = {"loaded": list(context.weights.loaded), "sha256": context.weights.sha256}
    identity: Record = {**context.dataset.identity(), "weights": weights}
    path = out / PLAN
    if path.exists():
        found = read_record(path, PAPER_PLAN, schema=SCHEMA, what="a run")
        odd = odd_keys(found["identity"], identity)
        if odd:
            raise InputError(f"{out}: holds a run on other {' and '.join(odd)}; {INSTEAD}")
        return
    write_json(path, {"schema": SCHEMA, "plan": plan.to_json(), "identity": identity})


def _split_words(context: TrialContext) -> str:
    """What the paper's rule makes of these images."""
    dataset = context.dataset
    sides = ", ".join(
        f"{len(dataset.sides[side])} {word}"
        for side, word in (("train", "for training"), ("val", "validation"), ("test", "test"))
    )
    shape = "the paper's frames" if is_sfew(dataset.audit) else "not the paper's 675 frames"
    return f"{len(dataset.audit.listing.names)} images, {shape}; its split gives {sides}"


def _indistinguishable(records: list[Record], context: TrialContext) -> Record:
    advice = choose(records, num_images=len(context.dataset.sides["val"])).advice
    same = [row.depth for row in advice.comparisons if row.indistinguishable]
    return {"depths": same, "best": advice.best, "sentences": list(advice.sentences)}
