"""How long a call takes."""

import time
from collections.abc import Callable


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
    return sorted(_seconds(call) for _ in range(repeats))[repeats // 2]


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
