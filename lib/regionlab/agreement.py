"""Do raters agree? Krippendorff's alpha."""

import numpy as np

from regionlab.ranking import check_choice

LEVELS = ("nominal", "ordinal", "interval")


def find_alpha(ratings: np.ndarray, *, level: str = "ordinal") -> float:
    """Return Krippendorff's alpha: 1 is full agreement, 0 that of chance, below it is worse.

        alpha = 1 - observed disagreement / disagreement expected by chance

    over all pairs of values that two raters gave to the same unit (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability"). Any number of raters, and each may have left out units.

    Parameters
    ----------
    ratings
        (r, u) float, a row a rater and a column a unit; NaN where a rater gave none. Units with
        fewer than two ratings have no pair and do not count.
    level
        What the values mean: "nominal", different or not; "ordinal", their order; "interval",
        their distance.

    Returns
    -------
    float
        NaN where nothing can be said: no unit has two ratings, or all values are the same, so
        that chance could not disagree either.

    Raises
    ------
    ValueError
        If the ratings are not (r, u) or infinite, or the level is unknown.
    """
    check_choice("level", level, LEVELS)
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or np.isinf(ratings).any():
        raise ValueError(f"ratings must be (r, u) and not infinite, got shape {ratings.shape}")
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(axis=0)  # (u, v), how often a unit got a value
    counts = counts[counts.sum(axis=1) > 1]
    pairs = _count_pairs(counts)
    totals = pairs.sum(axis=0)
    distances = _square_distances(values, totals, level)
    expected = (np.outer(totals, totals) * distances).sum()
    if expected == 0:
        return float("nan")
    return float(1 - (totals.sum() - 1) * (pairs * distances).sum() / expected)


def _count_pairs(counts: np.ndarray) -> np.ndarray:
    """Return the coincidence matrix (v, v): each unit has the weight of its number of ratings."""
    weights = 1 / (counts.sum(axis=1) - 1)
    with_itself = np.diag(weights @ counts)
    return counts.T @ (weights[:, None] * counts) - with_itself


def _square_distances(values: np.ndarray, totals: np.ndarray, level: str) -> np.ndarray:
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    # Ordinal: how many ratings lie between two values, half of those at the ends.
    places = values if level == "interval" else np.cumsum(totals) - totals / 2
    return (places[:, None] - places) ** 2
