"""Memoised functions: computed once by all callers, found again by all."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import pickle
import subprocess
import sys
import threading

import pytest

from support.forks import forking, in_child


@pytest.fixture
def d(opened):
    return opened()


class Counted:
    """A function that counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, p=2):
        self.calls.append((x, p))
        return x * p


@pytest.fixture
def counted():
    return Counted()


def of(counted):
    def f(x, p=2):
        """Multiply."""
        return counted(x, p)

    return f


def test_a_result_is_computed_once(opened, d, counted):
    f = d.memoize("f")(of(counted))
    assert f(3) == f(3, 2) == f(x=3, p=2) == 6
    assert f(3, 3) == 9
    other = opened().memoize("f")(of(counted))
    assert other(3) == 6
    assert counted.calls == [(3, 2), (3, 3)]
    assert f.cache_info() == (2, 2, 0, 0) and other.cache_info() == (1, 0, 0, 0)
    assert sorted(d.values()) == [6, 9]


def test_none_is_a_result(d):
    calls = []
    f = d.memoize("f")(lambda x: calls.append(x))
    assert f(1) is None and f(1) is None
    assert calls == [1]


def test_it_looks_like_the_function(d, counted):
    f = of(counted)
    g = d.memoize("f")(f)
    assert (g.__name__, g.__doc__, g.__wrapped__) == ("f", "Multiply.", f)
    assert inspect.signature(g) == inspect.signature(f)
    with pytest.raises(TypeError, match="parentheses"):
        d.memoize(of(counted))
    with pytest.raises(TypeError, match="generator"):
        d.memoize("f")(lambda: (yield))


def module_level(x):
    return x + 1


def test_memoised_functions_of_a_module_are_pickled_by_name(d, monkeypatch):
    memoised = d.memoize()(module_level)
    monkeypatch.setitem(globals(), "module_level", memoised)
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))
    assert pickle.loads(pickle.dumps(memoised)) is memoised


def test_exceptions_are_not_kept(d):
    results = iter([ValueError("no"), 5])

    def f():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    f = d.memoize("f")(f)
    with pytest.raises(ValueError, match="no"):
        f()
    assert f.cache_info().errors == 1 and len(d) == 0
    assert f() == 5
    assert f.cache_info() == (0, 1, 0, 1)


def test_what_a_function_gets(opened, d, counted):
    f = d.memoize("f", version=3)(of(counted))
    key = f.cache_key(1, p=4)
    assert key.startswith("f/3/") and key == f.cache_key(x=1, p=4)
    with pytest.raises(KeyError):
        f.peek(1, p=4)
    f.put("put", 1, p=4)
    assert f.peek(1, 4) == f(1, 4) == d[key] == opened()[key] == "put"
    assert f.refresh(1, p=4) == f.peek(1, 4) == 4
    assert f.discard(1, p=4) is None
    assert key not in opened()
    f.discard(1, p=4)
    assert counted.calls == [(1, 4)]


def test_put_takes_an_argument_called_value(d):
    f = d.memoize("f")(lambda value: value)
    f.put(5, value=1)
    assert f(1) == 5


def test_cache_clear_removes_this_functions_results_alone(opened, d, counted):
    f = d.memoize("f")(of(counted))
    others = [
        d.memoize("f", version=1)(of(counted)),
        d.memoize("f/0")(of(counted)),
        d.memoize("g")(of(counted)),
    ]
    for function in (f, *others):
        function(1)
    d["f/0/mine"] = "mine"
    elsewhere = opened().memoize("f")(of(counted))
    for x in range(20):
        elsewhere(x)
    f.cache_clear()
    assert len(opened()) == len(others) + 1
    assert all(function.peek(1) == 2 for function in others)
    calls = len(counted.calls)
    f(1)
    assert len(counted.calls) == calls + 1


def test_max_age(opened, d, counted):
    f = d.memoize("f", max_age=3600)(of(counted))
    assert f(1) == 2 and f(1) == 2
    assert f.cache_info() == (1, 1, 0, 0)
    aged = opened().memoize("f", max_age=0)(of(counted))
    assert aged(1) == 2
    assert aged.cache_info() == (0, 1, 0, 0)
    assert len(counted.calls) == 2


def test_damaged_results_are_computed_anew(opened, counted):
    f = opened().memoize("f")(of(counted))
    f(1)
    [file] = opened().path.glob("??/*.pkl")
    file.write_bytes(b"\x80")
    again = opened().memoize("f")(of(counted))
    assert again(1) == 2 and len(counted.calls) == 2


class Trainer:
    def __init__(self, d, name):
        self.name = name


def test_methods(d):
    calls = []

    class Model:
        def __init__(self, name):
            self.name = name

        @d.memoize("by name", key=lambda self, x: (self.name, x))
        def by_name(self, x):
            calls.append((self.name, x))
            return self.name * x

        @d.memoize("for all", ignore=("self",))
        def for_all(self, x):
            calls.append(x)
            return x

        @staticmethod
        @d.memoize("static")
        def static(x):
            return x

    a, b = Model("a"), Model("b")
    assert (a.by_name(2), b.by_name(2), Model("a").by_name(2)) == ("aa", "bb", "aa")
    assert a.for_all(5) == b.for_all(5) == Model.static(5) == 5
    assert calls == [("a", 2), ("b", 2), 5]
    assert Model.by_name.peek(a, 2) == "aa"

    with pytest.raises(TypeError, match=r"is a method: .*ignore=\('self',\)"):

        class Refused:
            @d.memoize("refused")
            def method(self, x):
                pass


def test_threads_wait_for_one(d):
    started, go = threading.Event(), threading.Event()
    calls = []

    @d.memoize("slow")
    def slow(x):
        calls.append(x)
        started.set()
        assert go.wait(60)
        return x

    results = []
    threads = [threading.Thread(target=lambda: results.append(slow(1))) for _ in range(6)]
    threads[0].start()
    assert started.wait(60)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert results == [1] * 6 and calls == [1]
    info = slow.cache_info()
    assert info.misses == 1 and info.hits + info.waited == 5


PROCESS = """
import sys, time
from nfsdict import NfsDict
d = NfsDict("s", sys.argv[1])
def slow(x):
    with open(sys.argv[2], "a") as log: log.write(f"{x}\\n")
    time.sleep(0.2)
    return x * x
slow = d.memoize("slow")(slow)
print([slow(x) for x in range(5)])
"""


def test_processes_compute_once(nfsdict, tmp_path):
    log = tmp_path / "log"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), str(log)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert {worker.communicate()[0] for worker in workers} == {"[0, 1, 4, 9, 16]\n"}
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "4"]


def test_arguments_are_checked_at_once(d):
    for wrong in ({"lease": 0}, {"max_age": -1}, {"lease": float("nan")}):
        with pytest.raises(ValueError, match="seconds"):
            d.memoize("f", **wrong)(lambda x: x)
    with pytest.raises(TypeError, match="seconds"):
        d.memoize("f", max_age="60")(lambda x: x)


def test_a_signal_handler_may_call_what_it_has_interrupted(d):
    f = d.memoize("f")(lambda x: x)
    f(1)
    count = CacheInfoOf(f)

    class Interrupting(dict):
        def __getitem__(self, key):
            if len(nested) < 1:
                nested.append(1)
                nested.append(f(1))
            return super().__getitem__(key)

    nested = []
    count._counts = Interrupting(count._counts)
    calling = threading.Thread(target=f, args=[1], daemon=True)
    calling.start()
    calling.join(10)
    assert not calling.is_alive() and nested == [1, 1]


def CacheInfoOf(f):
    """The memo that counts the calls of a memoised function."""
    return f.cache_info.__self__


@forking
def test_a_forked_child_waits_for_no_thread_that_counts(d):
    f = d.memoize("f")(lambda x: x)
    f(1)
    locked, go = threading.Event(), threading.Event()

    def hold():
        with CacheInfoOf(f)._lock:
            locked.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(60)
    assert in_child(lambda: f(1)) == 0
    go.set()
    thread.join()


# --- coroutine functions ---------------------------------------------------------------------


def test_coroutines_of_one_loop_wait_for_one_task(opened, d):
    calls = []

    async def f(x):
        calls.append((x, threading.current_thread()))
        await asyncio.sleep(0.05)
        return x + 1

    f = d.memoize("f")(f)
    assert inspect.iscoroutinefunction(f)

    async def many():
        return await asyncio.gather(*(f(1) for _ in range(10)), f(2))

    assert asyncio.run(many()) == [2] * 10 + [3]
    assert sorted(x for x, _ in calls) == [1, 2]
    assert {thread for _, thread in calls} == {threading.current_thread()}
    assert f.cache_info() == (0, 2, 9, 0)
    assert asyncio.run(f(1)) == 2
    assert f.cache_info().hits == 1
    again = opened().memoize("f")(f.__wrapped__)
    assert asyncio.run(again(1)) == 2 and len(calls) == 2
    assert again.cache_info() == (1, 0, 0, 0)


def test_the_event_loop_goes_on_while_coroutines_wait(d):
    with d.lease(d.memoize("f")(of(None)).cache_key(1)) as lease:

        async def main():
            async def f(x, p=2):
                return x

            waiting = asyncio.ensure_future(d.memoize("f")(f)(1))
            for _ in range(5):
                await asyncio.sleep(0.02)
            assert not waiting.done()
            lease.release()
            return await waiting

        assert asyncio.run(main()) == 1


def test_what_a_coroutine_function_gets(d):
    async def f(x):
        return x + 1

    f = d.memoize("f")(f)

    async def main():
        with pytest.raises(KeyError):
            await f.peek(1)
        await f.put("put", 1)
        assert await f(1) == await f.peek(1) == d[f.cache_key(1)] == "put"
        assert await f.refresh(1) == await f.peek(1) == 2
        await f.discard(1)
        assert f.cache_key(1) not in d
        await f(1)
        await f.cache_clear()
        assert f.cache_key(1) not in d

    asyncio.run(main())


def test_exceptions_of_coroutines(d):
    async def f(x):
        raise ValueError(x)

    f = d.memoize("f")(f)

    async def main():
        return await asyncio.gather(f(1), f(1), return_exceptions=True)

    assert [str(error) for error in asyncio.run(main())] == ["1", "1"]
    assert len(d) == 0


def test_cancelling_one_of_two_cancels_nothing_and_both_the_call(d):
    events = []

    async def main():
        begun, go = asyncio.Event(), asyncio.Event()

        async def f(x):
            events.append("begun")
            begun.set()
            try:
                await go.wait()
            except asyncio.CancelledError:
                events.append("cancelled")
                raise
            return x

        f = d.memoize("f")(f)
        one, two = (asyncio.ensure_future(f(1)) for _ in range(2))
        await begun.wait()
        one.cancel()
        await asyncio.wait([one])
        assert one.cancelled() and not two.done()
        go.set()
        assert await two == 1

        go.clear()
        begun.clear()
        three = asyncio.ensure_future(f(3))
        await begun.wait()
        three.cancel()
        await asyncio.wait([three])
        while "cancelled" not in events:
            await asyncio.sleep(0.01)
        four = asyncio.ensure_future(f(3))  # the lease of the cancelled call is free
        begun.clear()
        await begun.wait()
        go.set()
        assert await four == 3

    asyncio.run(main())
    assert events == ["begun", "begun", "cancelled", "begun"]


def test_nested_coroutines_and_context_variables(d):
    variable = contextvars.ContextVar("variable")

    async def inner(x):
        return x, variable.get()

    inner = d.memoize("inner")(inner)

    async def outer(x):
        return await inner(x)

    outer = d.memoize("outer")(outer)

    async def main():
        variable.set("seen")
        return await asyncio.gather(*(outer(x) for x in range(80)))

    assert asyncio.run(main()) == [(x, "seen") for x in range(80)]


def test_a_result_that_asks_for_itself_is_an_error(d):
    async def f(x):
        return await g(x)

    g = d.memoize("f")(f)
    with pytest.raises(RuntimeError, match="asks for itself"):
        asyncio.run(g(1))

    h = d.memoize("h")(lambda x: h(x))
    with pytest.raises(RuntimeError, match="asks for"):
        h(1)


# The interpreter tells of coroutines that never end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_event_loop_that_is_closed_computes_nothing_any_more(d):
    """Its lease is free for others."""

    async def f(x):
        await asyncio.sleep(600)

    f = d.memoize("f")(f)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(f(1))

    async def until_it_runs():
        while not d.leases():
            await asyncio.sleep(0.01)

    loop.run_until_complete(until_it_runs())
    loop.close()
    with d.lease(f.cache_key(1), timeout=10):
        pass
    for thread in threading.enumerate():
        if thread.name == "nfsdict-memoize":
            thread.join(10)
    del waiting, loop, f
    gc.collect()


def test_an_object_with_an_asynchronous_call(d):
    class Increment:
        async def __call__(self, x):
            return x + 1

    f = d.memoize("f")(Increment())
    assert [asyncio.run(f(1)) for _ in range(2)] == [2, 2]
    assert d[f.cache_key(1)] == 2


def test_each_exception_of_a_thread_arrives(d):
    async def f(x):
        return Odd(x)

    f = d.memoize("f")(f)
    assert asyncio.run(f(1)).number == 1
    d.refresh()
    for number in (1, 2):
        Odd.raises = StopIteration if number == 1 else LookupError

        async def peek():
            return await asyncio.wait_for(f.peek(1), 10)

        d.sync()
        with pytest.raises((RuntimeError, LookupError)) as raised:
            asyncio.run(peek())
        assert not isinstance(raised.value, TimeoutError)
    Odd.raises = None


class Odd:
    """One whose code raises when it is unpickled."""

    raises = None

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return make_odd, (self.number,)


def make_odd(number):
    if Odd.raises:
        raise Odd.raises
    return Odd(number)


def test_only_a_result_that_is_being_computed_asks_for_itself(d, opened):
    """Not that of another store, nor one that was computed when the task was started."""
    calls = []

    async def f(x):
        calls.append(x)
        if len(calls) == 1:
            calls.append(asyncio.ensure_future(later(x)))
        return x

    async def later(x):
        while not calls[1:] or g.cache_key(x) not in d:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return await g(x)

    g = d.memoize("f", max_age=0)(f)

    async def main():
        assert await g(1) == 1
        assert await calls[1] == 1

    asyncio.run(main())
    near = opened(name="near")
    two = near.memoize("f")(opened(name="far").memoize("f")(f))
    assert asyncio.run(two(2)) == 2
    assert len(near) == 1
