"""How sure is a mean over queries: bootstrap intervals and paired comparison."""

import numpy as np

_CELLS_A_BATCH = 2**21  # resampled values held at once: 16 MiB of float64


def summarise(
    values: np.ndarray, *, seed: int | np.random.Generator, n_resamples: int = 2000
) -> dict:
    """Return the mean over queries and its 95 % percentile bootstrap interval.

    Queries are drawn as if independent: where several come from one image, give
    the mean of each image. Identical values make an interval without width, so
    do not read [1, 1] from a few queries as certainty.

    Parameters
    ----------
    values
        (q,) one metric, a value a query; NaN is left out.
    seed
        Of the resampling. The same seed draws the same queries for each metric.
    n_resamples
        Number of resamples.

    Returns
    -------
    dict
        "value", "ci95" [low, high], "n" queries used, and "n_undefined" queries
        left out if there are any. Plain floats and ints.

    Raises
    ------
    ValueError
        If `values` is not (q,), holds infinity, fewer than 2 values are not NaN, or
        `n_resamples` is below 40.
    """
    values = _check_values("values", values)
    defined = values[~np.isnan(values)]
    interval = _bootstrap_mean(defined, np.random.default_rng(seed), n_resamples)
    return {"value": float(defined.mean()), "ci95": interval, **_count(values)}


def compare_paired(
    a: np.ndarray, b: np.ndarray, *, seed: int | np.random.Generator, n_resamples: int = 2000
) -> dict:
    """Return how much better method a is than b on the same queries.

    The interval is the 95 % percentile bootstrap of the mean of a - b over queries.
    The p-value is two-sided, of the sign-flip permutation test (Fisher's
    randomization test; Smucker, Allan and Carterette 2007): if the methods were
    alike, each query's difference could as well have the other sign. It is
    2 * min(left, right), where a tail is (1 + flips at least as extreme) /
    (1 + n_resamples), and never 0; with so few queries that all 2**n flips fit
    in `n_resamples`, each is counted once and p is exact.

    Parameters
    ----------
    a, b
        (q,) the same metric of two methods for the same queries in the same order.
        A query that is NaN in either is left out.
    seed
        Of the resampling.
    n_resamples
        Number of resamples, and the most sign flips.

    Returns
    -------
    dict
        "difference" mean(a) - mean(b), "ci95" [low, high], "p_value", "n" queries
        used, and "n_undefined" queries left out if there are any.

    Raises
    ------
    ValueError
        If `a` and `b` are not (q,) of one length, hold infinity, fewer than 2
        queries have both values, or `n_resamples` is below 40.
    """
    a, b = _check_values("a", a), _check_values("b", b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} queries, b has {len(b)}")
    differences = a - b
    defined = differences[~np.isnan(differences)]
    rng = np.random.default_rng(seed)
    interval = _bootstrap_mean(defined, rng, n_resamples)
    return {
        "difference": float(defined.mean()),
        "ci95": interval,
        "p_value": _sign_flip_p(defined, rng, n_resamples),
        **_count(differences),
    }


def _bootstrap_mean(values: np.ndarray, rng: np.random.Generator, n_resamples: int) -> list[float]:
    from scipy.stats import bootstrap  # a second to import: only who asks pays

    if len(values) < 2:
        raise ValueError(f"{len(values)} queries have a value; an interval needs 2 or more")
    if n_resamples < 40:
        raise ValueError(f"n_resamples={n_resamples} leaves 2.5 % below one; 40 or more is needed")
    batch = max(1, _CELLS_A_BATCH // len(values))
    low, high = bootstrap(
        (values,), np.mean, n_resamples=n_resamples, batch=batch, method="percentile", rng=rng
    ).confidence_interval
    return [float(low), float(high)]


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
