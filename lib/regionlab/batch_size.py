"""How many pictures to a batch: measured on the model and machine at hand."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from regionlab.side_by_side import LEAST_PART, SideBySide

if TYPE_CHECKING:
    from regionlab.embedding import Encoder

SIZES = (16, 32, 64, 128, 256, 512)
ENOUGH = 0.95  # of the best rate: memory and the wait for the first vectors grow with the batch


def choose_batch_size(
    encoder: "Encoder", *, sizes: Sequence[int] | None = None, seconds: float = 2.0
) -> int:
    """Return the smallest batch size that is about as fast as any.

    Blank pictures are encoded in batches of growing size, as long as the next one fits in the
    time and in the device's memory. The smallest that reaches 95 % of the best rate is chosen.

    Parameters
    ----------
    sizes
        To choose from, ascending; by default powers of two up to 512, on a CPU from the one on
        that gives each of torch's threads a part. The first is the answer if none was measured.
    seconds
        To measure in.

    Raises
    ------
    ValueError
        If there are no sizes, or one is below 1.
    """
    sizes = _list_sizes(encoder) if sizes is None else list(sizes)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must be one or more numbers from 1 on, got {sizes}")
    rates: dict[int, float] = {}
    end = time.perf_counter() + seconds
    with closing(SideBySide(encoder.device)) as model:
        best = _measure_rate(encoder, model, 1)
        for size in sizes:
            if time.perf_counter() + 2 * size / best > end:
                break
            try:
                rates[size] = _measure_rate(encoder, model, size)
            except torch.OutOfMemoryError:
                break
            best = max(best, rates[size])
    enough = ENOUGH * max(rates.values(), default=0)
    return min((size for size, rate in rates.items() if rate >= enough), default=sizes[0])


def _list_sizes(encoder: "Encoder") -> list[int]:
    threads = torch.get_num_threads() if encoder.device.type == "cpu" else 1
    return [size for size in SIZES if size >= min(LEAST_PART * threads, SIZES[-1])]


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
    """Return pictures per second, after a batch that pays for memory and the choice of kernels."""
    pixels = encoder.blank_pixels(size)
    model.map(encoder.encode_pixels, pixels)
    start = time.perf_counter()
    model.map(encoder.encode_pixels, pixels)
    return size / (time.perf_counter() - start)
