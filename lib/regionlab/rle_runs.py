"""COCO's compressed run-length encodings (RLE) read many at once, see `regionlab.rle`."""

from collections.abc import Sequence

import numpy as np

LETTERS = 12  # in a number, at most
CHUNK = 10_000  # encodings decoded at once, to bound the memory


def decode_runs(counts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs of compressed encodings, as `rle_to_mask` reads them one by one.

    Parameters
    ----------
    counts
        (r,) texts.

    Returns
    -------
    runs
        (s,) int64, pixels outside and inside in turn, one encoding after another.
    lengths
        (r,) int64, how many runs each has.

    Raises
    ------
    ValueError
        If a text is no encoding, or a run is negative.
    """
    codes = np.frombuffer("".join(counts).encode("utf-8"), np.uint8).astype(np.int64) - 48
    texts = np.fromiter(map(len, counts), np.int64, len(counts))
    if len(codes) != texts.sum() or ((codes < 0) | (codes > 63)).any():
        raise ValueError("RLE counts hold what is no letter of the code")
    ends = np.flatnonzero(codes & 0x20 == 0)  # letters behind which no further one follows
    stops = np.cumsum(texts)
    lengths = np.diff(np.searchsorted(ends, stops), prepend=0)
    if (codes[stops[texts > 0] - 1] & 0x20).any():
        raise ValueError("RLE counts end in the middle of a number")
    runs = _undo_differences(_read_numbers(codes, ends), lengths)
    if (runs < 0).any():
        raise ValueError(f"an RLE run must be a whole number of pixels, not {runs.min()}")
    return runs, lengths


def accumulate_within(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the running sums of (s,) values, from anew in each of the (r,) segments."""
    total = np.append(0, np.cumsum(values))
    return total[1:] - np.repeat(total[np.cumsum(lengths) - lengths], lengths)


def _read_numbers(codes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    starts = np.append(0, ends + 1)[:-1]
    sizes = np.diff(ends, prepend=-1)
    if sizes.max(initial=0) > LETTERS:
        raise ValueError(f"RLE counts hold a number of {sizes.max()} letters")
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, sizes))
    numbers = np.add.reduceat((codes & 0x1F) << shift, starts) if len(starts) else starts
    negative = codes[ends] & 0x10 > 0
    return numbers - (negative.astype(np.int64) << (5 * sizes))


def _undo_differences(numbers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Add to each number, from the fourth of an encoding on, the run before the last."""
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    runs = numbers.copy()
    odd, even = place % 2 == 1, (place % 2 == 0) & (place > 0)
    runs[odd] = accumulate_within(numbers[odd], lengths // 2)
    runs[even] = accumulate_within(numbers[even], np.maximum(lengths - 1, 0) // 2)
    return runs


def find_broken_counts(counts: Sequence[str], pixels: Sequence[int]) -> dict[int, str]:
    """Find the compressed encodings that cannot be decoded.

    Parameters
    ----------
    counts
        (r,) texts.
    pixels
        (r,) how many each has to cover: height times width.

    Returns
    -------
    dict
        Position to what is wrong there.
    """
    broken = {}
    waiting = [(at, min(at + CHUNK, len(counts))) for at in range(0, len(counts), CHUNK)]
    while waiting:
        start, stop = waiting.pop()
        try:
            runs, lengths = decode_runs(counts[start:stop])
        except ValueError as e:
            middle = (start + stop) // 2
            if stop - start > 1:
                waiting += [(start, middle), (middle, stop)]
            else:
                broken[start] = str(e)
            continue
        total, stops = np.append(0, np.cumsum(runs)), np.cumsum(lengths)
        covered = total[stops] - total[stops - lengths]
        for at in np.flatnonzero(covered != np.asarray(pixels[start:stop], np.int64)):
            wanted = pixels[start + int(at)]
            broken[start + int(at)] = f"RLE runs cover {covered[at]} pixels, not {wanted}"
    return broken
