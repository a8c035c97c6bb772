"""The program `secateurs`: its commands, its errors and its exit codes.

Heavy imports wait until a command runs.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import Annotated, NoReturn

import typer

from secateurs import __version__
from secateurs.cli.audit import audit
from secateurs.cli.evaluate import evaluate
from secateurs.cli.explore import explore
from secateurs.cli.export import export
from secateurs.cli.faces import faces
from secateurs.cli.grid import grid
from secateurs.cli.insight.compare import compare
from secateurs.cli.insight.probe import probe
from secateurs.cli.insight.show import show
from secateurs.cli.insight.trust import trust
from secateurs.cli.paper import paper
from secateurs.cli.parsing.command import Command, Group
from secateurs.cli.parsing.shared import with_shared_options
from secateurs.cli.predict import predict
from secateurs.cli.prune import prune
from secateurs.cli.report import report
from secateurs.cli.results import results
from secateurs.cli.search import search
from secateurs.cli.serve import serve
from secateurs.cli.study import study
from secateurs.cli.sweep import sweep
from secateurs.cli.train import train
from secateurs.errors import FULL, UNUSABLE, InputError
from secateurs.native_stderr import asked_of, give_stderr_back, leave_stderr_to_us, print_end
from secateurs.stopping import StopRequested, exit_code, interrupted_by_signals

SPINS = "10000"  # turns that a thread waits before it sleeps, some 0.2 milliseconds

app = typer.Typer(
    name="secateurs",
    cls=Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Fine-tune pretrained image classifiers on your images, prune them, and export small, "
    "fast models with a report of their accuracy.",
)
PANELS = {
    "Start here": (audit, show, probe, study),
    "Train": (sweep, search, train),
    "Prune": (prune, grid, explore),
    "Use a model": (evaluate, trust, compare, predict, export, serve),
    "Results": (report, results),
    "More": (paper, faces),
}


def _print_version(requested: bool) -> None:
    if requested:
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


for _panel, _commands in PANELS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_panel)(with_shared_options(_command))


def _one_line(text: str) -> str:
    # Wide and narrow spaces stay as they are: they may be part of a file's name.
    from secateurs.data.names import printable

    return printable(re.sub(r"[ \t\r\n]+", " ", text).strip())


RESUMED = ("study", "probe", "sweep", "search", "train", "paper", "prune")
TYPERS_INTERRUPT = 130  # what typer makes of every KeyboardInterrupt, whichever signal it was


def _disk_problem(error: OSError) -> str | None:
    """What is wrong with a disk or a path; None for an error of another kind."""
    again = "finished parts are kept: make room and run the same command again"
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.EFBIG:
        return f"a file is larger than the disk or a limit allows{where}; {again}"
    if error.errno in FULL:
        return f"the disk is full{where}; {again}"
    # Without a file name it is an error of something else, such as a socket.
    if error.errno in {*UNUSABLE, errno.ENOENT} and error.filename:
        return f"{error.filename}: cannot be used ({error.strerror})"
    return None


def wait_briefly() -> None:
    """Have threads of PyTorch that wait for each other sleep after a fraction of a millisecond.

    Its OpenMP library lets them spin for milliseconds, which takes the processor from the thread
    that they wait for as soon as other programs run. A choice in the environment stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def main() -> None:
    """Run the command line: one line and exit code 2 for bad input, 130 or 143 when stopped."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding does not have is escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    wait_briefly()  # read when PyTorch is imported
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
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        reason = _disk_problem(error)
        if reason is None:
            give_stderr_back()
            raise
        end("error", reason)
    except StopRequested:
        again = "; run the same command again to resume" if words[0] in RESUMED else ""
        end("stopped", f"stopped{again}")
    except (KeyboardInterrupt, typer.Abort):
        end("stopped", "interrupted")
    except Exception:
        give_stderr_back()  # a bug, whose traceback has to be seen
        raise
    sys.exit(code if isinstance(code, int) else 0)
