"""The doctor on other file systems, with good options and bad: never OK where a promise fails."""

from __future__ import annotations

import os

import pytest

from lab.laboratory import Lab
from support.promises import broken_promises

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


# Room and speed are the machine's, and there is always little room here.
SECTIONS = ("mount", "semantics", "peer")


def warned_by(diagnosis) -> set[str]:
    """The sections that tell of a broken promise: by FAIL, or of a mount whose options aren't shown
    by WARN. The verdict of all, and any other WARN, say nothing of promises."""
    found = [one for one in diagnosis.findings if one.section in SECTIONS and one.verdict != "OK"]
    print(*found, sep="\n")
    [mount] = [one.figures for one in diagnosis.findings if one.probe == "file system"]
    hidden = {"mount"} if mount["type"].startswith("fuse.") else set()
    return {one.section for one in found if one.verdict == "FAIL" or one.section in hidden}


def check(lab: Lab, package, a, b) -> set[str]:
    """The doctor warns if a promise is seen broken. The sections in which it does."""
    warned = warned_by(package.diagnose(lab.a))
    try:
        broken = broken_promises(a, b)
    except (OSError, AssertionError, package.NfsDictError) as error:
        broken = {repr(error)}
    print(sorted(warned), sorted(broken))
    assert warned or not broken
    assert [name for name in os.listdir(lab.a) if name.startswith(".nfsdict-doctor")] == []
    return warned


@pytest.mark.shared(timeout=400)
def test_mounted_as_it_should_be(lab: Lab, package, a, b) -> None:
    check(lab, package, a, b)


# Of these it is known that a promise is broken, whether it shows this time or not.


@pytest.mark.shared(server=("smb", "gluster", "sshfs"), options="", timeout=400)
def test_mounted_with_the_defaults(lab: Lab, package, a, b) -> None:
    assert "mount" in check(lab, package, a, b)


@pytest.mark.shared(server="9p", options="cache=loose", timeout=400)
def test_mounted_with_a_cache(lab: Lab, package, a, b) -> None:
    assert "mount" in check(lab, package, a, b)
