"""Work beside the event loop: calls in threads, the memory they use, and decoding in processes.

A request that is given up leaves threads behind that cannot be stopped. What they use is theirs
until they end, not until somebody stops waiting for them. Images that strangers send are unpacked
in processes of their own, which can be killed.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

from regionlab.util.errors import RegionlabError

PROCESSES = 2
CHEAP = 2**24  # cost up to which any process may take a job; one is kept free from dearer ones
SLACK = 10.0  # seconds that a process may wait for a processor beside its time on it
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Told = tuple[dict[str, Any], np.ndarray]  # what `decoder` says of a job, and its pixels


class _Work:
    """The calls begun for a request, and what is to happen when all have ended."""

    def __init__(self) -> None:
        self._running: set[Future] = set()
        self._then: list[Callable[[], None]] = []

    def add(self, future: Future) -> None:
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


_work: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def begin_work() -> Iterator[_Work]:
    """Take all calls of the block, and of the tasks that it starts, for one request's work."""
    work = _Work()
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

    If cancelled while it waits it is not called; what runs already goes on.
    """
    return await asyncio.wrap_future(submit(pool, function, *arguments))


class ByteBudget:
    """A number of bytes that may be in use at once, in one event loop."""

    def __init__(self, size: int):
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until so many bytes, all at most, are free, and keep them from others.

        They are free again when the calls begun for this request have ended, maybe after the block.
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


class DecodeError(RegionlabError, RuntimeError):
    """A file that cannot be unpacked within its limits."""


class Decoder:
    """A process that unpacks one image after the other in so many bytes; restarted as needed."""

    def __init__(self, memory: int):
        self.memory = memory
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        self._busy = self._closed = False

    def start(self) -> None:
        """Start the process if there is none; it is ready a little later."""
        if self._closed or (self._process is not None and self._process.poll() is None):
            return
        self._end()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "regionlab.service.decoder", str(self.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(ONE_THREAD, "1"),
            start_new_session=True,  # Ctrl-C is for the service, which ends it
        )

    def ask(self, job: str, data: bytes, seconds: float) -> Told:
        """Have a job, "peek" or "read", done on a file in so many seconds of a processor.

        DecodeError if the process ends before the job, by its limits or by `give_up`.
        """
        self.start()
        with self._working(), self._killed_after(3 * seconds + SLACK):
            try:
                return self._talk({"job": job, "bytes": len(data), "seconds": seconds}, data)
            except (OSError, EOFError, ValueError, AttributeError) as e:  # its pipes are closed
                reason = (
                    f"it takes more than {seconds:g} seconds of a processor, or too much memory"
                )
                raise DecodeError(reason) from e

    def _talk(self, line: dict[str, Any], data: bytes) -> Told:
        sink, source = self._process.stdin, self._process.stdout
        sink.write(json.dumps(line).encode() + b"\n")
        sink.write(data)
        sink.flush()
        told = json.loads(source.readline())
        pixels = np.empty(told.get("shape", (0, 0, 3)), np.uint8)
        if told["bytes"] and source.readinto(memoryview(pixels).cast("B")) != told["bytes"]:
            raise EOFError
        return told, pixels

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            self._busy = True
        try:
            yield
        except DecodeError:
            self._end()
            self.start()  # beforehand, so that the next one need not wait
            raise
        finally:
            with self._lock:
                self._busy = False

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def give_up(self) -> None:
        """Kill the process if it has a job, which then gets a `DecodeError`."""
        with self._lock:
            if self._busy and self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self.give_up()
        if not self._busy:
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    pipe.close()
            self._process = None


class Decoders:
    """Several decoder processes for one event loop; the cheapest job that waits is the next."""

    def __init__(self, memory: int, *, processes: int = PROCESSES):
        self._all = [Decoder(memory) for _ in range(processes)]
        self._free = list(self._all)
        self._threads = ThreadPoolExecutor(processes, "decode")
        self._places = max(1, processes - 1)  # for dear jobs
        self._waiting: list[tuple[float, int, asyncio.Future]] = []
        self._number = count()

    def start(self) -> None:
        """Start the processes, so that the first image need not wait for them."""
        for decoder in self._all:
            decoder.start()

    def close(self) -> None:
        """End the processes."""
        for decoder in self._all:
            decoder.close()
        self._threads.shutdown(cancel_futures=True)

    async def ask(self, job: str, data: bytes, *, cost: float, seconds: float) -> Told:
        """Have a job done, as by `Decoder.ask`, by the next process that is free.

        `cost`, such as pixels: cheap jobs go first, and dear ones never take all processes. If
        cancelled meanwhile, the process is killed: nothing goes on for nobody.
        """
        loop = asyncio.get_running_loop()
        decoder = await self._take(cost)
        future = submit(self._threads, decoder.ask, job, data, seconds)

        def give_back(_future: Future) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._give, decoder, cost)

        future.add_done_callback(give_back)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            decoder.give_up()
            raise

    async def _take(self, cost: float) -> Decoder:
        granted = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (cost, next(self._number), granted))
        self._grant()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._give(granted.result(), cost)
            raise

    def _grant(self) -> None:
        while self._waiting and self._free:
            cost, _, granted = self._waiting[0]
            if not granted.done() and cost > CHEAP and not self._places:
                return
            heappop(self._waiting)
            if not granted.done():
                self._places -= cost > CHEAP
                granted.set_result(self._free.pop())

    def _give(self, decoder: Decoder, cost: float) -> None:
        self._free.append(decoder)
        self._places += cost > CHEAP
        self._grant()
