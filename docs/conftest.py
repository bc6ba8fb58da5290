"""The code in these pages runs as it stands there.

A fenced block of Python is run; one of prompts is compared with what it prints. A block `console`
has commands after `$`, and what they print. All blocks of a page run in one process and one
directory, one after another. What can't be run here is passed over, by `<!--- skip: next -->`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from doctest import ELLIPSIS
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

# Complete programs, which tests of their own start, many at a time.
PROGRAMS = ["compute-once.md", "recipes-ecosystem.md", "optuna-joblib-asyncio.md"]


class ConsoleParser(CodeBlockParser):
    language = "console"

    def evaluate(self, example: Example) -> str | None:
        """What differs, if anything."""
        for part in f"\n{example.parsed}".split("\n$ ")[1:]:
            command, _, expected = part.partition("\n")
            done = subprocess.run(
                ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.stdout.strip() != expected.strip():
                return f"$ {command}\n{done.stdout}\ninstead of\n{expected}"
        return None


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Run in a directory that has an empty one, `shared`."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("page")
        (place / "shared").mkdir()
        patch.chdir(place)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONWARNINGS", "error")
        yield place


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), ConsoleParser(), SkipParser()],
    patterns=["*.md"],
    excludes=PROGRAMS,
    fixtures=["directory"],
).pytest()
