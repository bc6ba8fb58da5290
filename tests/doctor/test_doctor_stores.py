"""The doctor's own stores: their mount is told of by the doctor, and the process's filters stay."""

from __future__ import annotations

import importlib
import threading
import warnings

import pytest


@pytest.fixture
def unsafe(nfsdict, monkeypatch):
    """Everything is mounted without fsync. Returns what is called whenever a mount is looked at."""
    mount = importlib.import_module("nfsdict.storage.mountinfo").Mount(
        "overlay", ("rw", "volatile")
    )
    calls: list = []

    def mount_of(path):
        for call in calls:
            call()
        return mount

    monkeypatch.setattr(importlib.import_module("nfsdict.storage.mounted"), "mount_of", mount_of)
    return calls


@pytest.fixture
def stores(nfsdict):
    return importlib.import_module("nfsdict.doctor.stores")


@pytest.mark.filterwarnings("error")
def test_others_are_warned_while_the_doctor_opens_its_own(nfsdict, stores, unsafe, tmp_path):
    opening, told = threading.Event(), threading.Event()

    def wait():
        if threading.current_thread() is examining:
            opening.set()
            assert told.wait(20)

    unsafe.append(wait)
    own: list = []
    examining = threading.Thread(target=lambda: own.append(stores.opened("own", str(tmp_path))))
    filters = list(warnings.filters)
    examining.start()
    try:
        assert opening.wait(20)
        with pytest.raises(nfsdict.UnsafeMountWarning):
            nfsdict.NfsDict("other", tmp_path)
    finally:
        told.set()
        examining.join()
    own[0]["key"] = 1
    assert warnings.filters == filters
