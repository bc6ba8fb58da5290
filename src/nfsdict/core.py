"""The core that runs: one of the twins ``nfsdict._core`` and ``nfsdict._pure``, and which."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from .backend import running

# Looked for, not tried: an extension that is there but can't be imported is an error to be seen.
BACKEND = running(extension_installed=find_spec("nfsdict._core") is not None)

if TYPE_CHECKING or BACKEND == "compiled":
    from ._core import (
        MISSING,
        SHA256_IMPLEMENTATION,
        ReadCache,
        digest,
        encode_table,
        list_directory,
        parse_table,
        read_files,
        read_stamps,
        split_values,
        value_path,
        write_file,
        write_files,
    )
else:
    from ._pure import (
        MISSING,
        SHA256_IMPLEMENTATION,
        ReadCache,
        digest,
        encode_table,
        list_directory,
        parse_table,
        read_files,
        read_stamps,
        split_values,
        value_path,
        write_file,
        write_files,
    )

__all__ = [
    "BACKEND",
    "MISSING",
    "SHA256_IMPLEMENTATION",
    "ReadCache",
    "digest",
    "encode_table",
    "list_directory",
    "parse_table",
    "read_files",
    "read_stamps",
    "split_values",
    "value_path",
    "write_file",
    "write_files",
]
