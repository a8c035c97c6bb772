"""The directory of a study over several networks: whose it is, and with which configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.directories import INSTEAD
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.paths import FACES
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.records.kinds import STUDY_SCHEMA, odd_keys
from secateurs.study.records.study_directory import read_study
from secateurs.study.setup.config import StudyConfig, difference
from secateurs.study.setup.trial_context import TrialContext

KIND = "frontier"


def check_configuration(out: Path, config: StudyConfig, options: FrontierOptions) -> None:
    """Refuse another configuration before anything long begins."""
    if not (out / "study.json").exists():
        return
    found = read_study(out)
    asked: Any = found.get(KIND)
    if asked is None:
        raise InputError(
            f"{out}: holds a study of one network (of an earlier version, or with --layers); "
            f"{INSTEAD}"
        )
    mine = config.to_json() | options.to_json()
    # A study of before there was one of these goes on with what is asked for now.
    later = {name: getattr(options, name) for name in ("refit", "int8", "earlier_depths")}
    differs = difference(found["config"] | later | asked, mine)
    if differs:
        raise InputError(f"{out}: holds a study with another configuration: {differs}; {INSTEAD}")


def claim(
    out: Path,
    config: StudyConfig,
    options: FrontierOptions,
    contexts: tuple[TrialContext, ...],
    data: str,
) -> None:
    """Mark a new directory as this study's, or check that it holds the same images."""
    identity = contexts[0].dataset.identity()
    path = out / "study.json"
    if not path.exists():
        mine = {
            "schema": STUDY_SCHEMA,
            "config": config.to_json(),
            KIND: options.to_json(),
            "identity": identity,
            "data": data if data == FACES else str(Path(data).resolve()),
        }
        write_json(path, mine)
        return
    found = read_study(out)
    odd = odd_keys(found["identity"], identity)
    if odd:
        raise InputError(f"{out}: holds a study of other {' and '.join(odd)}; {INSTEAD}")
