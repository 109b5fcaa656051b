"""Pictures on their way through a model: read ahead in threads, handed on batch by batch."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from regionlab.images import ImageError

AHEAD = 3  # batches that are read before they are needed


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a stream, encoded.

    Attributes
    ----------
    rows
        (b,) int64, positions in the stream of those that could be read.
    vectors
        (b, d) float32, of unit length if asked for.
    sizes
        (b, 2) int64, width and height in pixels.
    digests
        SHA-256 of each file; empty for an image given as an array.
    failures
        Position and reason of each that could not be read.
    """

    rows: np.ndarray
    vectors: np.ndarray
    sizes: np.ndarray
    digests: list[str]
    failures: list[tuple[int, ImageError]]


def read_ahead(
    items: Iterable, batch_size: int, workers: int, read: Callable[[Any], Any]
) -> Iterator[list]:
    """Yield what `read` returns for each item, in order and in batches.

    The next batches are read by `workers` threads meanwhile; memory holds `AHEAD` + 1 at most,
    however many items there are. Closing the iterator drops what waits and ends the threads.
    """
    items = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        ahead = [pool.submit(read, item) for item in islice(items, AHEAD * batch_size)]
        while ahead:
            batch = [future.result() for future in ahead[:batch_size]]
            ahead = ahead[batch_size:]
            ahead += [pool.submit(read, item) for item in islice(items, len(batch))]
            yield batch
    finally:  # also when the caller stops early
        pool.shutdown(cancel_futures=True)
