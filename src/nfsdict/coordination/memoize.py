"""Memoize: results of a function kept in a store, computed once by all callers on all hosts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..arguments import is_coroutine_function
from .memo import CacheInfo, Memo

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Protocol, overload

    from typing_extensions import Concatenate, ParamSpec, Self, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    # Of a method: its object, what else it takes, and what it returns.
    S = TypeVar("S")
    Q = ParamSpec("Q")
    T = TypeVar("T")

    class Memoized(Protocol[P, R]):
        """A memoised function."""

        __wrapped__: Callable[P, R]

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(
            self: Memoized[Concatenate[S, Q], T], instance: S, owner: type
        ) -> Callable[Q, T]: ...
        def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...
        def peek(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def put(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def discard(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def cache_info(self) -> CacheInfo: ...
        def cache_clear(self) -> None: ...

    class MemoizedCoroutine(Protocol[P, R]):
        """A memoised coroutine function: what asks the store is a coroutine, too."""

        __wrapped__: Callable[P, Coroutine[Any, Any, R]]

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(
            self: MemoizedCoroutine[Concatenate[S, Q], T], instance: S, owner: type
        ) -> Callable[Q, Coroutine[Any, Any, T]]: ...
        def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...
        async def peek(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        async def put(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        async def discard(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def cache_info(self) -> CacheInfo: ...
        async def cache_clear(self) -> None: ...

    class Memoize(Protocol):
        """What ``d.memoize()`` returns."""

        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, function: Callable[P, Coroutine[Any, Any, R]], /
        ) -> MemoizedCoroutine[P, R]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> Memoized[P, R]: ...


def memoized(function: Callable[..., Any], memo: Memo) -> Callable[..., Any]:
    """The function that looks for a result before it calls ``function``."""
    if is_coroutine_function(function):
        from .coroutines import memoized_coroutine  # asyncio is large

        return memoized_coroutine(function, memo)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{memo.calls.name} is a generator, which has no result to be kept")

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return memo.find(memo.cache_key(*args, **kwargs), lambda: function(*args, **kwargs))

    def refresh(*args: Any, **kwargs: Any) -> Any:
        """Call the function, keep its result, and return it."""
        return memo.replace(memo.cache_key(*args, **kwargs), lambda: function(*args, **kwargs))

    wrapper.__dict__.update(memo.attributes(refresh))
    return wrapper
