"""Nearest neighbours by inner product: which rows of a gallery are most like a query."""

import numpy as np

# More than the rounding of a float32 matrix product of unit vectors.
ROUNDING = 1e-5


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

    def __init__(self, vectors: np.ndarray, *, block: int = 64):
        self.vectors = vectors
        self.block = block

    def search(
        self, queries: np.ndarray, k: int, *, exclude: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` most similar rows for each query, best first.

        Rows of equal score come in gallery order, so a rerun ranks alike; equal vectors score
        equally, and a query scores the same alone and among others.

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
            If `k` is not in [1, n], the queries have another width, or `exclude` does not
            hold one row, or -1, for each.
        """
        n, d = self.vectors.shape
        if not 1 <= k <= n:
            raise ValueError(f"k={k} is not in [1, {n}], the size of the gallery")
        if queries.ndim != 2 or queries.shape[1] != d:
            raise ValueError(f"queries must be (q, {d}), got {queries.shape}")
        exclude = _check_exclude(exclude, len(queries), n)
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), self.block):
            part = slice(start, start + self.block)
            for i, rough in enumerate(queries[part] @ self.vectors.T, start):
                rows[i], scores[i] = self._rank(queries[i], rough, k, exclude[i])
        return rows, scores

    def _rank(
        self, query: np.ndarray, rough: np.ndarray, k: int, excluded: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank by (n,) scores of a matrix product, computing those of the best again.

        The product rounds a row's score by where the row stands, so equal vectors would not tie.
        """
        if excluded >= 0:
            rough[excluded] = -np.inf
        floor = np.partition(rough, -k)[-k] - ROUNDING
        found = np.flatnonzero(rough >= floor)
        candidates = self.vectors if len(found) == len(rough) else self.vectors[found]
        scores = np.einsum("nd,d->n", candidates, query)
        scores[found == excluded] = -np.inf
        order = np.argsort(-scores, kind="stable")[:k]
        return np.where(found == excluded, -1, found)[order], scores[order]


def _check_exclude(exclude: np.ndarray | None, q: int, n: int) -> np.ndarray:
    if exclude is None:
        return np.full(q, -1)
    exclude = np.asarray(exclude)
    if exclude.shape != (q,) or ((exclude < -1) | (exclude >= n)).any():
        raise ValueError(f"exclude must be ({q},) rows in [-1, {n}), got {exclude}")
    return exclude
