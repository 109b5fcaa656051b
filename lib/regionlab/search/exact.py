"""The exact engine: each query is compared with every vector, in bounded memory."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from regionlab.search.engine import FEW, ROUNDING, Engine, list_not_finite, refuse_not_finite

SCORES = 2**20  # scores held at a time; they should stay in the processor's cache
FIRST = 2**12  # scores of a query that are sorted; the others are only compared
LOWEST = np.finfo(np.float32).min


class ExactEngine(Engine):
    """Compare each query with every vector: no approximation (what FAISS calls Flat IP).

    On unit vectors the inner product is the cosine (S0, equations 5, 6 and 8).

    Parameters
    ----------
    vectors, table
        As for `Engine`.
    block
        Queries compared at a time. More of them read the gallery less often; memory does not
        grow with either.
    """

    def __init__(self, vectors: np.ndarray, *, table: pd.DataFrame | None = None, block: int = 256):
        super().__init__("exact", vectors, table)
        self.block = block

    def _find(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, keep: np.ndarray | None
    ) -> Iterable[np.ndarray]:
        return find_exactly(self.vectors, queries, k, exclude, keep)


def find_exactly(
    vectors: np.ndarray,
    queries: np.ndarray,
    k: int,
    exclude: np.ndarray,
    keep: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Yield rows for each query, ascending, the best `k` of all that are left among them.

    Parameters
    ----------
    vectors
        (n, d) float32.
    queries
        (q, d) float32.
    exclude
        (q,) int: one row a query that is left out, -1 for none.
    keep
        (n,) bool, the rows that may be found; None for all.

    Raises
    ------
    EngineError
        If a row is not finite.
    """
    left = len(vectors) if keep is None else np.count_nonzero(keep)
    if 4 * k >= left:
        rows = np.arange(left) if keep is None else np.flatnonzero(keep)
        yield from (rows[rows != row] for row in exclude)
    elif keep is not None and left <= FEW:
        rows = np.flatnonzero(keep)
        place = np.searchsorted(rows, exclude)
        place[rows[np.minimum(place, left - 1)] != exclude] = -1
        some = np.asarray(vectors[rows])
        refuse_not_finite(rows[list_not_finite(some)])
        for found in _find_best(some, queries, k, place):
            yield rows[found]
    else:
        yield from _find_best(vectors, queries, k, exclude, keep)


def _find_best(
    vectors: np.ndarray,
    queries: np.ndarray,
    k: int,
    exclude: np.ndarray,
    keep: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    hits = _Hits(len(queries), k)
    step = max(1, SCORES // len(queries))
    for start in range(0, len(vectors), step):
        rough = _multiply(queries, vectors[start : start + step])
        # No finite query has a finite score with a row that is not.
        refuse_not_finite(start + np.flatnonzero(~np.isfinite(rough[0])))
        if keep is not None:
            rough[:, ~keep[start : start + step]] = -np.inf
        here = np.flatnonzero((exclude >= start) & (exclude < start + step))
        rough[here, exclude[here] - start] = -np.inf
        hits.offer(rough, start)
        if hits.count > 4 * SCORES and len(queries) > 1:  # nearly everything ties
            half = len(queries) // 2
            for part in (slice(half), slice(half, None)):
                yield from _find_best(vectors, queries[part], k, exclude[part], keep)
            return
    yield from hits.get_rows()


def _multiply(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return (q, m) inner products; for two or three queries BLAS is faster one by one."""
    if len(queries) < 4:
        return np.stack([vectors @ query for query in queries])
    return queries @ vectors.T


class _Hits:
    """Rows that may be among the best `k` of each query, by rough scores.

    Nearly all scores are below what the best `k` of a query have so far, and one comparison
    tells; the few that are not are gathered, and thinned out when they have doubled.
    """

    def __init__(self, q: int, k: int):
        self.k = k
        self.floors = np.full(q, LOWEST)  # what is below cannot be among the best
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.count = self.thinned = 0

    def offer(self, rough: np.ndarray, start: int) -> None:
        """Take what may count of (q, m) scores of the rows from `start` on."""
        if not self.parts and rough.shape[1] >= self.k:
            first = rough[:, : max(FIRST, 4 * self.k)]
            kth = np.partition(first, -self.k, axis=1)[:, -self.k]
            self.floors = np.maximum(kth - ROUNDING, LOWEST)
        places = np.flatnonzero(rough >= self.floors[:, None])
        query, column = np.divmod(places, rough.shape[1])
        self.parts.append((query, column + start, rough.ravel()[places]))
        self.count += len(places)
        if self.count > 2 * self.thinned:
            self._thin_out()

    def get_rows(self) -> Iterator[np.ndarray]:
        """Yield the rows of each query, ascending."""
        query, row, _ = self._thin_out()
        order = np.lexsort((row, query))
        yield from np.split(row[order], self._starts(query)[1:])

    def _thin_out(self) -> tuple[np.ndarray, ...]:
        """Raise the floors to the k-th best so far and drop what is below."""
        query, row, score = map(np.concatenate, zip(*self.parts, strict=True))
        order = np.lexsort((-score, query))
        query, row, score = query[order], row[order], score[order]
        full = np.bincount(query, minlength=len(self.floors)) >= self.k
        kth = self._starts(query)[full] + self.k - 1
        self.floors[full] = score[kth] - ROUNDING
        kept = score >= self.floors[query]
        self.parts = [(query[kept], row[kept], score[kept])]
        self.count = self.thinned = int(kept.sum())
        return self.parts[0]

    def _starts(self, query: np.ndarray) -> np.ndarray:
        """Return where each query's rows begin, those of a query being together."""
        return np.searchsorted(query, np.arange(len(self.floors)))
