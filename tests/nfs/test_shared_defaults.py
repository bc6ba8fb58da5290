"""SMB as it is mounted by default: what holds there, and that openings warn of the rest."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from lab.laboratory import Lab
from support.racing import SECONDS, race_setdefault

QUIET = pytest.mark.filterwarnings("ignore:.*is not safe with the options")


@pytest.mark.shared(server="smb", options="", timeout=SECONDS)
def test_openings_warn(lab: Lab) -> None:
    """Once in each process, so this is a new one."""
    opening = lab.spawn("import nfsdict, sys; nfsdict.NfsDict('store', sys.argv[1])", lab.a)
    _, errors = opening.communicate()
    assert opening.returncode == 0, errors
    assert "UnsafeMountWarning" in errors
    assert "Mount it with actimeo=0,closetimeo=0,nolease" in errors


@pytest.mark.shared(server="smb", timeout=SECONDS)
@pytest.mark.filterwarnings("error")
def test_with_the_options_that_are_named_they_do_not(lab: Lab, a) -> None:
    a()


@QUIET
@pytest.mark.shared(server="smb", options="", timeout=SECONDS)
def test_exactly_one_setdefault_sets_and_all_return_its_value(lab: Lab, tmp_path: Path) -> None:
    race_setdefault(lab, tmp_path)


def dropped(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    return path.read_bytes()


def direct(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:  # O_DIRECT wants whole pages
        size = os.readv(file, [buffer])
        os.close(file)
        return buffer[:size]


@pytest.mark.shared(server="smb", options="", timeout=SECONDS)
@pytest.mark.parametrize("again", [Path.read_bytes, dropped, direct])
def test_a_page_of_another_file_is_not_read_twice(lab: Lab, again) -> None:
    """The client gives the bytes of a removed file for a new one that has its inode's number. To
    open the new one once more is enough, as good as to drop its pages or to read past them."""
    wrong = 0
    for number in range(30):
        (lab.b / "removed").write_bytes(b"old %3d" % number)
        (lab.a / "removed").read_bytes()
        (lab.b / "removed").unlink()
        new = f"new {number}"
        (lab.b / new).write_bytes(b"new %3d" % number)
        wrong += (lab.a / new).read_bytes() != b"new %3d" % number
        assert again(lab.a / new) == b"new %3d" % number
    print(f"{wrong} of 30 had another file's bytes at first")
    assert wrong > 0
