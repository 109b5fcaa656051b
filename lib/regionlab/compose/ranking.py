"""Rank a gallery for composed vectors: whole, up to a target, or among look-alikes.

Composed vectors and the gallery's are of unit length, and the score is their cosine: higher is
better. Images of equal score come in gallery order, and equal vectors score equally.
"""

import numpy as np

from regionlab.data.triplets import Triplets
from regionlab.models.spaces import find_difference
from regionlab.search.engine import ExactEngine
from regionlab.search.exact import ROUNDING, rank_rows, score_rows
from regionlab.util.checks import check_count

BLOCK = 256  # queries compared with the gallery at a time
UNIT_TOLERANCE = 1e-3


def rank_gallery(
    composed: np.ndarray, gallery: np.ndarray, *, k: int, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` images most similar to each composed vector, best first.

    Parameters
    ----------
    composed, gallery
        (q, d) and (n, d) float32, unit length.
    k
        How many; all that there are, if they are fewer.
    exclude
        (q,) int, one row a query that is left out, such as its reference; None for none.

    Returns
    -------
    rows, scores
        (q, k) int64 and (q, k) float32.

    Raises
    ------
    ValueError
        If `k` is not positive, `exclude` does not fit, or the vectors are no pair of matrices
        of one width, finite and of unit length.
    """
    composed, gallery = check_vectors(composed, gallery)
    check_count("k", k)
    k = min(k, len(gallery) - (exclude is not None))
    return ExactEngine(gallery).search(composed, k, exclude=exclude)


def rank_targets(
    composed: np.ndarray,
    gallery: np.ndarray,
    targets: np.ndarray,
    *,
    exclude: np.ndarray | None = None,
) -> np.ndarray:
    """Return the place of each query's target in its ranking, (q,) int64 from 1.

    Counts the images ahead of the target instead of sorting; the place is that which
    `rank_gallery` gives. Memory holds the scores of 256 queries.

    Parameters
    ----------
    composed, gallery
        (q, d) and (n, d) float32, unit length.
    targets
        (q,) int, a row of the gallery each.
    exclude
        (q,) int, one row a query that is left out; None for none.

    Raises
    ------
    ValueError
        If a target is left out or no row of the gallery, there is not one for each query, or as
        `rank_gallery` does.
    """
    composed, gallery = check_vectors(composed, gallery)
    targets = np.asarray(targets)
    exclude = np.full(len(composed), -1) if exclude is None else np.asarray(exclude)
    for name, rows, least in (("targets", targets, 0), ("exclude", exclude, -1)):
        if rows.shape != composed.shape[:1] or ((rows < least) | (rows >= len(gallery))).any():
            raise ValueError(
                f"{name} must be {len(composed)} rows in [{least}, {len(gallery)}), got {rows}"
            )
    if (exclude == targets).any():
        raise ValueError("a target cannot be left out of its own ranking")
    ranks = np.empty(len(composed), np.int64)
    for start in range(0, len(composed), BLOCK):
        for i, rough in enumerate(composed[start : start + BLOCK] @ gallery.T, start):
            if exclude[i] >= 0:
                rough[exclude[i]] = -np.inf
            ranks[i] = 1 + _count_ahead(composed[i], gallery, rough, targets[i])
    return ranks


def rank_subsets(composed: np.ndarray, gallery: np.ndarray, triplets: Triplets) -> list[np.ndarray]:
    """Return each query's subset without its reference as rows of the gallery, best first."""
    ranked = []
    references = triplets.reference_rows
    for query, subset, own in zip(composed, triplets.queries["subset"], references, strict=True):
        rows = np.sort(triplets.rows_of(subset))
        rows = rows[rows != own]
        ranked.append(rank_rows(gallery, query, rows, len(rows))[0])
    return ranked


def check_vectors(
    composed: np.ndarray, gallery: np.ndarray, triplets: Triplets | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float32 if they can be compared.

    Parameters
    ----------
    composed, gallery
        (q, d) and (n, d), unit length.
    triplets
        What they are to be the vectors of; None where only their form is checked.

    Raises
    ------
    ValueError
        If one is no matrix, their widths or spaces differ, there is not a vector for each query or
        image, or one is not finite or not of unit length.
    """
    if difference := find_difference(composed, gallery):
        raise ValueError(f"composed vectors cannot be compared with the gallery: {difference}")
    composed = _check_unit("composed", composed)
    gallery = _check_unit("gallery", gallery)
    if composed.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"composed vectors are {composed.shape[1]} wide, the gallery's {gallery.shape[1]}: "
            "are they by different models?"
        )
    if triplets is None:
        return composed, gallery
    if len(composed) != len(triplets):
        raise ValueError(
            f"{len(composed):,} composed vectors for the {len(triplets):,} queries of "
            f"{triplets.title}"
        )
    if len(gallery) != len(triplets.gallery):
        raise ValueError(
            f"{len(gallery):,} gallery vectors for the {len(triplets.gallery):,} images of "
            f"{triplets.title}"
        )
    return composed, gallery


def _check_unit(name: str, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"{name} vectors must be a matrix, one a row, got shape {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # NaN is wrong too
    if len(wrong):
        raise ValueError(
            f"{name} vectors must be finite and of length 1; {len(wrong):,} of "
            f"{len(vectors):,} are not, the first, row {wrong[0]}, has {lengths[wrong[0]]:g}"
        )
    return vectors


def _count_ahead(query: np.ndarray, gallery: np.ndarray, rough: np.ndarray, target: int) -> int:
    """Count the images that come before a target, by (n,) scores of a matrix product.

    Only those about as similar as the target are compared again, without its rounding.
    """
    lead = rough - rough[target]
    close = np.flatnonzero(np.abs(lead) <= ROUNDING)
    scores = score_rows(gallery[close], query)
    own = scores[close == target]
    ahead = (scores > own) | ((scores == own) & (close < target))
    return np.count_nonzero(lead > ROUNDING) + np.count_nonzero(ahead)
