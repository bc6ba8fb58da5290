"""The doctor on other file systems, with good options and bad: never OK where a promise fails."""

from __future__ import annotations

import os

import pytest

from lab.laboratory import Lab
from support.promises import broken_promises

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def check(lab: Lab, package, a, b) -> None:
    diagnosis = package.diagnose(lab.a)
    try:
        broken = broken_promises(a, b)
    except (OSError, AssertionError, package.NfsDictError) as error:
        broken = {repr(error)}
    print(*(one for one in diagnosis.findings if one.verdict != "OK"), sorted(broken), sep="\n")
    assert diagnosis.verdict != "OK" or not broken
    assert [name for name in os.listdir(lab.a) if name.startswith(".nfsdict-doctor")] == []


@pytest.mark.shared(timeout=400)
def test_mounted_as_it_should_be(lab: Lab, package, a, b) -> None:
    check(lab, package, a, b)


@pytest.mark.shared(server=("smb", "gluster", "sshfs"), options="", timeout=400)
def test_mounted_with_the_defaults(lab: Lab, package, a, b) -> None:
    check(lab, package, a, b)


@pytest.mark.shared(server="9p", options="cache=loose", timeout=400)
def test_mounted_with_a_cache(lab: Lab, package, a, b) -> None:
    check(lab, package, a, b)
