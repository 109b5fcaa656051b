"""Batcher: questions that arrive while a model is busy are put to it together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any


class Batcher:
    """Calls a function with several items at once: all that wait when it is free again.

    Nothing waits for company: a single item goes at once, and the busier the function is, the
    larger its batches. These are of 1, 2, 4, 8, … items, because a model on a CPU keeps memory
    for every size of a batch that it has met. For the event loop of one thread.

    Parameters
    ----------
    function
        Takes a list of items and returns as many results, in their order.
    executor
        Where it is called; with one thread it is never called twice at a time.
    largest
        How many items a call takes at most.

    Attributes
    ----------
    calls, items
        How often the function was called, and with how many items in all.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Sequence[Any]],
        executor: Executor,
        *,
        largest: int = 32,
    ):
        if largest < 1:
            raise ValueError(f"largest must be at least 1, not {largest}")
        self.function, self.executor, self.largest = function, executor, largest
        self.calls = self.items = 0
        self._waiting: list[tuple[Any, asyncio.Future]] = []
        self._worker: asyncio.Task | None = None

    async def ask(self, item: Any) -> Any:
        """Return the function's result for an item, or raise what it raises for it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._answer(batch)
        finally:
            self._worker = None

    def _take(self) -> list[tuple[Any, asyncio.Future]]:
        """Take the next batch off the line, without those that nobody waits for any more."""
        waiting = [pair for pair in self._waiting if not pair[1].done()]
        count = min(len(waiting), self.largest)
        count = 1 << count.bit_length() >> 1  # the largest power of two that is not above
        batch, self._waiting = waiting[:count], waiting[count:]
        return batch

    async def _answer(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        items, futures = zip(*batch, strict=True)
        loop = asyncio.get_running_loop()
        self.calls, self.items = self.calls + 1, self.items + len(items)
        try:
            results = await loop.run_in_executor(self.executor, self.function, list(items))
        except Exception as error:
            if len(batch) == 1:
                return _settle(futures[0], error)
            for pair in batch:  # one bad item must not spoil the others
                await self._answer([pair])
            return
        for future, result in zip(futures, results, strict=True):
            _settle(future, result)


def _settle(future: asyncio.Future, result: Any) -> None:
    if future.done():  # given up meanwhile
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
