"""Room and Work: memory that may be in use at once, given back when the work in it has ended.

A request that is given up leaves threads behind that cannot be stopped. What they use is theirs
until they end, not until somebody stops waiting for them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any


class Work:
    """The calls that were begun for a request, and what is to happen when all have ended.

    For the event loop of one thread.
    """

    def __init__(self) -> None:
        self._running: set[Future] = set()
        self._then: list[Callable[[], None]] = []

    def add(self, future: Future) -> None:
        """Take a call as one that was begun."""
        loop = asyncio.get_running_loop()
        self._running.add(future)

        def end(ended: Future) -> None:  # not `future`: it would keep itself and its result
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._end, ended)

        future.add_done_callback(end)

    def _end(self, future: Future) -> None:
        self._running.discard(future)
        if not self._running:
            then, self._then = self._then, []
            for function in then:
                function()

    def then(self, function: Callable[[], None]) -> None:
        """Call a function when nothing runs any more: at once if that is so now."""
        if self._running:
            self._then.append(function)
        else:
            function()


_work: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def begin_work() -> Iterator[Work]:
    """Take all calls of the block, and of the tasks that it starts, for one request's work."""
    work = Work()
    token = _work.set(work)
    try:
        yield work
    finally:
        _work.reset(token)


def when_done(function: Callable[[], None]) -> None:
    """Call a function when the calls begun so far for this request have ended."""
    work = _work.get()
    if work is None:
        function()
    else:
        work.then(function)


def submit(pool: Executor, function: Callable[..., Any], *arguments: Any) -> Future:
    """Begin a call in a pool as a part of the request's work."""
    future = pool.submit(function, *arguments)
    if work := _work.get():
        work.add(future)
    return future


async def call(pool: Executor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, called in a pool as a part of the request's work.

    Who is cancelled while it waits leaves the line; what runs already goes on.
    """
    return await asyncio.wrap_future(submit(pool, function, *arguments))


class ByteBudget:
    """A number of bytes that may be in use at once.

    For the event loop of one thread.
    """

    def __init__(self, size: int):
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until so many bytes are free, and keep them from others in the meantime.

        They are free again when the calls that were begun for this request have ended, which
        may be after the block. Who wants more than there is gets all of it.
        """
        size = min(size, self.size)
        await self._take(size)
        try:
            yield
        finally:
            when_done(lambda: self._give(size))

    async def _take(self, size: int) -> None:
        if self.free >= size:
            self.free -= size
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((size, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._give(size)  # granted and given up at once
            raise

    def _give(self, size: int) -> None:
        self.free += size
        still: deque[tuple[int, asyncio.Future]] = deque()
        for wanted, granted in self._waiting:
            if granted.done():  # given up
                continue
            if wanted <= self.free:
                self.free -= wanted
                granted.set_result(None)
            else:
                still.append((wanted, granted))
        self._waiting = still
