"""Exact search: the k best of all rows, with ties in the order of the rows.

Matrix products find candidates quickly, but round a row's score by where the row stands. So each
candidate is compared once more by itself (`score_rows`): equal vectors then tie.
"""

from collections.abc import Callable, Iterator

import numpy as np

from regionlab.util.errors import RegionlabError

ROUNDING = 1e-5  # more than that of a float32 matrix product of unit vectors
FEW = 2**14  # rows that are compared one by one at once, whatever the engine
GATHERED = 2**14  # rows that are taken out of the gallery at a time
SCORES = 2**20  # scores held at a time; they should stay in the processor's cache
FIRST = 2**12  # scores of a query that are sorted; the others are only compared
WINDOW = 32  # images looked at first below bounds: more are a waste, fewer cost rounds
LOWEST = np.finfo(np.float32).min


class EngineError(RegionlabError, ValueError):
    """An engine that is missing, damaged, of other vectors or out of reach; says what to do."""


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the `k` highest of (n,) scores, best first; equal ones in order."""
    places = np.arange(len(scores))
    if 0 < k < len(scores):
        kth = scores[np.argpartition(scores, -k)[-k]]
        places = np.flatnonzero(scores >= kth)
    return places[np.argsort(-scores[places], kind="stable")[:k]]


def multiply(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return (q, m) inner products; for two or three queries BLAS is faster one by one."""
    if len(queries) < 4:
        return np.stack([vectors @ query for query in queries])
    return queries @ vectors.T


def score_rows(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the (n,) inner products of (n, d) vectors and a query: equal vectors tie."""
    return np.einsum("nd,d->n", vectors, query)


def rank_rows(
    vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best `k` of some ascending rows by their exact scores, and these.

    EngineError if a row is not finite, which no score could be given to.
    """
    parts = np.split(rows, range(GATHERED, len(rows), GATHERED))
    scores = np.concatenate([score_rows(vectors[part], query) for part in parts])
    refuse_not_finite(rows[~np.isfinite(scores)])
    best = top_k(scores, k)
    return rows[best], scores[best]


def list_not_finite(vectors: np.ndarray) -> np.ndarray:
    """Return the rows that hold a number that is not finite."""
    return np.flatnonzero(~np.isfinite(vectors).all(axis=1))


def refuse_not_finite(rows: np.ndarray) -> None:
    """Raise `EngineError` if there are rows of a gallery that are not finite."""
    if len(rows):
        more = f", nor are {len(rows) - 1} more" if len(rows) > 1 else ""
        raise EngineError(
            f"row {rows[0]} of the vectors is not finite{more}: it would never be found. "
            "Compute the vectors again"
        )


def find_below_bounds(
    bounds: np.ndarray, look: Callable[[np.ndarray], dict[str, np.ndarray]], k: int
) -> dict[str, np.ndarray]:
    """Find the rows of the highest score, looking only at those that may be among them.

    Those of the highest bounds are looked at, until no other can come before the worst of the
    best. Rows of equal score come in rising order.

    Parameters
    ----------
    bounds
        (n,) no score is above it; inf where nothing is known, -inf for what is left out.
    look
        Takes (c,) rows in rising order and returns arrays whose last axis is that of the rows,
        among them `scores`, (c,).
    k
        How many rows.

    Returns
    -------
    dict
        Of `rows`, (k,) int64 or fewer, and what `look` has returned of these, best first.
    """
    bounds = np.array(bounds, np.float64)
    window, floor = max(k, WINDOW, np.isposinf(bounds).sum()), -np.inf
    parts: list[dict[str, np.ndarray]] = []
    while len(rows := _find_candidates(bounds, floor, window)) or not parts:
        parts.append({"rows": rows, **look(rows)})
        bounds[rows] = -np.inf
        scores = np.concatenate([part["scores"] for part in parts])
        if len(scores) >= k:
            floor = np.partition(scores, -k)[-k]
        window *= 2
    found = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    order = np.argsort(found["rows"])
    order = order[top_k(found["scores"][order], k)]
    return {name: values[..., order] for name, values in found.items()}


def _find_candidates(bounds: np.ndarray, floor: float, count: int) -> np.ndarray:
    """Return the rows of the `count` highest bounds of at least `floor`, in rising order."""
    rows = np.flatnonzero((bounds >= floor) & (bounds > -np.inf))
    return np.sort(rows[top_k(bounds[rows], count)]) if len(rows) > count else rows


def find_exactly(
    vectors: np.ndarray,
    queries: np.ndarray,
    k: int,
    exclude: np.ndarray,
    keep: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Yield (rows,) for each query, ascending, the best `k` of all that are left among them.

    `exclude` (q,) names one row a query that is left out, -1 for none; `keep` (n,) bool tells
    which rows may be found. EngineError if a row of `vectors` is not finite.
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
        rough = multiply(queries, vectors[start : start + step])
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
