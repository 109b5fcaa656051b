"""How far along long work is, as a bar or in lines; and how long calls take."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def progress(
    iterable: Iterable[T], desc: str, total: int | None = None, *, every_s: float = 10.0
) -> Iterator[T]:
    """Yield the items of `iterable` and show how far along it is.

    Parameters
    ----------
    iterable
        What to go through.
    desc
        What is being done, such as "embed images".
    total
        Number of items; by default its length, where it has one.
    every_s
        In a headless run, seconds between two lines at least.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if _somebody_looks_on():
        from tqdm.auto import tqdm

        yield from tqdm(iterable, desc=desc, total=total)
    else:
        yield from _with_lines(iterable, desc, total, every_s)


def say(line: str) -> None:
    """Tell in one line what is being done; a line that cannot be written stops nothing."""
    with suppress(OSError):
        print(line, flush=True)


def _somebody_looks_on() -> bool:
    if os.environ.get("REGIONLAB_RUN"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _with_lines(iterable: Iterable[T], desc: str, total: int | None, every_s: float) -> Iterator[T]:
    started = reported = time.perf_counter()
    done = 0
    for done, item in enumerate(iterable, 1):
        yield item
        now = time.perf_counter()
        if now - reported >= every_s and done != total:
            left = _describe_rest(done, total, now - started)
            say(f"{desc}: {_of(done, total)} ({_rate(done, now - started)}{left})")
            reported = now
    seconds = time.perf_counter() - started
    say(f"{desc}: {_of(done, total)} in {seconds:.1f} s ({_rate(done, seconds)})")


def _of(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done}/{total}"


def _describe_rest(done: int, total: int | None, seconds: float) -> str:
    """Return how long the rest will take at this rate, such as ", 2 h 10 min left"."""
    if not total:
        return ""
    rest = seconds * (total - done) / done
    hours, minutes = divmod(round(rest / 60), 60)
    if rest < 90:
        return f", {rest:.0f} s left"
    return f", {hours} h {minutes} min left" if hours else f", {minutes} min left"


def _rate(done: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


# How long calls take


def time_calls(call: Callable[[], object], *, repeats: int = 20) -> float:
    """Return the median seconds of a call, after one call that does not count.

    The first call pays for caches and memory that later ones find ready.

    Raises
    ------
    ValueError
        If `repeats` is not positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    call()
    return float(np.median([_seconds(call) for _ in range(repeats)]))


def time_interleaved(
    sides: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each side in each round, so that noise meets all sides alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(_seconds(side))
    return times


def summarise_measure(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return the median of what was measured, its range, and how often; four digits each."""
    low, middle, high = (float(f"{v:.4g}") for v in (min(values), np.median(values), max(values)))
    return {"value": middle, "range": [low, high], "n": len(values)}


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
