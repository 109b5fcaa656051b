"""How many pictures to a batch: measured on the model and machine at hand."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from regionlab.side_by_side import SideBySide

if TYPE_CHECKING:
    from regionlab.embedding import Encoder

SIZES = (16, 32, 64, 128, 256, 512)
ENOUGH = 0.95  # of the best rate: memory and the wait for the first vectors grow with the batch


def choose_batch_size(
    encoder: "Encoder", *, sizes: Sequence[int] = SIZES, seconds: float = 2.0
) -> int:
    """Return the smallest batch size that is about as fast as any.

    Blank pictures are encoded in batches of growing size, until the next one would not fit in
    the time or does not fit in the device's memory. The smallest size that reaches 95 % of the
    best rate is chosen.

    Parameters
    ----------
    sizes
        To choose from, ascending. The first is tried in any case.
    seconds
        To measure in; the first size may take longer.

    Raises
    ------
    ValueError
        If there are no sizes, or one is below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must be one or more numbers from 1 on, got {sizes}")
    rates: dict[int, float] = {}
    end = time.perf_counter() + seconds
    with closing(SideBySide(encoder.device)) as model:
        for size in sizes:
            # Twice: the first call of a size pays for memory and for the choice of kernels.
            if rates and time.perf_counter() + 2 * size / max(rates.values()) > end:
                break
            try:
                rates[size] = max(_measure_rate(encoder, model, size) for _ in range(2))
            except torch.OutOfMemoryError:
                if not rates:
                    raise
                break
    return min(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def resolve_batch_size(encoder: "Encoder", batch_size: int | str) -> int:
    """Return a batch size; "auto" is what `choose_batch_size` finds.

    Raises
    ------
    ValueError
        If it is another word.
    """
    if batch_size == "auto":
        return choose_batch_size(encoder)
    if isinstance(batch_size, str):
        raise ValueError(f'batch_size must be a number or "auto", got {batch_size!r}')
    return batch_size


def _measure_rate(encoder: "Encoder", model: SideBySide, size: int) -> float:
    """Return pictures per second of one batch."""
    pixels = encoder.blank_pixels(size)
    start = time.perf_counter()
    model.map(encoder.encode_pixels, pixels)
    return size / (time.perf_counter() - start)
