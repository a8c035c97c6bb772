"""The audit of a folder as a command: what is in it, what is wrong, what a split would leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.data.audit import audit
from secateurs.data.names import escaped, printable
from secateurs.data.scan import scan
from secateurs.data.splits.split import leakage, split_json
from secateurs.errors import InputError
from secateurs.progress import SILENT, Progress
from secateurs.study.setup.splitting import data_folder, split_audit
from secateurs.wording import counted

SHOWN = 20


def audit_data(
    data: str,
    *,
    split: str | None = None,
    group_by: str | None = None,
    seed: int = 0,
    cache: Path,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """The audit of a folder as plain data; with `split` or `group_by`, that split and its leakage.

    A tree with train and test folders is split by them where nothing is asked for. Keys as under
    `data` in `docs/results.md`, and `split`, which is None without a split.
    """
    folder = data_folder(data, cache=cache, progress=progress)
    checked = audit(scan(folder, split=split or "auto"), cache=cache, progress=progress)
    found = checked.to_json() | {"name": escaped(folder.name), "split": None}
    asked = split is not None or group_by is not None
    try:
        if asked or checked.listing.sides:
            rule = split or "auto"
            made, groups = split_audit(checked, rule=rule, group_by=group_by, seed=seed)
            found["split"] = split_json(made, checked.listing) | {
                "num_groups": None if groups is None else len(set(groups)),
                "leakage": leakage(made, checked, groups).to_json(),
            }
    except InputError as error:
        if asked:
            raise
        progress.note(f"not split: {error}")
    return found


def audit_words(found: dict[str, Any]) -> str:
    """The audit for people: a few lines, each kind of finding with its files."""
    classes = ", ".join(
        f"{name} {num}" for name, num in zip(found["classes"], found["per_class"], strict=True)
    )
    height, width = found["height_px"], found["width_px"]
    lines = [
        f"{found['name']}: {counted(found['num_images'], 'image')} in "
        f"{counted(len(found['classes']), 'class', 'classes')}",
        f"  {classes}",
    ]
    if height["min"] is not None:  # at least one image can be used
        lines.append(f"  width {_range(width)} pixels, height {_range(height)}")
    lines += [f"! {sentence}" for sentence in found["findings"]] or ["no findings"]
    named = [f"{bad['name']}: {bad['reason']} ({bad['detail']})" for bad in found["bad"]]
    named += [f"{' = '.join(group)}: identical" for group in found["exact"]]
    named += [f"{' ~ '.join(pair)}: near duplicates" for pair in found["near"]]
    named += [f"{' / '.join(group)}: under several labels" for group in found["conflicts"]]
    lines += [f"  {line}" for line in named[:SHOWN]]
    if len(named) > SHOWN:
        lines.append(f"  and {len(named) - SHOWN} more (--json lists all)")
    if found["split"] is not None:
        lines += _split_words(found["split"])
    return "\n".join(map(printable, lines))


def _range(side: dict[str, Any]) -> str:
    low, high = side["min"], side["max"]
    return str(low) if low == high else f"{low} to {high}"


def _split_words(split: dict[str, Any]) -> list[str]:
    counts = " / ".join(f"{split['counts'][side]} {side}" for side in ("train", "val", "test"))
    leak = split["leakage"]
    lines = [f"split {split['rule']}: {counts}"]
    for key, words in (
        ("same_group", "share a group with a training image"),
        ("duplicate", "are identical to a training image"),
        ("near_duplicate", "are near duplicates of a training image"),
    ):
        if leak[key] is not None:
            lines.append(f"  {leak[key]} of {leak['num_test']} test images {words}")
    return lines
