"""An interrupt at any moment of a write by the pure core leaves no descriptor and no file."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="traces single instructions of CPython"
)


@pytest.fixture
def pure():
    return importlib.import_module("nfsdict._pure")


def descriptors():
    return set(os.listdir("/proc/self/fd"))


class Interrupt(BaseException):
    pass


def interrupted_at(nth, module, call):
    """Whether the call was interrupted, before its nth instruction in this module."""
    left = [nth]

    def trace(frame, event, argument):
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left[0] -= 1
            if left[0] == 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors by /proc")
@pytest.mark.parametrize("exclusive", [False, True], ids=["rename", "link"])
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("mode", [None, 0o666])
def test_nothing_is_left(pure, tmp_path, exclusive, durable, mode):
    target = tmp_path / "target"
    arguments = ([(str(target), b"content")], mode, durable, False, exclusive)
    nth = 0
    while True:
        nth += 1
        target.unlink(missing_ok=True)
        before = descriptors()
        interrupted = interrupted_at(nth, pure, lambda: pure.write_files(*arguments))
        assert descriptors() == before, nth
        assert [path.name for path in tmp_path.iterdir()] in ([], ["target"]), nth
        if target.exists():
            assert target.read_bytes() == b"content"
        if not interrupted:
            break
    assert target.exists() and nth > 50
