"""A study over several networks, from the images to one recommended network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateurs.directories import clear_output
from secateurs.files import write_json
from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.frontier.answer import export_recommended
from secateurs.study.frontier.arms import Arm, arm_context, fine_tune, plan_words
from secateurs.study.frontier.directory import KIND, check_configuration, claim
from secateurs.study.frontier.estimate import Correct, Judged
from secateurs.study.frontier.int8 import SHIPPED, Groups, Int8Files
from secateurs.study.frontier.latency import time_networks
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.points import (
    Place,
    Record,
    answers,
    keep_point,
    megabytes,
    point_name,
)
from secateurs.study.frontier.reach import estimate_reach, within_reach
from secateurs.study.frontier.recommendation import Answer, Limits, Network, recommend_network
from secateurs.study.frontier.record import (
    answer_json,
    arm_json,
    caution_lines,
    shown_config,
    timing_json,
)
from secateurs.study.frontier.refit import Refit
from secateurs.study.frontier.shortlist import (
    Probed,
    choose_arms,
    open_candidates,
    probe_candidates,
)
from secateurs.study.frontier.sizes import Sizes, recovery_of
from secateurs.study.records.study_directory import open_study
from secateurs.study.saved.evaluation import model_spec
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext, settle_split
from secateurs.study.stages import Stages, machine_words, versions
from secateurs.study.sweep.sweep import chosen_model, discard_weights, run_sweeps
from secateurs.study.tracking.log import Log, log_entry, trial_entry
from secateurs.study.trials.machines import machine_rows
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor

SCHEMA = 3  # of the results.json of such a study


def run_frontier(
    data: str,
    config: StudyConfig,
    options: FrontierOptions,
    out: Path,
    *,
    cache: Path,
    strict: bool = False,
    overwrite: bool = False,
    prefix_cache: PrefixCache | None = None,
    executor: Executor | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
    log: Log | None = None,
) -> Record:
    """Find the network to use for `data`, and return what is written to `out`/results.json.

    Each candidate is probed, the best are fine-tuned and pruned to several sizes, and the
    recommended one is tested, once. Of `config` the backbone and layers are not used, and the
    depths only where they were asked for. What is already done is not done again. Raises InputError
    for bad input and when `out` holds another study, StopRequested when asked to stop.
    """
    stop = stop or StopFlag()
    config = settle_split(data, config)
    open_study(out, kind=KIND)
    if not overwrite:
        check_configuration(out, config, options)
    opened = open_candidates(data, config, options, cache=cache, strict=strict, progress=progress)
    if overwrite:
        clear_output(out, "study")
    first = opened.contexts[0]
    claim(out, config, options, opened.contexts, data)
    stages, store = Stages(out), Store(out)
    store.tidy()
    kept = prefix_cache or PrefixCache()
    probed = probe_candidates(
        opened, out, earlier_depths=options.earlier_depths, stop=stop, progress=progress
    )
    contexts = {one.context.config.backbone: one.context for one in probed}
    with store.wait_for("reach", stop, progress=progress):
        reach = estimate_reach(probed, options, stages, stop=stop, progress=progress)
    within, remarks = within_reach(reach, options)
    for sentence in remarks:
        progress.note(sentence)
    plans, probe = choose_arms(probed, opened, options, out, within=within, progress=progress)
    scratch = [0 if number else options.scratch_runs for number in range(len(plans))]
    progress.note(plan_words([plan.depths for plan in plans], config, options))
    tuning: dict[str, Any] = {
        "prefix_cache": kept,
        "executor": executor,
        "stop": stop,
        "progress": progress,
        "on_trial": lambda context, record: log_entry(
            log, lambda: trial_entry(record, context.config), progress
        ),
    }
    if executor is not None:  # it has the trials of all networks to choose from
        together = [
            arm_context(plan.context, plan.depths, runs)
            for plan, runs in zip(plans, scratch, strict=True)
        ]
        run_sweeps(together, store, **tuning)
    arms = [
        fine_tune(plan.context, plan.depths, store, scratch_runs=runs, **tuning)
        for plan, runs in zip(plans, scratch, strict=True)
    ]
    with store.wait_for("stages", stop, progress=progress):
        study = _Frontier(out, options, stages, store, kept, stop, progress)
        points = [study.probe_point(one) for one in probed]
        controls = {one.context.config.backbone: one.correct() for one in probed}
        tuned = [(arm, study.tuned_point(arm)) for arm in arms]
        points += [row for _, row in tuned]
        bases = [(arm, _better(points, row, controls)) for arm, row in tuned]
        sizes = study.sizes()
        if executor is not None:
            sizes.prune_elsewhere(bases, executor)
        for arm, base in bases:
            points += sizes.rows(arm, base)
        discard_weights(store)
        made = [row for row in points if "reason" not in row]
        timing = study.time("latency", made, contexts)
        answer = _recommend(made, timing, options, first, controls)
        for sentence in answer.sentences:
            progress.note(sentence)
        stop.check()
        files = study.int8(answer, made, contexts)
        int8 = files and files.judge(answer, made, controls, _groups(first))
        stop.check()
        final = study.finish(answer, made, contexts)
        trust = final.pop("trust")
        if files and int8:
            refit = final.get("refit")
            int8 = files.ship(int8, trained=refit is not None and refit["reason"] is None)
            if int8["shipped"] is not None:
                final["files"] = final["files"] | {"int8": SHIPPED}
    kept.close()
    results = {
        "schema": SCHEMA,
        "kind": KIND,
        "config": {"data": first.dataset.name, **shown_config(config)},
        "options": options.to_json(),
        "data": first.dataset.audit.to_json() | {"name": first.dataset.name},
        "split": first.dataset.split_json(),
        "probe": probe,
        "reach": {"networks": [asdict(one) for one in reach], "sentences": list(remarks)},
        "arms": [arm_json(arm) for arm in arms],
        "points": points,
        "latency": timing,
        "answer": answer_json(answer),
        "cautions": caution_lines(final, first.dataset, config),
        "recommended": final,
        "int8": int8,
        "trust": trust,
        "versions": versions(first),
        "machines": machine_rows((record for arm in arms for record in arm.trials), points),
        "timing": timing_json(probed, arms, points, timing, final, trust, int8),
    }
    write_json(out / "results.json", results)
    return results


class _Frontier:
    """The stages of a study: each makes one network, and is done once."""

    def __init__(
        self,
        out: Path,
        options: FrontierOptions,
        stages: Stages,
        store: Store,
        kept: PrefixCache,
        stop: StopFlag,
        progress: Progress,
    ) -> None:
        self.out, self.options, self.stages, self.store = out, options, stages, store
        self.kept, self.stop, self.progress = kept, stop, progress

    def probe_point(self, probed: Probed) -> Record:
        """A candidate as it was published, with the probe as its last layer."""
        place = Place(self.out, point_name(probed.context.config.backbone, "probe"))

        def make() -> Record:
            model = probed.model()
            spec = model_spec(model, probed.context, depth=probed.head_depth, kept={})
            return keep_point(model, spec, probed.context, place, "probe")

        self.stop.check()
        return self.stages.run(
            place.name, {"probe": probed.found.record["key"]}, make, makes=place.files
        )

    def tuned_point(self, arm: Arm) -> Record:
        """The best run of the depth that was chosen for a network."""
        choice, context = arm.choice, arm.context
        place = Place(self.out, point_name(context.config.backbone))

        def make() -> Record:
            model = chosen_model(
                context,
                self.store,
                choice,
                prefix_cache=self.kept,
                stop=self.stop,
                progress=self.progress,
            )
            spec = model_spec(model, context, depth=choice.record["depth"], kept={})
            row = keep_point(model.to(context.device), spec, context, place, "fine-tuned")
            return row | {"depth": choice.record["depth"], "run": choice.record["run"]}

        self.stop.check()
        key = {"trial": choice.record["key"]}
        return self.stages.run(place.name, key, make, makes=place.files)

    def sizes(self) -> Sizes:
        """What prunes the networks of this study."""
        return Sizes(self.out, self.options, self.stages, self.time, self.stop, self.progress)

    def time(self, name: str, rows: list[Record], contexts: dict[str, TrialContext]) -> Record:
        """The stage that times some points, measured together."""
        folders = {row["name"]: Place(self.out, row["name"]).folder for row in rows}
        images = {
            row["name"]: contexts[row["backbone"]]
            .dataset.sides["val"]
            .eval_views(slice(0, self.options.batch), contexts[row["backbone"]].device)
            for row in rows
        }
        first = next(iter(contexts.values()))
        key = {
            "points": [row["tensors"] for row in rows],
            "batch": self.options.batch,
            "machine": machine_words(first),
        }
        return self.stages.run(
            name,
            key,
            lambda: time_networks(
                folders,
                images,
                batch=self.options.batch,
                device=first.device,
                stop=self.stop,
                progress=self.progress,
            ),
        )

    def int8(
        self, answer: Answer, rows: list[Record], contexts: dict[str, TrialContext]
    ) -> Int8Files | None:
        """What makes the recommended network's int8 files; None where none are asked for."""
        if not self.options.int8:
            return None
        backbone = next(row["backbone"] for row in rows if row["name"] == answer.name)
        return Int8Files(self.stages, self.options, contexts[backbone], self.stop, self.progress)

    def finish(
        self, answer: Answer, rows: list[Record], contexts: dict[str, TrialContext]
    ) -> Record:
        """Test the recommended network, this once, and write it with its exports."""
        row = next(row for row in rows if row["name"] == answer.name)
        whole = row.get("made_from", row["name"])
        context = contexts[row["backbone"]]
        folder = Place(self.out, whole).folder
        recovery = recovery_of(context, self.options)
        refit = Refit(row, folder, recovery, self.store, self.kept, self.stop, self.progress)
        return export_recommended(
            Place(self.out, row["name"]).folder,
            folder,
            context,
            self.stages,
            {name: row[name] for name in ("name", "correct", "tensors")},
            refit=refit if self.options.refit == "all" else None,
            stop=self.stop,
            progress=self.progress,
        )


def _better(points: list[Record], tuned: Record, controls: Mapping[str, Correct]) -> Record:
    """Of a network fine-tuned and with the probe as its head the better one by the estimate."""
    own = next(
        row for row in points if row["kind"] == "probe" and row["backbone"] == tuned["backbone"]
    )
    control = controls[tuned["backbone"]]
    # The first of equals.
    return max(tuned, own, key=lambda row: Judged(answers(row), control).accuracy)


def _recommend(
    rows: list[Record],
    timing: Record,
    options: FrontierOptions,
    context: TrialContext,
    controls: Mapping[str, Correct],
) -> Answer:
    networks = [
        Network(
            row["name"],
            megabytes(row),
            timing["ms"][row["name"]]["median"],
            answers(row),
            controls[row["backbone"]],
        )
        for row in rows
    ]
    limits = Limits(options.max_mb, options.max_ms, options.max_loss)
    return recommend_network(networks, limits, *_groups(context))


def _groups(context: TrialContext) -> Groups:
    """The groups of the validation images, and of the training images, then these."""
    train, val = (context.dataset.side_groups(side) for side in ("train", "val"))
    return val, None if train is None or val is None else (*train, *val)
