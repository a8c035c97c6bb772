"""The command line: words to functions. Heavy imports wait until a command runs.

Commands with many options are in files of their own: typer reads options off a signature, so that
each stands there once a command.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from secateurs import __version__
from secateurs.cli.explore import explore
from secateurs.cli.grid import grid
from secateurs.cli.model import evaluate, export, predict, prune
from secateurs.cli.options import (
    AsJson,
    Cache,
    Data,
    GroupBy,
    ProgressMode,
    Quiet,
    Seed,
    Strict,
    within,
)
from secateurs.cli.paper import paper
from secateurs.cli.results import results
from secateurs.cli.search import search
from secateurs.cli.session import session_of
from secateurs.cli.study import study, train
from secateurs.cli.sweep import sweep
from secateurs.errors import FULL, UNUSABLE, InputError
from secateurs.limits import LIMITS
from secateurs.native_stderr import asked_of, give_stderr_back, leave_stderr_to_us, print_end
from secateurs.paths import existing_directory, output_directory, output_file
from secateurs.stopping import StopRequested, exit_code, interrupted_by_signals

app = typer.Typer(
    name="secateurs",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Find how many layers of a pretrained network to fine-tune on your images, remove the "
    "neurons that say the same as others, and ship a small, measured classifier.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"secateurs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


for _command in (
    study,
    sweep,
    search,
    train,
    evaluate,
    prune,
    grid,
    explore,
    export,
    predict,
    paper,
    results,
):
    app.command()(_command)


@app.command()
def audit(
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Also split: auto, random, ungrouped, paper or folders. [default: folders where "
            "the tree has train and test folders]",
        ),
    ] = None,
    group_by: GroupBy = None,
    seed: Seed = 0,
    strict: Strict = False,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Check a folder of images: unusable files, duplicates, labels that disagree, leakage."""
    from secateurs.study.audit_summary import audit_data, audit_words

    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    found = audit_data(
        data,
        split=split,
        group_by=group_by,
        seed=seed,
        cache=session.cache,
        progress=session.progress,
    )
    session.answer(found, audit_words(found))
    if strict and found["findings"]:
        raise InputError(f"{data}: the audit has findings, and --strict makes them an error")


@app.command()
def faces(
    out: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A new or empty folder.", callback=output_directory),
    ],
    seed: Annotated[
        int, typer.Option(help="Seed of the scenes.", callback=within(LIMITS["seed"]))
    ] = 0,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Write the embedded set of 675 rendered faces as an ordinary folder of images."""
    from secateurs.data.faces.dataset import write_faces

    print(
        write_faces(
            out, seed=seed, progress=session_of(None, quiet=quiet, progress=progress).progress
        )
    )


@app.command()
def report(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A study's directory.", callback=existing_directory),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="[default: DIR/report.html]", callback=output_file
        ),
    ] = None,
) -> None:
    """Write a study's report, and its model's card, again from its results.json; or a run's page.

    A run of the paper has a paper.json and its page beside it.
    """
    from secateurs.shape import made_of

    if out is None and (directory / "paper.json").exists():
        from secateurs.report.paper.page import load_paper, write_paper_page

        with made_of(directory / "paper.json"):
            page = write_paper_page(load_paper(directory), directory)
        print(page)
        return
    from secateurs.report.study.card import write_card
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import load_results

    results = load_results(directory)
    with made_of(directory / "results.json"):
        if results["pruned"]:
            write_card(results, directory)
        page = write_report(results, directory, out)
    print(page)


def _one_line(text: str) -> str:
    # Wide and narrow spaces stay as they are: they may be part of a file's name.
    from secateurs.data.names import printable

    return printable(re.sub(r"[ \t\r\n]+", " ", text).strip())


TYPERS_INTERRUPT = 130  # what typer makes of every KeyboardInterrupt, whichever signal it was


def _disk_words(error: OSError) -> str | None:
    """What is wrong with a disk or a place on it; None where that is not what an error is about."""
    again = "what was finished is kept: make room and run the same command again"
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.EFBIG:
        return f"a file is larger than the disk or a limit allows{where}; {again}"
    if error.errno in FULL:
        return f"the disk is full{where}; {again}"
    # One that has no file's name is of something else, such as a socket.
    if error.errno in {*UNUSABLE, errno.ENOENT} and error.filename:
        return f"{error.filename}: cannot be used ({error.strerror})"
    return None


def main() -> None:
    """Run the command line: one line and exit code 2 for bad input, 130 or 143 when stopped."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding does not have is escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] or ["--help"]
    progress = asked_of(words)
    if progress:
        leave_stderr_to_us()

    def end(event: str, text: str) -> NoReturn:
        print_end(_one_line(text), event=event, progress=progress)
        sys.exit(2 if event == "error" else exit_code())

    try:
        with interrupted_by_signals():
            code = app(words, prog_name="secateurs", standalone_mode=False)
        if code == TYPERS_INTERRUPT:
            raise KeyboardInterrupt
    except (InputError, typer.TyperException) as error:
        text = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        end("error", text)
    except BrokenPipeError:  # whoever reads the answers has enough of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        reason = _disk_words(error)
        if reason is None:
            give_stderr_back()
            raise
        end("error", reason)
    except StopRequested:
        end("stopped", "stopped; run the same command again to go on")
    except (KeyboardInterrupt, typer.Abort):
        end("stopped", "interrupted")
    except Exception:
        give_stderr_back()  # a mistake of ours, to be seen
        raise
    sys.exit(code if isinstance(code, int) else 0)
