"""The trials of a study that are missing, run by an executor; who wants them gets each as it ends.

The driver alone writes into the study's directory, whole files only. Trials that another driver is
at are waited for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace

import torch

from secateurs.files import write_text
from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.records.checksummed import write_sealed
from secateurs.study.setup.trial_context import TrialContext, seeded_model
from secateurs.study.trials.package import Package, Packer
from secateurs.study.trials.store import WAIT_S, Store
from secateurs.study.trials.task import Answer, Executor, Record, Task, Tensors
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial, shared_prefix, trial_key

Wanted = tuple[TrialContext, Trial]


@dataclass(frozen=True)
class Finished:
    """A trial that has a record: its place among those wanted, and whether it ran just now.

    `network` gives what was trained where this driver had it trained, once; None when it is lost.
    """

    index: int
    record: Record
    fresh: bool
    network: Callable[[], torch.nn.Module | None] = lambda: None


def finished_trials(
    wanted: Sequence[Wanted],
    store: Store,
    *,
    prefix_cache: PrefixCache,
    executor: Executor | None = None,
    packer: Packer | None = None,
    shared: SharedInputs | None = None,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> Generator[Finished]:
    """Every wanted trial as soon as it has a record; those without one run.

    In this process, one after the other, unless there is an `executor`; `packer` and
    `shared` remember what was packed and computed for earlier calls. Several drivers may do so
    in one directory: each takes trials that no other is at, and waits for those in the end. Raises
    StopRequested between two steps when asked to; what was done is kept.
    """
    if executor is None:
        shared = shared or SharedInputs(prefix_cache, progress=progress)
        yield from _here(wanted, store, shared, stop=stop, progress=progress)
    elif wanted:
        packer = packer or Packer(wanted[0][0].cache / "contents")
        cache_bytes = prefix_cache.budget_bytes
        elsewhere = _Elsewhere(wanted, store, executor, packer, cache_bytes, stop, progress)
        yield from elsewhere.finished()


def _here(
    wanted: Sequence[Wanted],
    store: Store,
    shared: SharedInputs,
    *,
    stop: StopFlag,
    progress: Progress,
) -> Generator[Finished]:
    missing = list(enumerate(wanted))
    while missing:
        left: list[tuple[int, Wanted]] = []
        for index, (context, trial) in missing:
            stop.check()
            key = trial_key(context, trial)
            record, model = store.read(key), None
            if record is None:
                with store.claim(key) as mine:
                    # Another process may have ended it between the look and the claim.
                    record = store.read(key) if mine else None
                    if mine and record is None:
                        record, model = run_trial(
                            context, trial, shared, store, stop=stop, progress=progress
                        )
            if record is None:
                left.append((index, (context, trial)))
                continue
            yield Finished(index, record, model is not None, lambda model=model: model)
        if len(left) == len(missing):
            time.sleep(WAIT_S)
        missing = left


class _Elsewhere:
    """The driver of trials that run elsewhere."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        store: Store,
        executor: Executor,
        packer: Packer,
        cache_bytes: int,
        stop: StopFlag,
        progress: Progress,
    ) -> None:
        self.store, self.executor, self.stop, self.progress = store, executor, stop, progress
        self.packer, self.cache_bytes = packer, cache_bytes
        self.given = wanted
        self.wanted = [(on_cards(context, executor), trial) for context, trial in wanted]
        self.left: dict[str, list[int]] = {}  # two of them may be the same trial
        for index, (context, trial) in enumerate(self.wanted):
            self.left.setdefault(trial_key(context, trial), []).append(index)
        self._found: list[Finished] = []
        self._claims: dict[str, ExitStack] = {}
        self._packages: dict[int, Package] = {}
        self._prefixes = self._shared_prefixes() if executor.passes_outputs else {}
        self._ranks: dict[str, int] = {}  # the place of a trial among those of its prefix
        seen = Counter[str]()
        for key, prefix in self._prefixes.items():
            self._ranks[key] = seen[prefix]
            seen[prefix] += 1

    def finished(self) -> Generator[Finished]:
        """Each trial as it ends, here or at another driver."""
        try:
            while self.left:
                before = len(self.left)
                running = self.executor.run(self._free(), stop=self.stop, progress=self.progress)
                with closing(running):  # its tasks end before others may claim them
                    for task, answer in running:
                        yield from self._taken()
                        yield self._written(task.key, answer)
                        answer.drop()  # unless it has just been used
                yield from self._taken()
                self.stop.check()
                if len(self.left) == before:
                    time.sleep(WAIT_S)
        finally:
            for claim in self._claims.values():
                claim.close()

    def _taken(self) -> Generator[Finished]:
        while self._found:
            yield self._found.pop(0)

    def _free(self) -> Generator[Task]:
        """The tasks of trials that nobody is at, claimed one by one as there is room for them."""
        # One trial of each prefix first: it computes what the others are given.
        for key in sorted(self.left, key=lambda key: self._ranks.get(key, 0)):
            if self._known(key):
                continue
            claim = ExitStack()
            if not claim.enter_context(self.store.claim(key)) or self._known(key):
                claim.close()
                continue
            self._claims[key] = claim
            yield self._task(key, self.left[key][0])

    def _known(self, key: str) -> bool:
        record = self.store.read(key)
        if record is not None:
            self._found += [Finished(one, record, fresh=False) for one in self.left.pop(key)]
        return record is not None

    def _task(self, key: str, index: int) -> Task:
        context, trial = self.wanted[index]
        package, function = self._package(context), "secateurs.study.trials.worker"
        words = {
            "package": package.plain,
            "trial": asdict(trial),
            "cache_bytes": self.cache_bytes,
        }
        prefix = self._prefixes.get(key)
        outputs = None
        if prefix is not None:
            name = f"{context.config.backbone}, {trial.depth} frozen layers"
            outputs = Task(prefix, name, f"{function}:frozen_outputs", words, package.files)
        state = self.store.state(key)
        mine = words | {"key": key, "state": str(state), "resume": None}
        task = Task(key, trial.name, f"{function}:train", mine, package.files, outputs, state)
        return task if self.executor.sees_states else task.going_on()

    def _shared_prefixes(self) -> dict[str, str]:
        """What names the frozen layers of each trial that shares them with another one."""
        bare: dict[tuple[str, int], torch.nn.Module] = {}
        found: dict[str, str] = {}
        for key, (index, *_) in self.left.items():
            if self.store.record(key).exists():
                continue
            context, trial = self.wanted[index]
            kind = (context.config.backbone, len(context.dataset.classes))
            if kind not in bare:
                bare[kind] = seeded_model(*kind, seed=0)
            prefix = shared_prefix(context, trial, bare[kind])
            if prefix is not None:
                found[key] = prefix
        counts = Counter(found.values())
        return {key: prefix for key, prefix in found.items() if counts[prefix] > 1}

    def _package(self, context: TrialContext) -> Package:
        if id(context) not in self._packages:  # `wanted` keeps them all alive
            self._packages[id(context)] = self.packer.pack(context)
        return self._packages[id(context)]

    def _written(self, key: str, answer: Answer) -> Finished:
        index, *same = self.left.pop(key)
        context, trial = self.given[index]
        record = answer.record
        assert record["key"] == key, "a worker makes of a package what it was made of"
        record["timing"] |= answer.place.to_json()
        write_text(self.store.log(key), "\n".join(answer.log) + "\n")
        write_sealed(self.store.record(key), record)
        self.store.state(key).unlink(missing_ok=True)
        self._claims.pop(key).close()
        self._found += [Finished(one, record, fresh=False) for one in same]

        def network() -> torch.nn.Module | None:
            tensors = answer.tensors()
            return None if tensors is None else network_from(context, trial, tensors)

        return Finished(index, record, True, network)


def on_cards(context: TrialContext, executor: Executor) -> TrialContext:
    """The context with its trials on cards, where the executor gives them some and we have none."""
    wants = context.config.device in ("auto", "cuda") and executor.resources.gpus > 0
    if not wants or context.device.type == "cuda":
        return context
    return replace(context, device=torch.device("cuda"))


def network_from(context: TrialContext, trial: Trial, tensors: Tensors) -> torch.nn.Module:
    """A network that was trained elsewhere: what training left as it was is built again."""
    seed = context.config.seed + trial.run
    model = context.new_model(seed=seed, pretrained=trial.pretrained)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and len(missing) + len(tensors) == len(model.state_dict())
    return model.eval()
