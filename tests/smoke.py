"""Tries an installed nfsdict, with nothing else installed: ``python smoke.py compiled|pure``."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import nfsdict

READ_BACK = """
import sys, nfsdict
store = nfsdict.NfsDict("smoke", sys.argv[1])
assert dict(store) == {"a": [1, 2], "ä\\n\\0": b"bytes"}, dict(store)
assert nfsdict.BACKEND == sys.argv[2], nfsdict.BACKEND
"""


def check(holds: bool, promise: str) -> None:
    if not holds:
        raise SystemExit(f"smoke test failed: {promise}")


def main(backend: str) -> None:
    check(backend == nfsdict.BACKEND, f"the core is {backend}, not {nfsdict.BACKEND}")
    if backend == "compiled":
        file = importlib.import_module("nfsdict._core").__file__
        check(file is not None and not file.endswith(".py"), f"{file} is an extension")
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        check(gil is not bool(sysconfig.get_config_var("Py_GIL_DISABLED")), "the core needs no GIL")
    with tempfile.TemporaryDirectory() as directory:
        with nfsdict.NfsDict("smoke", directory) as store:
            store["a"] = [1]
            store["a"] = [1, 2]
            store["ä\n\0"] = b"bytes"
            store["gone"] = None
            del store["gone"]
            check("gone" not in store and len(store) == 2, "a deleted key is gone")
        files = [path for path in Path(directory).rglob("*.pkl") if path.name[0] != "_"]
        check(len(files) == 2, "each entry is one file")
        # Not from the checkout, should this be run in one.
        command = [sys.executable, "-c", READ_BACK, directory, backend]
        subprocess.run(command, check=True, cwd=directory, env=dict(os.environ, PYTHONUTF8="1"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"nfsdict {nfsdict.__version__}, {backend} core, {python}: works")


if __name__ == "__main__":
    main(sys.argv[1])
