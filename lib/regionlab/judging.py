"""What a ranking found: gains in ranked order, and what there was to find."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """Hold what each query found, and what there was to find.

    A gain says how relevant an image is: 0 not at all, more is better; bool or 0
    and 1 where relevance has no grades. An image with a gain above 0 is relevant.

    Parameters
    ----------
    gains
        (q, r) gains of the ranked images, best ranked first. The ranking may stop
        before the end of the gallery.
    ideal
        (q, m) gains of all relevant images in the gallery in any order, those
        beyond the end of the ranking too; zeros are ignored. Kept best first.

    Raises
    ------
    ValueError
        If a shape is wrong, a gain is negative or not finite, the ranking has no
        columns, or a query found more than its `ideal` holds.
    """

    gains: np.ndarray
    ideal: np.ndarray

    def __post_init__(self) -> None:
        gains, ideal = _check_gains("gains", self.gains), _check_gains("ideal", self.ideal)
        if gains.shape[1] == 0:
            raise ValueError(f"gains has shape {gains.shape}; a ranking needs a column")
        _check_same_length("gains", gains, "ideal", ideal)
        ideal = _sort_best_first(ideal)
        _check_found_exists(_sort_best_first(gains), ideal)
        object.__setattr__(self, "gains", gains.astype(np.float64))
        object.__setattr__(self, "ideal", ideal)

    def first(self, k: int) -> np.ndarray:
        """Return the first `k` gains of each query, fewer where the ranking is shorter.

        A ranking that already holds all relevant images can only go on with misses,
        so there `k` may be larger than its length, and than the gallery.

        Raises
        ------
        ValueError
            If `k` is not a positive int, or is beyond the end of the ranking while
            relevant images are missing from it: they could be among the first k.
        """
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be a positive int, not {k!r}")
        r = self.gains.shape[1]
        missing = int(self.n_relevant.sum()) - np.count_nonzero(self.gains)
        if k > r and missing:
            raise ValueError(
                f"k={k} goes beyond the {r} ranked images while {missing} relevant ones "
                f"are missing from them; search at least {k} deep"
            )
        return self.gains[:, :k]

    @property
    def n_relevant(self) -> np.ndarray:
        """(q,) int, the number of relevant images in the gallery."""
        return np.count_nonzero(self.ideal, axis=1)


def judge_ranking(
    rows: np.ndarray, relevance: np.ndarray, *, exclude: np.ndarray | None
) -> JudgedRanking:
    """Look up how relevant the ranked gallery rows are.

    Parameters
    ----------
    rows
        (q, r) int, gallery rows best first. -1 fills up a ranking that found fewer
        than r images, and counts as a miss.
    relevance
        (q, n) bool or non-negative gains, of each gallery row for each query.
    exclude
        (q,) int, gallery row of the query's own image, which does not count as
        relevant and must have been left out of the ranking; -1 for a query that is
        not in the gallery. None when no query is.

    Raises
    ------
    ValueError
        If shapes do not agree, a row is not in [-1, n), is ranked twice for one
        query or is the query's own, or a gain is negative or not finite.
    """
    relevance = _check_gains("relevance", relevance)
    rows = _check_rows("rows", rows, ndim=2, n=relevance.shape[1])
    _check_same_length("rows", rows, "relevance", relevance)
    _check_ranked_once(rows)
    if exclude is not None:
        exclude = _check_rows("exclude", exclude, ndim=1, n=relevance.shape[1])
        _check_same_length("exclude", exclude, "relevance", relevance)
        relevance = _without_own(rows, relevance, exclude)
    # The last column, a gain of nothing, is what row -1 reads.
    padded = np.pad(relevance, ((0, 0), (0, 1)))
    return JudgedRanking(np.take_along_axis(padded, rows, axis=1), relevance)


def judge_hits(hits: np.ndarray, n_relevant: np.ndarray) -> JudgedRanking:
    """Judge a ranking without grades, given how many relevant images there are.

    Parameters
    ----------
    hits
        (q, r) bool, whether the ranked image is relevant, best ranked first.
    n_relevant
        (q,) int, the number of relevant images in the gallery, beyond the end of
        the ranking too.

    Raises
    ------
    ValueError
        If `hits` is not bool or 0 and 1, or `n_relevant` is not a count for each
        query, at least the number of its hits.
    """
    hits, n_relevant = _check_gains("hits", hits), np.asarray(n_relevant)
    if not np.isin(hits, (0, 1)).all():
        raise ValueError(f"hits hold {hits.max()}; give graded gains to JudgedRanking")
    if n_relevant.dtype.kind not in "iu" or n_relevant.shape != hits.shape[:1]:
        raise ValueError(f"n_relevant must be one int for each of {len(hits)} queries")
    if (n_relevant < 0).any():
        raise ValueError(f"n_relevant holds {n_relevant.min()}; a count is 0 or more")
    return JudgedRanking(hits, np.arange(n_relevant.max(initial=0)) < n_relevant[:, None])


def _check_gains(name: str, gains: np.ndarray) -> np.ndarray:
    gains = np.asarray(gains)
    if gains.ndim != 2 or gains.dtype.kind not in "buif":
        raise ValueError(f"{name} must be (q, n) bool or numbers, not {gains.dtype} {gains.shape}")
    bad = ~np.isfinite(gains) | (gains < 0)
    if bad.any():
        query, column = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"{name}[{query}, {column}] is {gains[query, column]}; a gain is 0 or more and finite"
        )
    return gains


def _check_rows(name: str, rows: np.ndarray, *, ndim: int, n: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != ndim or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be int with {ndim} axes, not {rows.dtype} of shape {rows.shape}"
        )
    bad = rows[(rows < -1) | (rows >= n)]
    if bad.size:
        raise ValueError(f"{name} holds {bad[0]}; a gallery of {n} has rows 0 to {n - 1}, or -1")
    return rows.astype(np.intp)


def _check_same_length(name: str, array: np.ndarray, other_name: str, other: np.ndarray) -> None:
    if len(array) != len(other):
        raise ValueError(f"{name} has {len(array)} queries, {other_name} has {len(other)}")


def _check_ranked_once(rows: np.ndarray) -> None:
    ordered = np.sort(rows, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        query, column = np.argwhere(twice)[0].tolist()
        raise ValueError(f"query {query} ranks row {ordered[query, column]} more than once")


def _without_own(rows: np.ndarray, relevance: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """Return the relevance with each query's own image not relevant."""
    present = (rows == exclude[:, None]).any(axis=1) & (exclude >= 0)
    if present.any():
        query = int(present.argmax())
        raise ValueError(
            f"query {query} ranks its own image, row {exclude[query]}; leave it out of the search"
        )
    queries = np.flatnonzero(exclude >= 0)
    relevance = relevance.copy()
    relevance[queries, exclude[queries]] = 0
    return relevance


def _sort_best_first(gains: np.ndarray) -> np.ndarray:
    """Return (q, m) float64 gains in falling order, m the most that are above 0."""
    width = np.count_nonzero(gains, axis=1).max(initial=0)
    return np.sort(gains, axis=1)[:, ::-1][:, :width].astype(np.float64)


def _check_found_exists(found: np.ndarray, ideal: np.ndarray) -> None:
    """Check that the i-th best gain found is at most the i-th best there is."""
    missing = max(0, found.shape[1] - ideal.shape[1])
    there = np.pad(ideal, ((0, 0), (0, missing)))[:, : found.shape[1]]
    # Some slack, so that gains may be float32 and ideal float64.
    impossible = (found > there * (1 + 1e-6)).any(axis=1)
    if impossible.any():
        query = int(impossible.argmax())
        raise ValueError(
            f"query {query} found gains {found[query, :5]}, best first, "
            f"but its gallery's best are {ideal[query, :5]}"
        )
