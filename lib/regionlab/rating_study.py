"""What ratings say: mean and interval of each method, comparisons, agreement; and simulated ones.

A table of ratings, as `RatingBook.read` returns it, has a row an answer with `rater`, `query`,
`method` and `rating` (1 to 5, NaN for a skip, which counts for nothing).

Intervals are for other queries and other raters of the same sort: both are drawn anew, with
replacement and independently (the pigeonhole bootstrap, Owen 2007), because ratings of one
query or by one rater are alike. They err on the wide side. With a single rater
they are over queries alone.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from regionlab.agreement import find_alpha
from regionlab.bootstrap import compare_paired
from regionlab.ratings import SCALE, RatingBook


def summarise_ratings(
    table: pd.DataFrame, *, seed: int, resamples: int = 2000
) -> dict[str, dict[str, object]]:
    """Return each method's mean rating with a 95 % interval over queries and raters.

    Returns
    -------
    dict
        Method to `{"value", "ci95", "n", "raters", "queries"}`, n the number of ratings.
    """
    table = table.dropna(subset="rating")
    return {
        method: _summarise_grid(_make_grid(part), seed, resamples)
        for method, part in table.groupby("method", sort=False)
    }


def compare_methods(
    table: pd.DataFrame, a: str, b: str, *, seed: int, resamples: int = 2000
) -> dict[str, object]:
    """Return how much higher method a is rated than b, by the same raters on the same queries.

    Only pairs of ratings count that one rater gave to both methods on one query. The p-value is
    two-sided, of the sign-flip test over queries on their mean differences, see
    `bootstrap.compare_paired`: it speaks of other queries, with these raters.

    Returns
    -------
    dict
        As of `summarise_ratings`, for the difference, with "p_value" and "p_is_floor"; n the
        number of pairs.

    Raises
    ------
    ValueError
        If fewer than two queries have such a pair.
    """
    table = table.dropna(subset="rating")
    one, other = (_make_grid(table[table["method"] == method]) for method in (a, b))
    grid = one - other  # aligned by names; NaN where either is missing
    difference = grid.mean(axis=0).dropna().to_numpy()
    test = compare_paired(difference, np.zeros(len(difference)), seed=seed, n_resamples=resamples)
    p_value = {name: test[name] for name in ("p_value", "p_is_floor") if name in test}
    return _summarise_grid(grid, seed, resamples) | p_value


def measure_agreement(
    table: pd.DataFrame, *, seed: int, resamples: int = 1000, level: str = "ordinal"
) -> dict[str, object]:
    """Return Krippendorff's alpha of the raters, with a 95 % interval over queries.

    A unit is what a method found for a query.

    Returns
    -------
    dict
        `{"value", "ci95", "n", "raters"}`, n the number of units that two or more rated. Value
        and interval are None where there is no such unit, or all ratings are the same.
    """
    grid = _make_grid(table.dropna(subset="rating"), columns=["query", "method"])
    ratings = grid.to_numpy()
    found = {
        "value": _none_for_nan(find_alpha(ratings, level=level)),
        "ci95": None,
        "n": int((grid.notna().sum() > 1).sum()),
        "raters": len(grid),
    }
    if found["value"] is None:
        return found
    queries = grid.columns.get_level_values("query")
    of_query = [np.flatnonzero(queries == query) for query in queries.unique()]
    rng, alphas = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = rng.integers(len(of_query), size=len(of_query))
        columns = np.concatenate([of_query[number] for number in drawn])
        alphas.append(find_alpha(ratings[:, columns], level=level))
    return found | {"ci95": np.nanpercentile(alphas, [2.5, 97.5]).tolist()}


def count_ratings(table: pd.DataFrame) -> pd.DataFrame:
    """Return how often each method got each rating: methods by 1 to 5."""
    table = table.dropna(subset="rating")
    counts = pd.crosstab(table["method"], table["rating"].astype(int))
    return counts.reindex(index=table["method"].unique(), columns=list(SCALE), fill_value=0)


def simulate_ratings(
    book: RatingBook,
    quality: Mapping[tuple[str, str], float],
    *,
    raters: int,
    seed: int,
    noise: float = 0.7,
    leaning: float = 0.4,
    skips: float = 0.02,
) -> None:
    """Fill a book by simulated raters, for trying out a study before people are asked.

    A rating is 1 + 4 * quality, plus how the rater leans, plus noise (both normal, of these
    deviations), rounded and kept in 1 to 5.

    Parameters
    ----------
    book
        Of a study that is marked as simulated.
    quality
        (query, method) to how good the answers are, in [0, 1].
    raters
        How many.
    skips
        Share of tasks that are skipped.

    Raises
    ------
    ValueError
        If the study is one of people.
    """
    if not book.study.simulated:
        raise ValueError(f"study {book.study.name!r} is one of people: nothing is made up in it")
    rng = np.random.default_rng(seed)
    for number in range(1, raters + 1):
        rater = f"simulated {number}"
        book.enrol(rater)
        lean = rng.normal(0, leaning)
        for task in book.get_sheet(rater):
            exact = 1 + 4 * quality[task.query, task.method] + lean + rng.normal(0, noise)
            rating = int(np.clip(np.rint(exact), 1, 5))
            book.rate(rater, task.position, None if rng.random() < skips else rating)


def _make_grid(table: pd.DataFrame, columns: str | list[str] = "query") -> pd.DataFrame:
    """Return raters by queries (or units), NaN where there is no rating."""
    return table.pivot(index="rater", columns=columns, values="rating")


def _summarise_grid(grid: pd.DataFrame, seed: int, resamples: int) -> dict[str, object]:
    """Return the mean of a grid's values, and its interval over rows and columns."""
    grid = grid.dropna(how="all").dropna(axis=1, how="all")
    given = grid.notna().to_numpy()
    values = grid.fillna(0).to_numpy()
    rng = np.random.default_rng(seed)
    rows, columns = (
        rng.multinomial(size, np.full(size, 1 / size), resamples) for size in values.shape
    )
    drawn = ((rows @ given) * columns).sum(axis=1)
    some = drawn > 0  # where raters share few queries, a draw may hold none
    means = ((rows @ values) * columns).sum(axis=1)[some] / drawn[some]
    return {
        "value": float(values.sum() / given.sum()),
        "ci95": np.percentile(means, [2.5, 97.5]).tolist(),
        "n": int(given.sum()),
        "raters": len(grid),
        "queries": grid.shape[1],
    }


def _none_for_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
