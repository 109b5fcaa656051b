"""From images to an encoder's batches: reading ahead, preprocessing, threads, batch size."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from threading import Barrier, Lock, local
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from regionlab.data.images import ImageError
from regionlab.util.errors import InputError

AHEAD = 3  # batches that are read before they are needed


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a stream, encoded.

    Attributes
    ----------
    rows : (b,) int64, positions in the stream of those that could be read.
    vectors : (b, d) float32, of unit length if asked for.
    sizes : (b, 2) int64, width and height in pixels.
    digests : SHA-256 of each file; empty for an image given as an array.
    failures : Position and reason of each that could not be read.
    """

    rows: np.ndarray
    vectors: np.ndarray
    sizes: np.ndarray
    digests: list[str]
    failures: list[tuple[int, ImageError]]


def prefetch(
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


TO_NUMBERS = ({"ToTensor", "MaybeToTensor"}, {"Normalize"})  # of torchvision and open_clip
# A JPEG decoded at reduced scale keeps so many times the side that it is then resized to.
MARGIN = 4


class Preprocessing:
    """The halves of a preprocessing.

    Steps that are not understood stay together and are done image by image.

    Parameters
    ----------
    preprocess : Turns a PIL image into the (3, h, w) float tensor that the model takes; best a
        torchvision `Compose`.
    device, dtype : What the model computes on and in.

    Attributes
    ----------
    least_side : Pixels that the shorter side of an image should have at least for `shape`, where
        its decoder can make it smaller; None where that is not known to be harmless.
    """

    def __init__(
        self,
        preprocess: Callable[[Image.Image], torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._device, self._dtype = device, dtype
        steps = list(getattr(preprocess, "transforms", ()))
        names = [type(step).__name__ for step in steps]
        self._is_split = len(steps) >= 2 and all(
            name in known for name, known in zip(names[-2:], TO_NUMBERS, strict=True)
        )
        self._steps = steps[:-2] if self._is_split else [preprocess]
        if self._is_split:
            scale = (torch.tensor(255.0), *map(torch.as_tensor, (steps[-1].mean, steps[-1].std)))
            self._scale = [numbers.to(device) for numbers in scale]
        self.least_side = MARGIN * _largest(steps[0].size) if names[:1] == ["Resize"] else None

    def shape(self, picture: Image.Image) -> np.ndarray | torch.Tensor:
        """Resize and cut out an image: (h, w, 3) uint8, or what `preprocess` made of it."""
        for step in self._steps:
            picture = step(picture)
        return np.array(picture) if self._is_split else picture

    def stack(self, shaped: Sequence[np.ndarray | torch.Tensor]) -> torch.Tensor:
        """Turn b images by `shape` into the (b, 3, h, w) that the model takes."""
        if not self._is_split:
            return torch.stack(list(shaped))
        if self._device.type == "cpu":  # one by one they stay in the cache
            pixels = torch.stack([self._normalise(torch.from_numpy(one)) for one in shaped])
        else:
            pixels = self._normalise(torch.from_numpy(np.stack(shaped)).to(self._device))
        return pixels.movedim(-1, -3)

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        # Long rows, each with mean and deviation laid out along it, are what is fast.
        width = pixels.shape[-2]
        full, mean, std = self._scale
        mean, std = mean.repeat(width), std.repeat(width)
        rows = pixels.flatten(-2).float().div_(full).sub_(mean).div_(std)
        return rows.to(self._dtype).unflatten(-1, (width, 3))


def _largest(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else max(size)


TARGET_RATIO = 1.25  # of S4's authors


class TargetPad:
    """Pad a long image with black until its sides have a given ratio.

    "TargetPad" of Baldrati et al. 2022 (section 4.2), which S4 follows: between leaving the
    ends of a long image to be cut off and making it small in a square.

    Parameters
    ----------
    ratio : Longer by shorter side that is left, at least 1; an image below it stays as it is.

    Raises
    ------
    ValueError : If `ratio` is below 1.
    """

    def __init__(self, ratio: float = TARGET_RATIO):
        if not ratio >= 1:
            raise ValueError(
                f"the ratio of the longer to the shorter side is 1 or more, not {ratio}"
            )
        self.ratio = ratio

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the padded image."""
        width, height = picture.size
        if max(width, height) / min(width, height) < self.ratio:
            return picture
        side = max(width, height) / self.ratio
        across, along = (max(int((side - length) / 2), 0) for length in (width, height))
        return ImageOps.expand(picture, (across, along, across, along), fill=0)

    def __repr__(self) -> str:
        return f"TargetPad({self.ratio})"


class SquarePad(TargetPad):
    """Pad with black to a square, so that nothing is cut off."""

    def __init__(self):
        super().__init__(1.0)

    def __repr__(self) -> str:
        return "SquarePad()"


PADDINGS = {"none": None, "target": TargetPad, "square": SquarePad}


def pad_first(preprocess, padding: str):
    """Return an encoder's preprocessing with padding before it.

    Parameters
    ----------
    preprocess : A torchvision `Compose` that takes a PIL image.
    padding : "none", "target" (to 1.25, as S4) or "square".

    Raises
    ------
    ValueError : If `padding` is unknown.
    """
    if padding not in PADDINGS:
        raise InputError(f"unknown padding {padding!r}; known: {', '.join(PADDINGS)}")
    if padding == "none":
        return preprocess
    return type(preprocess)([PADDINGS[padding](), *preprocess.transforms])


# From so many images on, a part gives the very vectors that it gives within a whole batch.
LEAST_PART = 16
_starting = Lock()


class SideBySide:
    """Threads that each compute a part of a batch with their share of torch's threads.

    With all of torch's threads on one batch they wait for each other after every operation, and
    all of them wait whenever another thread, such as one that decodes, has taken a core from one
    of them. In parts nobody waits before the end of the batch. On two cores ViT-B-32 is 1.2 times
    as fast so, and loses nothing to decoding beside it but the time that takes. Elsewhere than on
    a CPU a batch stays whole.
    """

    def __init__(self, device: torch.device):
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[Sequence], object], items: Sequence) -> list:
        """Call a function on the consecutive parts of a batch; return its results in order."""
        parts = max(1, min(self._threads, len(items) // LEAST_PART))
        if parts == 1:
            return [function(items)]
        if self._pool is None:
            self._pool = start_threads(parts, self._threads // parts)
        ends = [len(items) * part // parts for part in range(parts + 1)]
        return list(self._pool.map(function, (items[a:b] for a, b in pairwise(ends))))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def start_threads(count: int, share: int) -> ThreadPoolExecutor:
    """Return a pool of threads that each compute with `share` of torch's threads.

    In every other thread torch computes as before.
    """
    all_here = Barrier(count + 1)

    def take_share() -> None:
        torch.get_num_threads()  # else its first operation would take torch's number again
        torch.set_num_threads(share)
        all_here.wait()

    with _starting:
        everyone = torch.get_num_threads()
        pool = ThreadPoolExecutor(count, initializer=take_share)
        for _ in range(count):
            pool.submit(int)
        all_here.wait()
        torch.set_num_threads(everyone)  # for threads to come: those above keep theirs
    return pool


AT_ONCE = 4  # images that are segmented side by side: each takes a gigabyte by a `vit_h`


def map_in_threads(
    make: Callable[[], Callable[[Any], Any]], items: Iterable, device: torch.device
) -> Iterator:
    """Yield what a function returns for each item, in order; on a CPU by several threads.

    There is one a core, `AT_ONCE` at most. Each asks `make` for a function of its own, such as one
    with a model's memory of images, and computes with its share of torch's threads: none waits for
    another, nor for a core that some other process has taken. Elsewhere than on a CPU, or on one
    core, nothing is done side by side.
    """
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    count = min(cores, AT_ONCE)
    if count == 1:
        yield from map(make(), items)
        return
    items, own = iter(items), local()

    def call(item: Any) -> Any:
        if not hasattr(own, "function"):
            own.function = make()
        return own.function(item)

    pool = start_threads(count, cores // count)
    try:
        ahead = deque(pool.submit(call, item) for item in islice(items, 2 * count))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(call, item) for item in islice(items, 1))
    finally:  # also when the caller stops early
        pool.shutdown(cancel_futures=True)


SIZES = (16, 32, 64, 128, 256, 512)
ENOUGH = 0.95  # of the best rate: memory and the wait for the first vectors grow with the batch


def choose_batch_size(
    encoder: Any, *, sizes: Sequence[int] | None = None, seconds: float = 2.0
) -> int:
    """Return the smallest batch size that is about as fast as any.

    Blank images are encoded in batches of growing size, as long as the next one fits in the
    time and in the device's memory. The smallest that reaches 95 % of the best rate is chosen.

    Parameters
    ----------
    sizes : To choose from, ascending; by default powers of two up to 512, on a CPU from the one on
        that gives each of torch's threads a part. The first is the answer if none was measured.
    seconds : To measure in.

    Raises
    ------
    ValueError : If there are no sizes, or one is below 1.
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


def _list_sizes(encoder: Any) -> list[int]:
    threads = torch.get_num_threads() if encoder.device.type == "cpu" else 1
    return [size for size in SIZES if size >= min(LEAST_PART * threads, SIZES[-1])]


def resolve_batch_size(encoder: Any, batch_size: int | str) -> int:
    """Return a batch size; "auto" is what `choose_batch_size` finds.

    Raises
    ------
    ValueError : If it is another word.
    """
    if batch_size == "auto":
        return choose_batch_size(encoder)
    if isinstance(batch_size, str):
        raise InputError(f'batch_size must be a number or "auto", got {batch_size!r}')
    return batch_size


def _measure_rate(encoder: Any, model: SideBySide, size: int) -> float:
    """Return images per second, after a batch that pays for memory and the choice of kernels."""
    pixels = encoder.blank_pixels(size)
    model.map(encoder.encode_pixels, pixels)
    start = time.perf_counter()
    model.map(encoder.encode_pixels, pixels)
    return size / (time.perf_counter() - start)
