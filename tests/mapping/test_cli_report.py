"""`nfsdict report`: the page in a real browser, and the file that it is written to."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from support.browser import browser, look
from support.needed import needed
from support.processes import processes

HOSTILE = ["<script>document.title = 'run'</script>", "</svg></table>&amp;", "a\nb\x1b\udcff\u202e"]
PHONE, DESKTOP = 390, 1280


@pytest.fixture(autouse=True)
def libraries():
    needed("jinja2")
    needed("matplotlib")


@pytest.fixture
def command(package, tmp_path, capsysbinary):
    """Run the command over the test's store; its status, output and errors."""
    main = importlib.import_module("nfsdict.cli").main

    def run(*arguments):
        before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
        try:
            status = main(["report", "--base-dir", str(tmp_path), "s", *map(str, arguments)])
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        return status, *capsysbinary.readouterr()

    return run


@pytest.fixture
def store(package, tmp_path):
    """The test's store, with some entries."""
    d = package.NfsDict("s", tmp_path)
    d.update({f"key {number}": "x" * number**2 for number in range(300)})
    return d


@pytest.fixture
def few(package, monkeypatch):
    """Calls are timed a few times only."""
    monkeypatch.setattr(importlib.import_module("nfsdict.doctor.speed"), "_ROUNDS", 3)


def everything(path):
    return sorted(path.rglob("*"))


def test_a_browser_shows_text_and_plots_and_they_fit_a_phone(store, command, few, tmp_path):
    browser()
    for key in HOSTILE:
        store[key] = "x" * 200_000
    store["k" * 300] = "x" * 200_000
    store.pack()
    store.path_of("key 5").write_bytes(b"")
    store.path_of("key 6").with_name(".nfsdict-left").touch()
    with store.lease(HOSTILE[0]):
        assert command("-o", tmp_path / "page.html", "--verify")[0] == 0
    page = (tmp_path / "page.html").read_bytes()
    light = look(page, [320, PHONE, 768, DESKTOP], tmp_path)
    dark = look(page, [PHONE], tmp_path, dark=True)

    for seen in [*light, *dark]:
        assert (seen["wide"], seen["beyond"]) == (seen["width"], [])
        assert seen["faint"] == []
        assert seen["scripts"] == 0
        assert seen["small"] > 9.9
        assert Counter(seen["ids"]).most_common(1)[0][1] == 1
        assert seen["headings"] == [
            str(store.path),
            *("Sizes", "Ages", "Keys a shard", "Packs", "Latency", "Damage and leftovers"),
            *("Damaged files", "Largest values", "Leases"),
        ]
        for text in (
            "304",
            "the file is empty",
            *HOSTILE[:2],
            repr(HOSTILE[2]),
            "k" * 300,
            "put aside",
        ):
            assert text in seen["text"]
        assert len(seen["plots"]) == 6
        for plot in seen["plots"]:
            assert plot["width"] > 200 and plot["height"] > 50
            assert plot["shapes"] > 2
        drawn = {text for plot in seen["plots"] for text in plot["text"]}
        assert {"keys", "bytes", "store", "pack 1", "put", "cold get", "damaged"} <= drawn
    assert light[1]["width"] == PHONE
    assert light[1]["ground"] != dark[0]["ground"]


def test_the_browser_sees_what_is_wrong_with_a_page(tmp_path):
    """Else the test above proves nothing."""
    browser()
    wrong = b"""<!DOCTYPE html><body style="margin:0; background: rgb(0, 0, 0)"><p id="a">dark</p>
        <div id="a" style="width: 500px">.</div><script></script><svg><text>.</text></svg>"""
    [seen] = look(wrong, [PHONE], tmp_path)
    assert seen["wide"] == 500 > seen["width"]
    assert len(seen["beyond"]) == 1
    assert len(seen["faint"]) == 3
    assert (seen["scripts"], seen["plots"], seen["ids"]) == (1, [], ["a", "a"])


def test_the_page_loads_nothing(store, command, few):
    status, page, errors = command("-o", "-")
    assert (status, errors) == (0, b"")
    assert b"default-src 'none'" in page
    for what in (b"<script", b"<link", b"<img", b"@import", b"@font-face", b" src=", b"url(h"):
        assert what not in page


def test_an_empty_store(package, command, few, tmp_path):
    path = package.NfsDict("s", tmp_path).path
    status, page, errors = command("-o", "-")
    assert (status, errors) == (0, b"")
    assert str(path).encode() in page
    assert page.count(b"<svg") == 2  # latency and damage


def test_nothing_is_left_in_the_store(store, command, few, tmp_path):
    before = everything(store.path)
    assert command("-o", tmp_path / "page.html")[0] == 0
    assert everything(store.path) == before
    assert {one.name for one in tmp_path.iterdir()} == {"s", "page.html"}


def test_where_nothing_can_be_written_the_page_says_that_nothing_was_timed(
    store, command, monkeypatch
):
    def make(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.path)

    probes = importlib.import_module("nfsdict.storage.probes")
    monkeypatch.setattr(probes.PrivateDirectory, "make", make)
    status, page, _ = command("-o", "-")
    assert status == 0
    assert b"Read-only file system" in page
    assert page.count(b"<svg") == 4 + bool(list(store.path.glob("_*")))


def test_calls_are_pictured_without_a_local_disk_too(store, command, few, monkeypatch):
    def missing():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    speed = importlib.import_module("nfsdict.doctor.speed")
    monkeypatch.setattr(speed, "local_directory", missing)
    status, page, _ = command("-o", "-")
    assert status == 0
    assert page.count(b"<svg") == 5 + bool(list(store.path.glob("_*")))


def test_calls_that_fail_while_they_are_timed_leave_no_half_of_a_picture(
    store, command, few, monkeypatch
):
    stores = importlib.import_module("nfsdict.doctor.stores")

    class Full(stores.Store):
        def add(self, *_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stores, "Store", Full)
    before = everything(store.path)
    status, page, _ = command("-o", "-")
    assert status == 0
    assert b"No space left on device" in page
    assert b'<figure id="latency"' not in page
    assert everything(store.path) == before


def test_any_times_and_sizes_can_be_drawn(store, command, tmp_path):
    files = sorted(store.path.glob("??/*.pkl"))
    for file, time in zip(files, (0, -(10**9), 2**32, 2**33 - 1)):
        os.utime(file, (time, time))
    files[0].write_bytes(b"")
    os.truncate(files[1], 2**40)
    status, page, _ = command("-o", "-", "--no-latency")
    assert status == 0
    assert b"1 TiB" in page


def test_one_value_is_drawn(package, command, tmp_path):
    package.NfsDict("s", tmp_path)["k"] = 1
    status, page, _ = command("-o", "-", "--no-latency")
    assert (status, page.count(b"<svg") >= 4) == (0, True)


def test_without_latency_nothing_is_written(store, command, tmp_path):
    before = [(file, file.stat().st_mtime_ns) for file in [store.path, *everything(store.path)]]
    assert b"not asked for" in command("-o", "-", "--no-latency")[1]
    assert [(file, file.stat().st_mtime_ns) for file, _ in before] == before


def test_the_file_is_replaced_as_a_whole_or_not_at_all(store, command, tmp_path, monkeypatch):
    output = tmp_path / "page.html"
    output.write_text("before")
    link = tmp_path / "link.html"
    link.symlink_to(output)
    facts = importlib.import_module("nfsdict.upkeep.report.facts")
    with monkeypatch.context() as patch:
        patch.setattr(facts, "stats", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command("-o", link, "--no-latency")
    assert output.read_text() == "before"
    assert command("-o", link, "--no-latency")[0] == 0
    assert output.read_text().endswith("</html>")
    assert link.is_symlink()
    assert output.stat().st_mode & 0o777 == 0o644
    assert {one.name for one in tmp_path.iterdir()} == {"s", "page.html", "link.html"}


def test_a_pipe_is_written_to(store, command, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert command("-o", pipe, "--no-latency")[0] == 0
    reader.join()
    assert read[0].endswith(b"</html>")
    assert pipe.is_fifo()


def run(start, tmp_path, *arguments, **options):
    command = [sys.executable, "-m", "nfsdict", "report", "s", "--base-dir", tmp_path]
    return start([*command, *arguments], **options)


def test_a_user_without_a_home_gets_the_page_in_silence(store, tmp_path):
    """matplotlib would keep caches there."""
    nowhere = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), "/proc/nowhere")
    with processes() as start:
        process = run(start, tmp_path, "-o", "-", "--no-latency", env={**os.environ, **nowhere})
        page, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")
    assert page.endswith(b"</html>")


@pytest.mark.parametrize("output", ["/dev/full", "no/such/directory/page.html", "s"])
def test_a_file_that_cannot_be_written_is_an_error(store, tmp_path, output):
    with processes() as start:
        process = run(start, tmp_path, "-o", tmp_path / output, "--no-latency")
        printed, errors = process.communicate(timeout=120)
    assert (process.returncode, printed) == (2, b"")
    assert errors.startswith(b"nfsdict: ") and errors.count(b"\n") == 1, errors


def test_a_signal_leaves_nothing(store, tmp_path):
    """It is sent while calls are timed, as the private directory shows."""
    before = everything(store.path)
    with processes() as start:
        process = run(start, tmp_path, "-o", tmp_path / "page.html")
        while not list(store.path.glob(".nfsdict-doctor-*")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert everything(store.path) == before
    assert {one.name for one in tmp_path.iterdir()} == {"s"}


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named(store, command, monkeypatch, missing):
    for name in list(sys.modules):
        if name.startswith("nfsdict.upkeep.report"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    status, output, errors = command("-o", "-")
    assert (status, output) == (2, b"")
    assert missing.encode() in errors and b"pip install 'nfsdict[report]'" in errors


def test_no_such_store(package, tmp_path):
    with processes() as start:
        process = run(start, tmp_path, "-o", tmp_path / "page.html")
        errors = process.communicate(timeout=120)[1]
    assert os.fsencode(tmp_path / "s") in errors and errors.count(b"\n") == 1
    assert process.returncode == 2
    assert list(tmp_path.iterdir()) == []


@given(some.lists(some.integers(-(2**63), 2**63 - 1)), some.integers(2, 50))
def test_a_histogram_counts_all_in_few_bins(numbers, most):
    facts = importlib.import_module("nfsdict.upkeep.report.facts")
    histogram = facts.Histogram(1000)
    for number in numbers:
        histogram.add([number])
    bins = histogram.bins(most)
    assert len(bins) <= most + 1
    for (start, count), (end, _) in zip(bins, bins[1:]):
        assert count == sum(start <= number < end for number in numbers)
    assert sum(count for _, count in bins) == len(numbers)


def test_a_histogram_of_many_numbers_is_small():
    facts = importlib.import_module("nfsdict.upkeep.report.facts")
    histogram = facts.Histogram(1)
    for number in range(0, 10**7, 100):
        histogram.add([number**2])
    assert len(histogram._counts) <= 4096
    assert sum(count for _, count in histogram.bins(100)) == 10**5
