"""SMB as it is mounted by default: what holds there, and that openings warn of the rest."""

from __future__ import annotations

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
