"""The pruned networks of a frontier: each size is a stage, made here or by an executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import secateurs
from secateurs.progress import Progress
from secateurs.stopping import StopFlag
from secateurs.study.frontier.arms import Arm
from secateurs.study.frontier.elsewhere import PrunedSize, prune_over
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.points import Place, Record, is_whole, megabytes, point_name
from secateurs.study.frontier.shrink import Shrinking, sizes_of
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.stages import Stages
from secateurs.study.trials.task import Executor


@dataclass(frozen=True)
class Sizes:
    """Prunes networks of a study to the sizes that its options ask for; each size is done once.

    `time` is the stage that times some points together, by its name.
    """

    out: Path
    options: FrontierOptions
    stages: Stages
    time: Callable[[str, list[Record], dict[str, TrialContext]], Record]
    stop: StopFlag
    progress: Progress

    def rows(self, arm: Arm, unpruned: Record) -> list[Record]:
        """A network pruned to each size; recovery trains all of it, since all of it was changed."""
        options, backbone = self.options, arm.context.config.backbone
        network = Shrinking(
            arm.context,
            Place(self.out, unpruned["name"]).folder,
            num_images=options.calibration,
            reconstruction=options.reconstruction,
            stop=self.stop,
            progress=self.progress,
        )
        rows: list[Record] = []
        for wanted in self.wanted(arm, unpruned):
            self.stop.check()

            def make(wanted: PrunedSize = wanted) -> Record:
                size = wanted.size
                self.progress.note(f"pruning {backbone} to {size.words}")
                with self.progress.task(f"pruning to {size.short}", 1) as advance:
                    row = network.to(size, wanted.place, wanted.recovery)
                    advance(1)
                return row | {"made_from": unpruned["name"]}

            rows.append(self._whole_row(wanted, _key(wanted, unpruned), make))
        return rows

    def prune_elsewhere(self, bases: list[tuple[Arm, Record]], executor: Executor) -> None:
        """Have the executor prune to the sizes that are missing.

        Sizes of a time are not: times of different machines cannot be compared, and other tasks
        would disturb them.
        """
        missing: dict[str, tuple[PrunedSize, Record]] = {}
        for arm, unpruned in bases:
            for wanted in self.wanted(arm, unpruned):
                row = self.stages.stored(wanted.place.name, _key(wanted, unpruned))
                if not _timed(wanted) and (row is None or not _is_good(wanted, row)):
                    missing[wanted.place.name] = wanted, unpruned
        with self.progress.task("pruned networks", len(missing)) as advance:
            for wanted, row in prune_over(
                executor,
                [wanted for wanted, _ in missing.values()],
                stop=self.stop,
                progress=self.progress,
            ):
                unpruned = missing[wanted.place.name][1]
                row["made_from"] = unpruned["name"]
                self.stages.forget(wanted.place.name)
                self._whole_row(wanted, _key(wanted, unpruned), lambda row=row: row)
                self.progress.note(f"{wanted.name}: pruned on {row['timing']['node']}")
                advance(1)

    def wanted(self, arm: Arm, unpruned: Record) -> list[PrunedSize]:
        """The sizes to which a network is pruned."""
        options, backbone = self.options, arm.context.config.backbone
        ms = 0.0
        if options.max_ms is not None:
            timing = self.time(f"time-{unpruned['name']}", [unpruned], {backbone: arm.context})
            ms = timing["ms"][unpruned["name"]]["median"]
        sizes = sizes_of(
            options.sizes,
            mb=megabytes(unpruned),
            num_parameters=unpruned["cost"]["num_parameters"],
            ms=ms,
            max_mb=options.max_mb,
            max_ms=options.max_ms,
            batch=options.batch,
        )
        recovery = recovery_of(arm.context, options)
        return [
            PrunedSize(
                arm.context,
                Place(self.out, unpruned["name"]),
                Place(self.out, point_name(backbone, size.ending)),
                size,
                recovery,
                options.calibration,
                options.reconstruction,
            )
            for size in sizes
        ]

    def _whole_row(self, wanted: PrunedSize, key: Record, make: Callable[[], Record]) -> Record:
        """The row of a point that may have no network, made again when its network is not whole.

        One that could not be made is tried again by another version, and where it was timed: what
        was measured then may be met now.
        """
        name, tried = wanted.place.name, list[Record]()

        def noted() -> Record:
            row = make()
            if "reason" in row:
                row["version"] = secateurs.__version__
            tried.append(row)
            return row

        row = self.stages.run(name, key, noted)
        if tried or _is_good(wanted, row):
            return row
        self.stages.forget(name)
        return self.stages.run(name, key, noted)


def _key(wanted: PrunedSize, unpruned: Record) -> Record:
    """What decides the numbers of a pruned network."""
    return {
        "unpruned": {name: unpruned[name] for name in ("name", "correct", "tensors")},
        "budget": asdict(wanted.size.budget),
        "calibration": wanted.calibration,
        "reconstruction": wanted.reconstruction,
        "recovery": asdict(wanted.recovery),
    }


def _timed(wanted: PrunedSize) -> bool:
    return wanted.size.budget.latency is not None


def _is_good(wanted: PrunedSize, row: Record) -> bool:
    """Whether a stored row stands: its network is whole, or it cannot be made by this version."""
    if "reason" in row:
        return not _timed(wanted) and row.get("version") == secateurs.__version__
    return is_whole(wanted.place, row)


def recovery_of(context: TrialContext, options: FrontierOptions) -> RecoveryOptions:
    """How the pruned networks of a study are trained on."""
    config = context.config
    return RecoveryOptions(epochs=options.recover, views=config.views or 6).settled(config)
