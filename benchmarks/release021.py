"""Release 0.2.1 under a name of its own, beside the nfsdict that is installed.

Both are called ``nfsdict``, so pip puts the old one into a folder that is on no path, and it
is loaded from there by file. The folder is kept in the user's cache directory.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from platformdirs import user_cache_dir

VERSION = "0.2.1"
NAME = "nfsdict_release_021"


def load() -> ModuleType:
    """The module of release 0.2.1, downloaded from PyPI by pip if it is not there yet."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    folder = Path(user_cache_dir("nfsdict-benchmarks")) / VERSION
    source = folder / "nfsdict.py"
    if not source.exists():
        requirement = f"nfsdict=={VERSION}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), requirement], check=True)
    spec = importlib.util.spec_from_file_location(NAME, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module
