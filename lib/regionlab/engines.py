"""Nearest neighbours by inner product: which rows of a gallery are most like a query."""

import numpy as np


class ExactEngine:
    """Compare each query with every vector: no approximation (what FAISS calls Flat IP).

    On unit vectors the inner product is the cosine (S0, equations 5, 6 and 8).

    Parameters
    ----------
    vectors
        (n, d) float32, one unit vector a row; may be memory-mapped.
    block
        Queries compared at a time; bounds the memory at block x n scores.
    """

    name = "exact"

    def __init__(self, vectors: np.ndarray, *, block: int = 256):
        self.vectors = vectors
        self.block = block

    def search(
        self, queries: np.ndarray, k: int, *, exclude: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` most similar rows for each query, best first.

        Rows of equal score come in gallery order, so a rerun ranks alike.

        Parameters
        ----------
        queries
            (q, d) float32.
        k
            At most n.
        exclude
            (q,) int: one row a query that is left out, -1 for none. Where that leaves fewer
            than `k`, the last place has row -1 and score -inf.

        Returns
        -------
        rows
            (q, k) int64.
        scores
            (q, k) float32, cosine, higher is more similar.

        Raises
        ------
        ValueError
            If `k` is not in [1, n] or the queries have another width.
        """
        n, d = self.vectors.shape
        if not 1 <= k <= n:
            raise ValueError(f"k={k} is not in [1, {n}], the size of the gallery")
        if queries.ndim != 2 or queries.shape[1] != d:
            raise ValueError(f"queries must be (q, {d}), got {queries.shape}")
        if exclude is not None and np.shape(exclude) != (len(queries),):
            raise ValueError(f"exclude must be ({len(queries)},), got {np.shape(exclude)}")
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), self.block):
            part = slice(start, start + self.block)
            similarity = queries[part] @ self.vectors.T  # (block, n)
            if exclude is not None:
                own = np.flatnonzero(exclude[part] >= 0)
                similarity[own, exclude[part][own]] = -np.inf
            rows[part], scores[part] = top_k(similarity, k)
        rows[scores == -np.inf] = -1
        return rows, scores


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` highest scores of each row and their columns, best first, ties in order.

    Parameters
    ----------
    scores
        (q, n) float.
    k
        In [1, n].

    Returns
    -------
    columns
        (q, k) int64.
    values
        (q, k), non-increasing.
    """
    q, n = scores.shape
    columns = (
        np.argpartition(-scores, k - 1, axis=1)[:, :k] if k < n else np.tile(np.arange(n), (q, 1))
    )
    values = np.take_along_axis(scores, columns, 1)
    # A partition picks any of the columns that tie for the last place: give it to the first.
    worst = values.min(1)
    for row in np.flatnonzero((scores >= worst[:, None]).sum(1) > k):
        columns[row] = np.argsort(-scores[row], kind="stable")[:k]
        values[row] = scores[row, columns[row]]
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)
