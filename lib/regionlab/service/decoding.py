"""Pictures that strangers send are unpacked in processes of their own, which can be killed."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

from regionlab.service.room import submit
from regionlab.util.errors import RegionlabError

PROCESSES = 2
CHEAP = 2**24  # cost up to which any process may take a job; one is kept free from dearer ones
SLACK = 10.0  # seconds that a process may wait for a processor beside its time on it
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Told = tuple[dict[str, Any], np.ndarray]  # what `decoder` says of a job, and its pixels


class DecodeError(RegionlabError, RuntimeError):
    """A file that cannot be unpacked within its limits."""


class Decoder:
    """A process that unpacks one picture after the other, started anew when one ends it.

    Parameters
    ----------
    memory
        Bytes of memory that it may take.
    """

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
        """Have a job done.

        Parameters
        ----------
        job
            "peek" or "read".
        data
            The file.
        seconds
            Of the processor that it may take.

        Raises
        ------
        DecodeError
            If the process ends before the job, by its limits or by `give_up`.
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
        """Kill the process if it has a job; whoever waits for that gets a `DecodeError`."""
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
    """Several processes; the cheapest job that waits is the next.

    For the event loop of one thread.

    Parameters
    ----------
    memory
        Bytes that each may take.
    processes
        How many.
    """

    def __init__(self, memory: int, *, processes: int = PROCESSES):
        self._all = [Decoder(memory) for _ in range(processes)]
        self._free = list(self._all)
        self._threads = ThreadPoolExecutor(processes, "decode")
        self._places = max(1, processes - 1)  # for dear jobs
        self._waiting: list[tuple[float, int, asyncio.Future]] = []
        self._number = count()

    def start(self) -> None:
        """Start the processes, so that the first picture need not wait for them."""
        for decoder in self._all:
            decoder.start()

    def close(self) -> None:
        """End the processes."""
        for decoder in self._all:
            decoder.close()
        self._threads.shutdown(cancel_futures=True)

    async def ask(self, job: str, data: bytes, *, cost: float, seconds: float) -> Told:
        """Have a job done by the next process that is free.

        Who is cancelled meanwhile has the process killed: nothing goes on for nobody.

        Parameters
        ----------
        job, data, seconds
            As for `Decoder.ask`.
        cost
            Such as its pixels: cheap jobs go first, and dear ones never take all processes.

        Raises
        ------
        DecodeError
            As `Decoder.ask` does.
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
