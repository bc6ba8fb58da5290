"""The pytest plugin inside the guest: runs the tests it is told to and writes down each report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


class Inside:
    """Runs the tests that `tests` in the run directory names, in that order."""

    def __init__(self, config: pytest.Config, directory: Path) -> None:
        self._config = config
        self._tests = json.loads((directory / "tests").read_text())
        self._events = directory / "events"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        collected = {item.nodeid: item for item in items}
        items[:] = [collected[name] for name in self._tests if name in collected]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write({"event": "start", "test": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._write({"event": "report", "test": report.nodeid, "report": data})

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write({"event": "finish", "test": nodeid})

    def _write(self, event: dict[str, Any]) -> None:
        # The host sees a line at once only when hostfs was told to write it through.
        with self._events.open("a") as file:
            file.write(json.dumps(event, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())
