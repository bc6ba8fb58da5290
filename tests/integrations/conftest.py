"""Which of these tests there are: those of packages that the extra ``test`` installs here."""

from __future__ import annotations

import sys

# The same condition as in pyproject.toml. Where it holds, a package that is missing is an error.
if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
    collect_ignore_glob = ["test_zarr*.py", "test_recipes*.py"]
