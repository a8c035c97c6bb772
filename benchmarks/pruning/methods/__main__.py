"""Methods of others beside ours on the same groups, widths and images, before any label is used.

    python benchmarks/pruning/methods --networks resnet20,resnet32,vit --seeds 0,1,2,3,4 --json FILE
    python benchmarks/pruning/methods --networks mobilenet_v2 --data DIR --group-by REGEX \\
        --weights FILE --depth 35 --epochs 8 --json FILE

Each network is pruned to `--levels` of its multiply-accumulates. Ours finds the widths; the others
choose the units, or merge them, at the same widths, except isomorphic pruning, whose widths are its
own. Calibration images (`--images`) have no labels. Batch norm statistics are, for all, the nearer
of those kept and those measured again. Each network is measured as it is and after our
reconstruction of blocks. FILE keeps every figure, and is gone on from.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import choices  # noqa: E402
import refits  # noqa: E402
from cases import Case, cases  # noqa: E402

from networks import heading, spread  # noqa: E402
from secateurs.errors import InputError  # noqa: E402
from secateurs.files import read_json, write_json  # noqa: E402
from secateurs.prune.allocation.budget import Kept  # noqa: E402
from secateurs.prune.compensation.batch_norm import (  # noqa: E402
    change_of,
    outputs_of,
    settle_norms,
)
from secateurs.prune.reconstruction.options import ReconstructionOptions  # noqa: E402
from secateurs.prune.reconstruction.reconstruct import reconstruct  # noqa: E402
from secateurs.prune.to_budget import (  # noqa: E402
    Budget,
    Hooks,
    Surveyed,
    prune_surveyed,
    survey_network,
)

Row = dict[str, Any]
Made = tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]  # network, units that stay, merged


class Methods:
    """All methods on one network, with what they share."""

    def __init__(self, case: Case, surveyed: Surveyed) -> None:
        self.model, self.surveyed = surveyed.model, surveyed
        self.groups = [g for g in surveyed.groups.found if g.side("in") and g.side("out")]
        self.batches = case.calibration
        self.seen = refits.Received(self.model, refits.reader_paths(self.groups), self.batches)
        self.seed = case.seed
        self._scores: dict[str, choices.Scores] = {}

    def scores(self, by: str) -> choices.Scores:
        """Scores of all units, computed once."""
        if by not in self._scores:
            model, groups = self.model, self.groups
            makers: dict[str, Callable[[], choices.Scores]] = {
                "L1": lambda: choices.l1(model, groups),
                "L2": lambda: choices.l2(model, groups),
                "geometric median": lambda: choices.geometric_median(model, groups),
                "random": lambda: choices.chance(model, groups, seed=self.seed),
                "Taylor": lambda: choices.taylor(model, groups, self.batches),
                "OBSPA": lambda: refits.obspa_scores(model, groups, self.seen),
            }
            self._scores[by] = makers[by]()
        return self._scores[by]

    def units(self, by: str, kept: Kept) -> dict[str, Tensor]:
        """The units that stay."""
        cut = {g.name for g in self.groups if kept[g.name] < g.num_units}
        found = choices.survivors(self.scores(by), kept)
        return {name: units for name, units in found.items() if name in cut}

    def all(self, kept: Kept, macs: float) -> dict[str, Callable[[], Made]]:
        """Every method at these widths, by name."""
        model, groups, seen = self.model, self.groups, self.seen

        def refitted(by: str, refit: Callable[..., nn.Module], *more: Any) -> Callable[[], Made]:
            def make() -> Made:
                units = self.units(by, kept)
                return refit(model, groups, units, *more), units, ()

            return make

        def fold(with_grail: bool) -> Callable[[], Made]:
            def make() -> Made:
                assigned = refits.fold_clusters(model, groups, kept)
                found, units = refits.folded(model, groups, assigned, seen if with_grail else None)
                return found, units, tuple(units)

            return make

        def isomorphic() -> Made:
            own = self.isomorphic_kept(macs)
            units = self.units("L2", own)
            return refits.plain(model, groups, units), units, ()

        found: dict[str, Callable[[], Made]] = {
            by: refitted(by, refits.plain)
            for by in ("L1", "L2", "geometric median", "Taylor", "random")
        }
        found["isomorphic"] = isomorphic
        found["GRAIL on L2"] = refitted("L2", refits.grail, seen)
        found["GRAIL on folding"] = fold(True)
        found["folding with REPAIR"] = fold(False)
        found["Neuron Merging"] = refitted("L1", refits.neuron_merging)
        found["OBSPA"] = refitted("OBSPA", refits.obspa, seen)
        found["CORP"] = refitted("L2", refits.corp, seen)
        return found

    def isomorphic_kept(self, macs: float) -> Kept:
        """Isomorphic pruning's widths that come within a share of the multiply-accumulates."""
        low, high = 0.0, 1.0
        widths = self.surveyed.widths
        best = dict(widths.whole)
        for _ in range(12):
            share = (low + high) / 2
            found = choices.isomorphic_kept(self.model, self.groups, self.scores("L2"), share)
            kept = {**widths.whole, **found}
            if widths.fraction(widths.measured(kept)).macs <= macs:
                best, high = kept, share
            else:
                low = share
        return best


def measured(case: Case, surveyed: Surveyed, model: nn.Module) -> Row:
    """Accuracy, and the change of the outputs, on the test images."""
    answers = outputs_of(model, case.test)
    right = (answers.argmax(1) == case.labels).double().mean()
    return {
        "test": 100 * float(right),
        "change": change_of(answers, case.answers(surveyed.model)).relative,
        "macs": surveyed.widths.fraction(surveyed.widths.count(model)).macs,
    }


def run(
    case: Case, levels: Sequence[float], only: Sequence[str], keep: Callable[[Row], None]
) -> None:
    """Every method on one network at every level, with and without reconstruction."""
    surveyed = survey_network(
        case.model, case.calibration, case.held_out, Hooks(steps=case.steps), seed=case.seed
    )
    methods = Methods(case, surveyed)
    common = {"network": case.name, "seed": case.seed}
    keep({**common, "method": "unpruned", "level": 1.0, **measured(case, surveyed, case.model)})
    for level in levels:
        started = time.perf_counter()
        ours = prune_surveyed(surveyed, Budget(macs=level, round_to=1, fewest=2))
        seconds = time.perf_counter() - started + surveyed.seconds
        made: dict[str, Callable[[], Made]] = {
            "ours": lambda found=ours: (
                found.result.model,
                found.result.survivors,
                found.result.merged,
            ),
            **methods.all(ours.chosen.kept, level),
        }
        for name, make in made.items():
            if only and name not in only:
                continue
            started = time.perf_counter()
            try:
                model, units, merged = make()
            except (RuntimeError, AssertionError, ValueError) as error:
                keep({**common, "method": name, "level": level, "failed": str(error)[:200]})
                continue
            if name != "ours":
                settle_norms(model, surveyed.unpruned, case.held_out, case.calibration)
                seconds = time.perf_counter() - started
            row: Row = {**common, "method": name, "level": level, "reconstruction": False}
            keep({**row, "seconds": seconds, **measured(case, surveyed, model)})
            tuned, found = reconstruct(
                model,
                surveyed.model,
                surveyed.groups.found,
                units,
                case.calibration,
                case.held_out,
                # Blocks end where the channels of a fold cannot be compared with any before.
                merged=merged if name == "ours" else (),
                options=ReconstructionOptions(),
                seed=case.seed,
            )
            row |= {"reconstruction": True, "seconds": found.seconds}
            keep({**row, **measured(case, surveyed, tuned)})


def table(rows: Sequence[Row]) -> str:
    """Points of test accuracy lost, mean and 95% interval over seeds, one row per method."""
    lines: list[str] = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network and "test" in row]
        base = {row["seed"]: row["test"] for row in own if row["method"] == "unpruned"}
        levels = sorted({row["level"] for row in own if row["level"] < 1}, reverse=True)
        lines.append(f"\n{network}, unpruned {sum(base.values()) / len(base):.1f}%\n")
        lines.append("| method | reconstruction | " + " | ".join(f"{x:.0%}" for x in levels) + " |")
        lines.append("|---" * (2 + len(levels)) + "|")
        for method in dict.fromkeys(r["method"] for r in own if r["method"] != "unpruned"):
            for tuned in (False, True):
                cells: list[str] = []
                for level in levels:
                    lost = [
                        row["test"] - base[row["seed"]]
                        for row in own
                        if (row["method"], row["level"]) == (method, level)
                        and row["reconstruction"] == tuned
                    ]
                    cells.append(spread(lost) if lost else "")
                word = "yes" if tuned else ""
                lines.append(f"| {method} | {word} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    known = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known.add_argument("--networks", default="resnet20")
    known.add_argument("--seeds", default="0")
    known.add_argument("--levels", default="0.7,0.5,0.35,0.25")
    known.add_argument("--methods", default="", help="only these, with commas")
    known.add_argument("--images", type=int, default=256, help="for calibration")
    known.add_argument("--store", type=Path, default=Path("networks"))
    known.add_argument("--json", type=Path, required=True)
    known.add_argument("--data", help="folder of images, for networks of the library")
    known.add_argument("--group-by")
    known.add_argument("--weights", default="auto")
    known.add_argument("--depth", type=int, default=0)
    given = known.parse_args()
    print(heading(), flush=True)
    kept: list[Row] = read_json(given.json)["rows"] if given.json.exists() else []
    done = {(row["network"], row["seed"]) for row in kept if row.get("last")}

    for case in cases(given):
        if (case.name, case.seed) in done:
            continue
        rows: list[Row] = []

        def keep(row: Row, rows: list[Row] = rows) -> None:
            rows.append(row)
            print(json.dumps(row), flush=True)

        try:
            run(
                case,
                [float(part) for part in given.levels.split(",")],
                [part for part in given.methods.split(",") if part],
                keep,
            )
        except InputError as error:
            print(f"{case.name}: {error}", flush=True)
            continue
        rows[-1]["last"] = True  # the network is done
        kept += rows
        write_json(given.json, {"heading": heading(), "rows": kept})
    print(table(kept))


if __name__ == "__main__":
    main()
