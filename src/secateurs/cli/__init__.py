"""The command line: one file per command. Heavy imports wait until a command runs."""

from secateurs.cli.app import main

__all__ = ["main"]
