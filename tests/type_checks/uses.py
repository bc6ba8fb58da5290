"""Typical uses, as type checkers see them: not run, but checked by mypy and pyright.

What is wrong use is marked as an error to be ignored, and an unneeded mark is an error itself.
"""

from __future__ import annotations

import pickle
from datetime import datetime
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import nfsdict
from nfsdict import NfsDict


class Vectors:
    """A serializer of one's own."""

    extension = ".vec"

    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


def opening() -> None:
    assert_type(NfsDict("x"), NfsDict[Any])
    d = NfsDict("x", "/shared", "json", True, mode=0o660, workers=1)
    assert_type(d, NfsDict[Any])
    typed: NfsDict[int] = NfsDict(Path("x"), Path("~/y"), serializer=Vectors())
    assert_type(typed, NfsDict[int])
    NfsDict("x", serializer=nfsdict.signed("bytes", key=b""))
    NfsDict("x", serializer=nfsdict.signed(Vectors(), key=b""))
    NfsDict("x", serializer=nfsdict.json_format(indent=2, sort_keys=True))
    NfsDict("x", serializer="buffers")
    NfsDict("x", serializer=nfsdict.signed(nfsdict.buffers("zstd"), key=b""))
    NfsDict("x", serializer="yaml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    NfsDict("x", serializer=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    NfsDict("x", mode="660")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nfsdict.signed("x", key=b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def reading(d: NfsDict[int]) -> None:
    assert_type(d["k"], int)
    assert_type(d.get("k"), "int | None")
    assert_type(d.get("k", None), "int | None")
    assert_type(d.get("k", 5), int)
    assert_type(d.get("k", "none"), "int | str")
    assert_type(d.get("k", fresh=True), "int | None")
    assert_type(d.get("k", 5, fresh=True), int)
    assert_type("k" in d, bool)
    assert_type(list(d), list[str])
    assert_type(list(d.values()), list[int])
    assert_type(list(d.items()), list[tuple[str, int]])
    assert_type(d.wait_for("k"), int)
    d[5]  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    d.get(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def writing(d: NfsDict[int]) -> None:
    d["k"] = 5
    d["k"] = "text"  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    assert_type(d.add("k", 5), bool)
    assert_type(d.pop("k"), int)
    assert_type(d.pop("k", 5), int)
    assert_type(d.pop("k", None), "int | None")
    assert_type(d.popitem(), tuple[str, int])
    assert_type(d.setdefault("k", 5), int)
    d.setdefault("k", "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    d.update({"k": 5})
    d.update([("k", 5)], other=6)
    d.update(d, k=5)
    d.update(k=5)
    d |= {"k": 5}
    d |= [("k", 5)]
    d.update({"k": "text"})  # type: ignore[dict-item]  # pyright: ignore[reportCallIssue, reportArgumentType]
    d.update({5: 5})  # type: ignore[dict-item]  # pyright: ignore[reportCallIssue, reportArgumentType]
    d.update(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    d.update(k="text")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


class Results(NfsDict[float]):
    """A dictionary of one's own."""


def whole() -> None:
    with Results("x") as results:
        assert_type(results, Results)
    with NfsDict("x") as d:
        assert_type(d, NfsDict[Any])
        d["k"] = [1, "any"]
        d.update(a=1, b="x")
    assert_type(d.refresh(), set[str])
    assert_type(next(d.watch()), set[str])
    for keys in NfsDict("x", refresh_every=5).watch(interval=0.5):
        assert_type(keys, set[str])
    assert_type(d.verify(), nfsdict.VerifyReport)
    assert_type(d.repair(), nfsdict.RepairReport)
    assert_type(d.pack(), nfsdict.PackReport)


def looking(d: NfsDict[int]) -> None:
    info = d.info("k")
    assert_type(info, nfsdict.EntryInfo)
    assert_type(info.key, str)
    assert_type(info.path, Path)
    assert_type(info.size, int)
    assert_type(info.modified, datetime)
    assert_type(info.packed, bool)
    assert_type(list(d.infos("run/")), list[nfsdict.EntryInfo])
    assert_type(d.path_of("k"), Path)
    d.infos(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def failing(d: NfsDict[int]) -> None:
    try:
        d["k"]
    except nfsdict.CorruptValueError as error:
        assert_type(error.key, "str | None")
    except nfsdict.WrongSerializerError as error:
        assert_type(error.found, dict[str, int])
    except nfsdict.BatchError as error:
        assert_type(error.failed, dict[str, OSError])


def working(d: NfsDict[int]) -> None:
    task = d.claim(60.0, max_attempts=1)
    assert_type(task, "nfsdict.Task[int] | None")
    if task is not None:
        with task:
            assert_type(task.key, str)
            assert_type(task.value, int)
            assert_type(task.lease, nfsdict.Lease)
    assert_type(d.failed(), list[str])
    d.retry("k")
    d.retry(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def memoizing(d: NfsDict[Any]) -> None:
    @d.memoize()
    def train(rate: float, layers: int = 3) -> list[int]:
        return [layers]

    assert_type(train(0.1), list[int])
    assert_type(train.peek(0.1, layers=2), list[int])
    assert_type(train.refresh(rate=0.1), list[int])
    assert_type(train.cache_key(0.1), str)
    assert_type(train.cache_info().hits, int)
    train.put([1], 0.1)
    train.discard(0.1)
    train("fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    train.put("x", 0.1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nfsdict.register_key(Vectors, lambda vectors: vectors.extension)


async def memoizing_coroutines(d: NfsDict[Any]) -> None:
    @d.memoize("fetch", version=2, max_age=60.0)
    async def fetch(url: str) -> bytes:
        return url.encode()

    assert_type(await fetch("x"), bytes)
    assert_type(await fetch.peek("x"), bytes)
    assert_type(fetch.cache_key("x"), str)
    await fetch.put(b"", "x")
    await fetch.cache_clear()


class Trainer:
    store: NfsDict[Any] = NfsDict("x")

    @store.memoize(ignore=("self",))
    def train(self, rate: float) -> int:
        return 1


def memoized_methods(trainer: Trainer) -> None:
    assert_type(trainer.train(0.1), int)
    assert_type(Trainer.train.peek(trainer, 0.1), int)
    trainer.train("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
