"""Bootstrap intervals of means over queries, paired tests, and agreement between raters."""

from collections.abc import Sequence

import numpy as np

from regionlab.util.errors import check_choice

LEVELS = ("nominal", "ordinal", "interval")
_CELLS_A_BATCH = 2**21  # resampled values held at once: 16 MiB of float64


def krippendorff_alpha(ratings: np.ndarray, *, level: str = "ordinal") -> float:
    """Return Krippendorff's alpha: 1 is full agreement, 0 that of chance, below it is worse.

        alpha = 1 - observed disagreement / disagreement expected by chance

    over all pairs of values that two raters gave to the same unit (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability"). NaN where no unit has two ratings, or all values are the
    same, so that chance could not disagree either.

    Parameters
    ----------
    ratings
        (r, u) float, a row a rater and a column a unit; NaN where a rater gave none.
    level
        What the values mean: "nominal", different or not; "ordinal", their order; "interval",
        their distance.
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


def mean_with_ci(
    values: np.ndarray,
    *,
    seed: int | np.random.Generator,
    groups: Sequence | np.ndarray | None = None,
    n_resamples: int = 2000,
) -> dict:
    """Return the mean over queries and its 95 % percentile bootstrap interval.

    Where all values are 0, or all are 1, drawing them anew says nothing, and the interval is the
    exact one of a share (Clopper and Pearson 1934), here of as many queries or groups; for other
    values in [0, 1] than hits it errs on the wide side.

    Parameters
    ----------
    values
        (q,) one metric, a value a query; NaN is left out.
    seed
        Of the resampling. The same seed draws the same queries for each metric.
    groups
        (q,) a label a query; queries of one label, such as those about one image, are drawn
        together (the cluster bootstrap). The mean stays that over queries.
    n_resamples
        40 or more.

    Returns
    -------
    dict
        "value", "ci95" [low, high], "n" queries used, and "n_undefined" queries
        left out if there are any. Plain floats and ints.

    Raises
    ------
    ValueError
        If `values` is not (q,), holds infinity, or fewer than 2 values (or groups) are not NaN.
    """
    values = _check_values("values", values)
    defined, labels = _take_defined(values, groups)
    interval = _bootstrap_mean(defined, labels, np.random.default_rng(seed), n_resamples)
    if np.ptp(defined) == 0 and defined[0] in (0, 1):
        interval = exact_interval(int(defined[0]), _count_units(defined, labels))
    return {"value": float(defined.mean()), "ci95": interval, **_count(values)}


def summarise_parts(
    values: np.ndarray,
    parts: np.ndarray,
    *,
    seed: int,
    groups: Sequence | None = None,
    n_resamples: int = 2000,
) -> dict[str, dict]:
    """Summarise the queries of each part by themselves, such as those of one kind.

    `parts` (q,) names each query's part; all else is as for `mean_with_ci`. Returns part, in the
    order of names, to what that returns; without "ci95" where fewer than two queries (or groups)
    have a value, and no entry where none has.
    """
    values, parts, found = _check_values("values", values), np.asarray(parts), {}
    for part in np.unique(parts):
        rows = np.flatnonzero((parts == part) & ~np.isnan(values))
        labels = None if groups is None else [groups[row] for row in rows]
        if (len(rows) if labels is None else len(set(labels))) > 1:
            draws = {"seed": seed, "groups": labels, "n_resamples": n_resamples}
            found[str(part)] = mean_with_ci(values[rows], **draws)
        elif len(rows):
            found[str(part)] = {"value": float(values[rows].mean()), "n": len(rows)}
    return found


def exact_interval(share: int, n: int) -> list[float]:
    """Return the exact 95 % interval of a share that is 0 or 1 of n (Clopper and Pearson)."""
    far = 0.025 ** (1 / n)
    return [far, 1.0] if share else [0.0, 1 - far]


def compare_paired(
    a: np.ndarray,
    b: np.ndarray,
    *,
    seed: int | np.random.Generator,
    groups: Sequence | np.ndarray | None = None,
    n_resamples: int = 2000,
) -> dict:
    """Return how much better method a is than b on the same queries.

    The interval is the 95 % percentile bootstrap of the mean of a - b over queries. The p-value
    is two-sided, of the sign-flip permutation test (Fisher's randomization test; Smucker, Allan
    and Carterette 2007): if the methods were alike, each query's difference could as well have
    the other sign. It is 2 * min(left, right), where a tail is (1 + flips at least as extreme) /
    (1 + n_resamples), and never 0; with so few queries that all 2**n flips fit in `n_resamples`,
    each is counted once and p is exact. Where no flip is as extreme, p is not measured but
    bounded by the number of flips: "p_is_floor" says so. With `groups` a whole group has its
    sign flipped.

    Parameters
    ----------
    a, b
        (q,) the same metric of two methods for the same queries in the same order; a query that
        is NaN in either is left out.
    seed, groups, n_resamples
        As for `mean_with_ci`.

    Returns
    -------
    dict
        "value" mean(a) - mean(b), "ci95" [low, high], "p_value", "n" queries used,
        "p_is_floor" True where p is only known to be no larger, and "n_undefined" queries left
        out if there are any.

    Raises
    ------
    ValueError
        As `mean_with_ci`, or if `a` and `b` differ in length.
    """
    a, b = _check_values("a", a), _check_values("b", b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} queries, b has {len(b)}")
    differences = a - b
    defined, labels = _take_defined(differences, groups)
    rng = np.random.default_rng(seed)
    interval = _bootstrap_mean(defined, labels, rng, n_resamples)
    units = defined if labels is None else _sum_by_group(defined, labels)[0]
    p = _sign_flip_p(units, rng, n_resamples)
    floor = 2 / (1 + n_resamples)
    at_floor = 2.0 ** len(units) > n_resamples and p <= floor * (1 + 1e-9)
    return {
        "value": float(defined.mean()),
        "ci95": interval,
        "p_value": p,
        **({"p_is_floor": True} if at_floor else {}),
        **_count(differences),
    }


def compare_apart(
    a: np.ndarray, b: np.ndarray, *, seed: int | np.random.Generator, n_resamples: int = 2000
) -> dict:
    """Return how much higher the mean of `a` (q,) is than that of `b` (r,), of different queries.

    Each side is drawn anew by itself; NaN is left out. For the same queries `compare_paired`
    says more. Returns "value" mean(a) - mean(b), "ci95" of the 95 % percentile bootstrap, and
    "n" queries used on both sides.
    """
    rng, sides = np.random.default_rng(seed), []
    for name, values in (("a", a), ("b", b)):
        values, _ = _take_defined(_check_values(name, values), None)
        _check_enough(len(values), "queries", n_resamples)
        sides.append(values)
    drawn = [sample_groups(v[None], np.ones((1, len(v))), rng, n_resamples) for v in sides]
    return {
        "value": float(sides[0].mean() - sides[1].mean()),
        "ci95": np.percentile(drawn[0] - drawn[1], [2.5, 97.5]).tolist(),
        "n": sum(map(len, sides)),
    }


def sample_groups(
    sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator, n_resamples: int
) -> np.ndarray:
    """Return (n_resamples, m) means of m samples, made by drawing whole groups with replacement.

    `sums` and `counts` are (m, g): the sum and number of the values of each of g groups. NaN
    where a draw holds no value of a sample.
    """
    number = sums.shape[1]
    batch, means = max(1, _CELLS_A_BATCH // number), []
    for start in range(0, n_resamples, batch):
        size = min(batch, n_resamples - start)
        times = rng.multinomial(number, np.full(number, 1 / number), size=size)
        drawn = times @ counts.T
        means.append(times @ sums.T / np.where(drawn > 0, drawn, np.nan))
    return np.concatenate(means)


def _bootstrap_mean(
    values: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, n_resamples: int
) -> list[float]:
    from scipy.stats import bootstrap  # a second to import: only who asks pays

    number, what = _count_units(values, labels), "queries" if labels is None else "groups"
    _check_enough(number, what, n_resamples)
    if labels is not None:
        sums, counts = _sum_by_group(values, labels)
        means = sample_groups(sums[None], counts[None], rng, n_resamples)
        return np.percentile(means, [2.5, 97.5]).tolist()
    batch = max(1, _CELLS_A_BATCH // len(values))
    low, high = bootstrap(
        (values,), np.mean, n_resamples=n_resamples, batch=batch, method="percentile", rng=rng
    ).confidence_interval
    return [float(low), float(high)]


def _check_enough(number: int, what: str, n_resamples: int) -> None:
    if number < 2:
        raise ValueError(f"{number} {what} have a value; an interval needs 2 or more")
    if n_resamples < 40:
        raise ValueError(f"n_resamples={n_resamples} leaves 2.5 % below one; 40 or more is needed")


def _sum_by_group(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (g,) sums and (g,) counts of the values of each group."""
    return np.bincount(labels, values), np.bincount(labels)


def _count_units(values: np.ndarray, labels: np.ndarray | None) -> int:
    return len(values) if labels is None else len(np.unique(labels))


def _take_defined(
    values: np.ndarray, groups: Sequence | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values that are not NaN, and their groups numbered from 0 without gaps."""
    defined = ~np.isnan(values)
    if groups is None:
        return values[defined], None
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} queries have {len(groups)} groups; each needs one")
    numbers: dict = {}
    kept = [label for label, known in zip(groups, defined, strict=True) if known]
    labels = [numbers.setdefault(label, len(numbers)) for label in kept]
    return values[defined], np.array(labels, np.int64)


def _sign_flip_p(differences: np.ndarray, rng: np.random.Generator, n_resamples: int) -> float:
    from scipy.stats import permutation_test

    batch = max(1, _CELLS_A_BATCH // len(differences))
    test = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=batch,
        rng=rng,
    )
    return float(test.pvalue)


def _check_values(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError(f"{name} must be (q,) without infinity, has shape {values.shape}")
    return values


def _count(values: np.ndarray) -> dict[str, int]:
    undefined = int(np.isnan(values).sum())
    count = {"n": len(values) - undefined}
    return count | {"n_undefined": undefined} if undefined else count
