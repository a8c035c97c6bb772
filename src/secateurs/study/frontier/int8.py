"""The int8 file of the recommended network: whether to deploy it, and the file that ships.

Whether it may be recommended is decided on the network before its last training, where validation
images say something about accuracy: the int8 file of its point must be as good as its float32
network, and as the best one, by rule 3 of `recommendation`, and ONNX Runtime must not take clearly
longer for it than for float32 (`slower`). The file that ships is then made in the same way from the
network after its last training. It is run on the test images once; on validation images, which were
trained on by then, only its agreement with float32 is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import secateurs
from secateurs.errors import InputError
from secateurs.extras import installed, needs_words
from secateurs.files import sha256_file
from secateurs.fit.metrics import evaluate
from secateurs.progress import Progress
from secateurs.ship.checkpoint import load
from secateurs.ship.export import onnx_obstacle
from secateurs.ship.int8.agreement import agreement
from secateurs.ship.int8.int8_candidates import Settings
from secateurs.ship.int8.processor import int8_support
from secateurs.ship.latency import LARGE_BATCH, spread
from secateurs.stopping import StopFlag
from secateurs.study.frontier.estimate import Correct, Judged, compare
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.points import Place, answers
from secateurs.study.frontier.recommendation import Answer, as_good
from secateurs.study.saved.quantizing import (
    CPU,
    Quantized,
    file_logits,
    file_times,
    quantize_network,
)
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.stages import FILES, Stages, machine_words

Record = dict[str, Any]
Groups = tuple[Sequence[str] | None, Sequence[str] | None]  # of validation images, and of all
FILE = "int8.onnx"  # in a network's folder
SHIPPED = f"model/{FILE}"
CALIBRATION = 32  # training images
CALIBRATORS = ("mean min-max",)  # each more takes as long as a third of the rest
BUDGET_S = 2.0  # of a timing
SLOWER = 1.25  # ratio of times; with instructions for int8 some 0.5, without them 1.5 and more
LONGER_MS = 1.0  # what nobody waits for: a clock that decided on less would decide by chance
FORMAT = 4  # of what a stage writes


@dataclass(frozen=True)
class Int8Files:
    """Makes the int8 files of a study, each once, as stages; `context` is that of the network."""

    stages: Stages
    options: FrontierOptions
    context: TrialContext
    stop: StopFlag
    progress: Progress

    def judge(
        self,
        answer: Answer,
        rows: Sequence[Record],
        controls: Mapping[str, Correct],
        groups: Groups,
    ) -> Record:
        """The recommended network's int8 file, and whether it may be recommended too.

        `rows` are the points that were made. With "reason", and no file, where there is none.
        """
        part: Record = {"networks": [], "recommended": None, "shipped": None}
        if not installed("onnx"):
            return part | {"reason": needs_words("onnx", "an int8 file")}
        by_name = {row["name"]: row for row in rows}
        row = by_name[answer.name]
        try:
            made = self._file(row)
        except (InputError, RuntimeError) as error:  # a layer that cannot be quantized, say
            made = _none(row, str(error).splitlines()[0])
        part |= {"networks": [made], "reason": made.get("reason")}
        if "reason" in made:
            return part
        own = Judged(answers(made), controls[row["backbone"]])
        gaps = {
            key: compare(own, Judged(answers(other), controls[other["backbone"]]), *groups)
            for key, other in (("to_float32", row), ("to_best", by_name[answer.best]))
        }
        part["networks"] = [made | {key: asdict(gap) for key, gap in gaps.items()}]
        good = all(as_good(gap, self.options.max_loss) for gap in gaps.values())
        if good and not slower(made):
            part["recommended"] = made["name"]
        return part

    def ship(self, part: Record, *, trained: bool) -> Record:
        """The part of results.json with the file that ships, if one is recommended, and words.

        It is made from the network in `model/`; `trained` says that this one had a last training.
        """
        path = self.stages.root / SHIPPED
        if part["recommended"] is None:
            path.unlink(missing_ok=True)
        else:
            try:
                shipped = self._shipped(part["networks"][0], path)
                part = part | {"shipped": shipped | {"trained": trained}}
            except (InputError, RuntimeError) as error:
                path.unlink(missing_ok=True)
                part = part | {"recommended": None, "reason": str(error).splitlines()[0]}
        return part | {"sentences": int8_sentences(part)}

    def _file(self, row: Record) -> Record:
        """The int8 file of a point: accuracy, agreement, bytes and times."""
        place = Place(self.stages.root, row["name"])
        path = place.folder / FILE
        loaded = load(place.folder)
        obstacle = onnx_obstacle(loaded.model)
        if obstacle is not None:
            path.unlink(missing_ok=True)
            return _none(row, obstacle)

        def make() -> Record:
            with tempfile.TemporaryDirectory() as folder:
                made = quantize_network(
                    loaded,
                    self.context.dataset,
                    path,
                    Path(folder) / "float32.onnx",
                    method="compensated",
                    wanted=0.0,  # looking for sensitive layers takes minutes: `export --int8`
                    calibrators=CALIBRATORS,
                    num_calibration=CALIBRATION,
                    seed=self.context.config.seed,
                    stop=self.stop,
                    progress=self.progress,
                )
                record = self._measured(made)
            labels = torch.from_numpy(self.context.dataset.sides["val"].labels)
            dataset = self.context.dataset
            groups = dataset.side_groups("val")
            found = evaluate(made.int8_logits, labels, dataset.classes, groups)
            right = made.int8_logits.argmax(1) == labels
            return record | {
                "name": f"{row['name']}-int8",
                "made_from": row["name"],
                "backbone": row["backbone"],
                "val": found.to_json(),
                "correct": "".join("01"[int(one)] for one in right),
            }

        key = self._key(row["tensors"])
        return self.stages.run(f"{row['name']}.int8", key, make, makes=(path,))

    def _shipped(self, row: Record, path: Path) -> Record:
        """The file that ships, made as the point's was, with its accuracy on the test images."""
        folder, float32 = path.parent, self.stages.root / FILES["onnx"]
        settings = Settings.of(row["int8"]["chosen"])

        def make() -> Record:
            dataset = self.context.dataset
            made = quantize_network(
                load(folder),
                dataset,
                path,
                float32,
                method="compensated",
                wanted=0.0,
                settings=settings,
                num_calibration=CALIBRATION,
                seed=self.context.config.seed,
                stop=self.stop,
                progress=self.progress,
            )
            record = self._measured(made)
            labels = torch.from_numpy(dataset.sides["test"].labels)
            logits, groups = file_logits(path, dataset, "test"), dataset.side_groups("test")
            test = evaluate(logits, labels, dataset.classes, groups)
            return record | {"test": test.to_json()}

        key = self._key(sha256_file(self.stages.root / FILES["tensors"])) | asdict(settings)
        return self.stages.run("int8", key, make, makes=(path,))

    def _key(self, tensors: str) -> Record:
        return {
            "tensors": tensors,
            "batch": self.options.batch,
            "calibration": [CALIBRATION, *CALIBRATORS],
            "machine": machine_words(self.context),
            "version": secateurs.__version__,
            "format": FORMAT,
        }

    def _measured(self, made: Quantized) -> Record:
        """What is kept of any int8 file: how it was made, agreement, bytes, times."""
        self.stop.check()
        batch = self.options.batch
        by_batch = file_times(
            {"float32": made.float32, "int8": made.int8.path},
            self.context.dataset.sides["val"].eval_views(slice(0, LARGE_BATCH), CPU),
            batches=(batch,),
            budget_s=BUDGET_S,
            progress=self.progress,
        )
        times = next(iter(by_batch.values()))
        ratios = [own / other for own, other in zip(times["int8"], times["float32"], strict=True)]
        file = made.int8.path.relative_to(self.stages.root).as_posix()
        close = agreement(made.int8_logits.numpy(), made.float_logits.numpy())
        return {
            "file": file,
            "agreement": close.share,
            "divergence": close.divergence,
            "num_bytes": made.int8.num_bytes,
            "sha256": sha256_file(made.int8.path),
            "float32_bytes": made.float32.stat().st_size,
            "ms": {name: asdict(spread(values)) for name, values in times.items()},
            "time_ratio": asdict(spread(ratios)),
            "int8": made.int8.to_json() | {"path": file},
            "processor": int8_support().sentence,
        }


def _none(row: Record, reason: str) -> Record:
    """What is kept of a network without an int8 file."""
    return {
        "name": f"{row['name']}-int8",
        "made_from": row["name"],
        "reason": reason,
        "timing": {"seconds": 0.0},
    }


def slower(row: Record) -> bool:
    """Whether ONNX Runtime takes clearly longer for an int8 file than for its float32 file.

    Both are timed in every round. It is slower when it takes more than 25% longer in three of four
    rounds, and over a millisecond: smaller differences change from one measurement to the next, and
    would make the same study recommend another file.

    >>> times = {"int8": {"median": 6.5}, "float32": {"median": 5.0}}
    >>> slower({"ms": times, "time_ratio": {"p25": 1.05, "median": 1.3, "p75": 1.5}})
    False
    >>> slower({"ms": times, "time_ratio": {"p25": 1.28, "median": 1.3, "p75": 1.5}})
    True
    """
    longer = row["ms"]["int8"]["median"] - row["ms"]["float32"]["median"]
    return row["time_ratio"]["p25"] > SLOWER and longer > LONGER_MS


def int8_sentences(part: Record) -> list[str]:
    """What the int8 file is worth, in words.

    >>> int8_sentences({"networks": [], "shipped": None, "reason": "it needs onnx"})
    ['No int8 file: it needs onnx.']
    """
    lines: list[str] = []
    for row in part["networks"]:
        if "reason" in row:
            continue
        gap = row["to_float32"]
        lines.append(
            f"{row['made_from']} in int8: {row['val']['accuracy']:.1%} on validation, "
            f"{100 * gap['difference']:+.1f} points to float32 adjusted by cross-validation "
            f"(95% {100 * gap['low']:+.1f} to {100 * gap['high']:+.1f}), "
            f"{row['agreement']:.1%} of the answers as in float32, "
            f"{row['num_bytes'] / 1e6:.2f} MB instead of {row['float32_bytes'] / 1e6:.2f} MB, "
            f"{_ratio(row):.0%} of the time of float32 in ONNX Runtime."
        )
        if slower(row):
            lines.append(
                f"It takes more than {SLOWER - 1:.0%} and {LONGER_MS:g} ms longer here, so it is "
                f"not recommended. {row['processor']}."
            )
    if part["reason"] is not None:
        lines.append(f"No int8 file: {part['reason']}.")
    elif part["shipped"] is None and not any(map(slower, part["networks"])):
        lines.append("No int8 file is recommended: by the rules it is not as good as float32.")
    if part["shipped"] is not None:
        lines.append(_deployed(part["shipped"]))
    return lines


def _deployed(row: Record) -> str:
    made = "made in the same way after the last training, " if row["trained"] else ""
    return (
        f"With ONNX Runtime deploy {row['file']}: {made}{row['num_bytes'] / 1e6:.2f} MB, "
        f"{_ratio(row):.0%} of the time of float32, {row['agreement']:.1%} of the answers on "
        f"validation images as in float32, {row['test']['accuracy']:.1%} on the test images."
    )


def _ratio(row: Record) -> float:
    return row["ms"]["int8"]["median"] / row["ms"]["float32"]["median"]
