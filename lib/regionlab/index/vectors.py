"""Files of vectors: written block by block, so that memory need not hold them, and opened."""

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

FAILURE_COLUMNS = ["image_id", "path", "reason"]


def write_failures(path: Path, failures: pd.DataFrame) -> None:
    r"""Write `FAILURE_COLUMNS` as text, every field in quotes.

    Line breaks, quotes, NUL, blanks and "NA" come back as they were; bytes of a name that are
    no Unicode as `\udcff` and the like.
    """
    rows = failures[FAILURE_COLUMNS].astype(object).to_numpy()
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(FAILURE_COLUMNS)
        writer.writerows(rows)


def read_failures(path: Path) -> pd.DataFrame:
    """Read what `write_failures` or `DataFrame.to_csv` wrote.

    Raises
    ------
    ValueError
        If the file is no such table.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
        except (csv.Error, ValueError) as e:
            raise ValueError(f"{path.name} cannot be read: {e}") from e
    bad = [row for row in rows if len(row) != len(FAILURE_COLUMNS)]
    if header != FAILURE_COLUMNS or bad:
        raise ValueError(
            f"{path.name} has the columns {header}, or a line of other length: {bad[:1]}"
        )
    return pd.DataFrame(rows, columns=FAILURE_COLUMNS, dtype="str")


BLOCK = 4096  # vectors in memory at once


class StackedVectors:
    """Vectors of several files as one table (n, d), read where rows of it are asked for.

    Parameters
    ----------
    parts
        Each its number of rows, and a function that returns them, (m, d) float32.
    dim
        Their length d.
    """

    def __init__(self, parts: Sequence[tuple[int, Callable[[], np.ndarray]]], dim: int):
        self.parts = list(parts)
        self._ends = np.cumsum([0, *(count for count, _ in parts)])
        self.shape = (int(self._ends[-1]), dim)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, (k, d) float32."""
        found = np.empty((len(rows), self.shape[1]), np.float32)
        owners = np.searchsorted(self._ends, rows, "right") - 1
        for owner in np.unique(owners):
            chosen = owners == owner
            found[chosen] = self.parts[owner][1]()[rows[chosen] - self._ends[owner]]
        return found


def merge_vectors(
    old: np.ndarray | StackedVectors,
    rows: np.ndarray,
    fresh: Iterator[np.ndarray],
    *,
    keep: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Yield a table of vectors in blocks, so that memory need not hold it.

    Parameters
    ----------
    old
        (m, d) float32.
    rows
        (n,) int64, which row of `old` each is; -1 for the next of the fresh ones.
    fresh
        (d,) float32 each.
    keep
        (n,) bool, which to yield; None for all.
    """
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        block = np.empty((len(part), old.shape[1]), np.float32)
        block[part >= 0] = old[part[part >= 0]]
        for row in np.flatnonzero(part < 0):
            block[row] = next(fresh)
        yield block if keep is None else block[keep[start : start + BLOCK]]


def write_vectors(path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    """Write (n, d) float32 vectors as `.npy`, block by block.

    Not through a memory map: on a full disk that ends the process, without a word.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).tobytes())


def open_vectors(path: Path) -> np.ndarray:
    """Return the vectors of a file, memory-mapped and read-only; a pickle is never loaded."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def digest_sample(vectors: np.ndarray) -> str:
    """Hash some rows from all over the file; to read all of a large one would take too long."""
    sample = np.ascontiguousarray(vectors[:: max(len(vectors) // 1000, 1)])
    return hashlib.sha256(sample.tobytes()).hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Let both names lead to the same bytes; nothing of an index is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
