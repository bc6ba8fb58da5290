"""Builds the compiled core; all else about the package is in pyproject.toml."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

backend = runpy.run_path(str(Path(__file__).parent / "src" / "nfsdict" / "backend.py"))


class BuildCore(build_ext):
    """Says, where the core can't be compiled, how to do without it."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError) as error:
            raise CompileError(
                f"nfsdict's compiled core can't be built: {error}\n"
                "Install a C compiler and Python's headers, or set "
                f"{backend['VARIABLE']}=pure to install nfsdict without it; it is slower then."
            ) from error


def core() -> list[Extension]:
    """The extension, or none where none is expected."""
    if not backend["expects_extension"]():
        return []
    from Cython.Build import cythonize  # a requirement of the build on CPython alone

    extension = Extension(
        "nfsdict._core",
        sources=["_core/_core.pyx", "_core/crc32.c", "_core/files.c", "_core/sha256.c"],
        include_dirs=["_core"],
        depends=["_core/cached.h", "_core/crc32.h", "_core/files.h", "_core/sha256.h"],
        extra_compile_args=["-O3", "-pthread"],
        extra_link_args=["-pthread"],
    )
    modules: list[Extension] = cythonize(  # type: ignore[no-untyped-call]
        [extension],
        build_dir="build/cython",
        # Both would add names that the contract doesn't have.
        compiler_directives={"autotestdict": False, "auto_pickle": False},
    )
    return modules


setup(ext_modules=core(), cmdclass={"build_ext": BuildCore})
