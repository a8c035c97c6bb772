"""A plugin of pytest: the processor time of each test, which a busy machine changes less than its
duration. `make test-times` prints it by folder, file and test.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

NUM_FILES, NUM_TESTS = 25, 40


def used_s() -> float:
    """Seconds of processor time that this process and its children that ended have taken."""
    return sum(os.times()[:4])


class ProcessorTime:
    """What was used since the last report is of the report's test, be it a fixture's or its own."""

    def __init__(self) -> None:
        self.last = used_s()
        self.outside = 0.0
        self.tests: Counter[str] = Counter()

    def since_last(self) -> float:
        before, self.last = self.last, used_s()
        return self.last - before

    def pytest_collection_finish(self) -> None:
        self.outside += self.since_last()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        report.processor_s = self.since_last()
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.tests[report.nodeid] += report.processor_s

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["outside_s"] = self.outside + self.since_last()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.outside += getattr(node, "workeroutput", {}).get("outside_s", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        folders: Counter[str] = Counter()
        files: Counter[str] = Counter()
        for test, seconds in self.tests.items():
            file = test.partition("::")[0]
            files[file] += seconds
            folders["/".join(Path(file).parent.parts[:2])] += seconds
        terminalreporter.section("processor time, s")
        inside = sum(self.tests.values())
        terminalreporter.write_line(
            f"{inside + self.outside:.1f} in all, {self.outside:.1f} of it for imports, "
            "collection and the end"
        )
        for counts, most in ((folders, None), (files, NUM_FILES), (self.tests, NUM_TESTS)):
            terminalreporter.write_line("")
            for name, seconds in counts.most_common(most):
                terminalreporter.write_line(f"{seconds:7.1f} {name}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ProcessorTime())
