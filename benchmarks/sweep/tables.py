"""What `__main__.py` measured, put together: pieces to the whole sweep, and the tables."""

from __future__ import annotations

import statistics
from typing import Any

from loops import WAYS
from secateurs.fit.train import AUTOSAVE_S

RUNS, EPOCHS = 5, 50
CHECK_RUNS = 2

Row = dict[str, Any]


def rows(results: Row, kind: str, **wanted: Any) -> list[Row]:
    return [
        row
        for row in results["rows"]
        if row["kind"] == kind and all(row[name] == value for name, value in wanted.items())
    ]


def line(points: dict[int, float]) -> tuple[float, float]:
    """(seconds at no epoch, seconds an epoch) of the line through two measurements."""
    (first, low), (last, high) = sorted(points.items())
    slope = (high - low) / (last - first)
    return low - slope * first, slope


def pieces(results: Row, way: str, part: str, depth: int) -> Row | None:
    """Lines and costs of ours at a depth; None until they have been measured."""
    found = rows(results, "trial", way=way, part=part, depth=depth)
    if len(found) < 2:
        return None
    frozen, train = (
        line({row["epochs"]: row[name] for row in found}) for name in ("frozen_s", "train_s")
    )
    mean = {
        name: statistics.mean(row[name] for row in found)
        for name in ("frozen_s", "save_s", "autosave_s")
    }
    kept = max(row["kept_mib"] / (1 if banked(way) else row["epochs"]) for row in found)
    again = statistics.mean(row["again_s"] or 0.0 for row in found)
    return {"frozen": frozen, "train": train, **mean, "again_s": again, "kept_mib": kept}


def banked(way: str) -> bool:
    return "no bank" not in way


def autosaves(piece: Row, epochs: int) -> int:
    return int(max(piece["train"][0] + epochs * piece["train"][1], 0.0) // AUTOSAVE_S)


def our_seconds(piece: Row, way: str, *, runs: int, epochs: int) -> float:
    """F + runs x (T + W + A) of the head of this file, of one depth."""
    at_zero, an_epoch = piece["frozen"]
    frozen = runs * (at_zero + epochs * an_epoch)
    if banked(way):
        frozen = piece["frozen_s"] + (runs - 1) * piece["again_s"]
    train = piece["train"][0] + epochs * piece["train"][1]
    saving = piece["save_s"] + autosaves(piece, epochs) * piece["autosave_s"]
    return frozen + runs * (train + saving)


def depth_seconds(
    results: Row, way: str, part: str, depth: int, *, runs: int = RUNS, epochs: int = EPOCHS
) -> float | None:
    """Seconds of all trainings at a depth; None until it has been measured."""
    if way in WAYS:
        found = rows(results, "epochs", way=way, depth=depth)
        return runs * epochs * statistics.median(found[0]["seconds"]) if found else None
    piece = pieces(results, way, part, depth)
    return None if piece is None else our_seconds(piece, way, runs=runs, epochs=epochs)


def part_seconds(results: Row, way: str, part: str) -> float | None:
    """Seconds of the sweep over a part of the depths, opening the folder included."""
    each = [depth_seconds(results, way, part, depth) for depth in results["parts"][part]]
    opened = sum(row["seconds"] for row in rows(results, "open", way=way))
    known = [seconds for seconds in each if seconds is not None]
    return sum(known) + opened if len(known) == len(each) else None


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return [*("| " + " | ".join(cells) + " |" for cells in lines), ""]


def ratio(results: Row, of: str, to: str, part: str) -> float | None:
    slow, fast = part_seconds(results, of, part), part_seconds(results, to, part)
    return None if slow is None or fast is None else slow / fast


def depth_table(results: Row, ways: list[str]) -> list[str]:
    whole, num = next(iter(results["parts"])), RUNS * EPOCHS
    body: list[list[str]] = []
    for depth in results["parts"][whole]:
        seconds = [depth_seconds(results, way, whole, depth) for way in ways]
        body.append([str(depth), *(cell(s and s / num, ".2f") for s in seconds)])
    for part in results["parts"]:
        seconds = [part_seconds(results, way, part) for way in ways]
        body.append([f"{part}, hours", *(cell(s and s / 3600, ".2f") for s in seconds)])
        for of in (way for way in ways if way in WAYS):
            times = [cell(ratio(results, of, way, part), ".2f") for way in ways]
            body.append([f"{part}, {of} / this", *times])
    note = f"Seconds an epoch (ours: all its costs over {num} epochs), then the whole:"
    return [note, "", *table(["depth", *ways], body)]


def piece_table(results: Row, ours: list[str]) -> list[str]:
    head = ["way", "part", "depth", "frozen: first run", "other runs", "train: at 0 epochs"]
    head += ["an epoch", "write", "states", "kept MiB", f"{RUNS} x {EPOCHS} epochs"]
    body: list[list[str]] = []
    for way in ours:
        for part, depths in results["parts"].items():
            for depth in depths:
                piece = pieces(results, way, part, depth)
                if piece is None:
                    continue
                at_zero, an_epoch = piece["frozen"]
                each = at_zero + EPOCHS * an_epoch
                first = [piece["frozen_s"], piece["again_s"]] if banked(way) else [each, each]
                numbers = [*first, *piece["train"], piece["save_s"]]
                saves = f"{autosaves(piece, EPOCHS)} x {piece['autosave_s']:.2f}"
                kept = piece["kept_mib"] * (1 if banked(way) else EPOCHS)
                total = our_seconds(piece, way, runs=RUNS, epochs=EPOCHS)
                cells = [way, part, str(depth), *(f"{n:.3f}" for n in numbers)]
                body.append([*cells, saves, f"{kept:.0f}", f"{total:.1f}"])
    opened = [
        f"{way} {row['seconds']:.1f}" for way in ours for row in rows(results, "open", way=way)
    ]
    note = f"Ours in pieces, seconds ('frozen' without a bank at {EPOCHS} epochs):"
    return [note, "", *table(head, body), f"Opening the folder: {', '.join(opened)} s.", ""]


def target_table(results: Row, ours: list[str]) -> list[str]:
    body: list[list[str]] = []
    for part in results["parts"]:
        for way in ours:
            wanted = 2.5 if not banked(way) else 10 if part == "depths 5-7" else 3
            got = ratio(results, "plain", way, part)
            met = "-" if got is None else "yes" if got >= wanted else "no"
            body.append([part, way, f"{wanted:g}", cell(got, ".2f"), met])
    head = ["part", "way", "target, times", "came", "met"]
    return ["Against the plain loop:", "", *table(head, body)]


def memory_table(results: Row) -> list[str]:
    body: list[list[str]] = []
    for row in rows(results, "memory"):
        found = rows(results, "trial", way=row["way"])
        more = 0.0
        if found and not banked(row["way"]):
            more = max(t["kept_mib"] * (EPOCHS / t["epochs"] - 1) for t in found)
        numbers = [row["peak_mib"], row["worker_mib"], row["card_mib"], more or None]
        body.append([row["way"], *(cell(number, ".0f") for number in numbers)])
    head = ["way", "peak MiB", "largest worker", "on the card", "kept more at 50 epochs"]
    return ["Memory:", "", *table(head, body)]


def check_table(results: Row) -> list[str]:
    part = list(results["parts"])[-1]
    body: list[list[str]] = []
    for row in rows(results, "check"):
        each = [
            depth_seconds(results, row["way"], part, depth, runs=CHECK_RUNS, epochs=row["epochs"])
            for depth in results["parts"][part]
        ]
        known = [seconds for seconds in each if seconds is not None]
        if len(known) == len(each):
            predicted, took = sum(known), row["seconds"]
            times = took / predicted
            body.append([row["way"], f"{predicted:.1f}", f"{took:.1f}", f"{times:.2f}"])
    if not body:
        return []
    said = f"Run for real, {CHECK_RUNS} runs, {part}, {rows(results, 'check')[0]['epochs']} epochs:"
    return [said, "", *table(["way", "predicted s", "took s", "took / predicted"], body)]


def loading_table(results: Row) -> list[str]:
    found = rows(results, "loading")
    if not found:
        return []
    body = [
        [str(row["batch"]), str(row["workers"]), f"{row['data_s']:.2f}"]
        + [f"{seconds:.2f}" for seconds in row["epoch_s"].values()]
        for row in found
    ]
    depths = [f"plain, depth {depth}" for depth in found[0]["epoch_s"]]
    head = ["batch", "workers", "loading alone", *depths]
    return ["Ways to load, seconds an epoch:", "", *table(head, body)]


def markdown(results: Row) -> str:
    """All tables of what has been measured so far."""
    ways = list(dict.fromkeys(row["way"] for row in results["rows"] if "way" in row))
    ours = [way for way in ways if way not in WAYS]
    lines = [results["head"], ""]
    if ways:
        lines += depth_table(results, ways)
    if ours:
        lines += target_table(results, ours) + piece_table(results, ours)
    return "\n".join(
        lines + check_table(results) + memory_table(results) + loading_table(results)
    ).rstrip()
