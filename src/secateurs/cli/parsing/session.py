"""What every command needs beside its own options: progress, cache, configuration, answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.cli.options.output import SessionOptions
from secateurs.cli.parsing.command import RUN
from secateurs.cli.parsing.config_file import RECORD_KEY, RunConfig
from secateurs.directories import INSTEAD
from secateurs.errors import InputError
from secateurs.native_stderr import leave_stderr_to_us
from secateurs.progress import Console, Plain, Progress, Said, progress_of
from secateurs.stopping import StopFlag, StopRequested, stop_on_interrupt
from secateurs.terminal import fitted, same_stream

if TYPE_CHECKING:
    import typer

    from secateurs.study.setup.config import StudyConfig


@dataclass(frozen=True)
class Session:
    """What a command needs beside its own options."""

    progress: Progress
    cache: Path
    as_json: bool
    config: RunConfig | None = None

    @contextmanager
    def running(self, out: Path) -> Generator[StopFlag]:
        """Long work that writes into `out`, and can be stopped and resumed.

        The configuration is written once the work is done or stopped, never after bad input.
        """
        try:
            with stop_on_interrupt() as stop:
                yield stop
        except StopRequested:
            if out.is_dir():
                self.save_config(out)
            raise
        self.save_config(out)

    def check_earlier(self, out: Path, marker: str) -> None:
        """Refuse to replace the model of an earlier command with other options.

        `marker` is the file that such a command writes last. Raises InputError.
        """
        if self.config is None or not (out / marker).exists():
            return
        differs = self.config.differs_from(out)
        if differs:
            raise InputError(
                f"{out}: holds a model of another command: {', '.join(differs[:3])}; {INSTEAD}"
            )

    def save_config(self, out: Path) -> None:
        """Write the options that the command ran with to `out`/config.toml."""
        problem = None if self.config is None else self.config.save(out)
        if problem is not None:
            self.progress.note(problem)

    def keep(
        self, out: Path, name: str, record: dict[str, Any], *, sealed: bool = False
    ) -> dict[str, Any]:
        """Write config.toml into `out`, and its text into the record `out`/`name`.

        The page that is made from the record, there or elsewhere, shows it. `sealed` records have
        a checksum. Returns the record.
        """
        from secateurs.files import write_json
        from secateurs.study.records.checksummed import write_sealed

        self.save_config(out)
        kept = record | self._config_text(out)
        (write_sealed if sealed else write_json)(out / name, kept)
        return kept

    def with_config(self, value: dict[str, Any]) -> dict[str, Any]:
        """An answer with the configuration; its paths are relative to the working folder."""
        return value if RECORD_KEY in value else value | self._config_text(Path.cwd())

    def _config_text(self, folder: Path) -> dict[str, str]:
        if self.config is None:
            return {}
        try:
            return {RECORD_KEY: self.config.text(folder)}
        except ValueError:  # a path that TOML cannot hold
            return {}

    def answer(self, value: dict[str, Any], text: str) -> None:
        """Print the answer on stdout, for machines (with the configuration) or for people."""
        from secateurs.files import encodable

        if self.as_json:
            value = self.with_config(value)
            unicode = "utf" in (sys.stdout.encoding or "utf").lower()
            text = encodable(json.dumps(value, ensure_ascii=not unicode, allow_nan=False))
        else:
            if isinstance(self.progress, Said) and same_stream(sys.stdout, sys.stderr):
                text = self.progress.without_notes(text)
            text = fitted(text, sys.stdout)
        print(text)


def open_session(options: SessionOptions, context: typer.Context) -> Session:
    """The session of a command with all of these options."""
    return session_of(
        options.cache,
        as_json=options.as_json,
        quiet=options.quiet,
        progress=options.progress,
        context=context,
    )


def session_of(
    cache: Path | None,
    *,
    as_json: bool = False,
    quiet: bool = False,
    progress: str = "auto",
    context: typer.Context | None = None,
) -> Session:
    """The session that a command's options ask for.

    With `quiet` or progress "json" or "none" only lines of Secateurs are printed on stderr.
    """
    from secateurs.files import cache_dir

    chosen = progress_of(progress, quiet=quiet)
    if quiet or progress in ("json", "none"):
        leave_stderr_to_us()
    if isinstance(chosen, Console | Plain):
        chosen = Said(chosen)
    config = None if context is None else context.meta.get(RUN)
    return Session(chosen, cache or cache_dir(), as_json, config)


def config_of(preset: str = "quick", **options: Any) -> StudyConfig:
    """A preset's configuration with a command's options; lists are still text."""
    from secateurs.study.setup.config import from_preset, parse_keep

    if options.get("keep") is not None:
        options["keep"] = parse_keep(options["keep"])
    if options.get("layers") is not None:
        options["layers"] = layer_names(options["layers"])
    return from_preset(preset, **options)


def layer_names(layers: str) -> tuple[str, ...]:
    """Names of layers from text with commas.

    >>> layer_names("fc6, fc7")
    ('fc6', 'fc7')
    """
    return tuple(part.strip() for part in layers.split(","))
