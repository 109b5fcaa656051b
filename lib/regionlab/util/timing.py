"""How long calls take: one by itself, several side by side, and what was measured in short."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


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
