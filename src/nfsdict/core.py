"""The core: the functions of the twin that runs, ``nfsdict._core`` or ``nfsdict._pure``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from .backend import running

# Only looked for, not imported in a ``try``: if an installed extension can't be imported, the error
# must be seen.
BACKEND = running(extension_installed=find_spec("nfsdict._core") is not None)

if TYPE_CHECKING or BACKEND == "compiled":
    from ._core import (
        MISSING,
        SHA256_IMPLEMENTATION,
        ReadCache,
        aligned,
        crc32,
        digest,
        encode_table,
        identify,
        list_changes,
        list_directory,
        outlast,
        parse_table,
        prepare_files,
        publish_files,
        read_aligned,
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
        aligned,
        crc32,
        digest,
        encode_table,
        identify,
        list_changes,
        list_directory,
        outlast,
        parse_table,
        prepare_files,
        publish_files,
        read_aligned,
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
    "aligned",
    "crc32",
    "digest",
    "encode_table",
    "identify",
    "list_changes",
    "list_directory",
    "outlast",
    "parse_table",
    "prepare_files",
    "publish_files",
    "read_aligned",
    "read_files",
    "read_stamps",
    "split_values",
    "value_path",
    "write_file",
    "write_files",
]
