"""A blind rating study: who rates what in which order, the ratings kept, and what they say.

study = RatingStudy("first", queries, methods, per_rater=12, seed=0)
store = RatingStore("ratings.sqlite", study)
store.enrol("anna")
task = store.find_next("anna")
store.rate("anna", task.position, 4)

A table of ratings, as `RatingStore.read` returns it, has a row an answer with `rater`, `query`,
`method` and `rating` (1 to 5, NaN for a skip, which counts for nothing).

Intervals are for other queries and other raters of the same sort: both are drawn anew, with
replacement and independently (the pigeonhole bootstrap, Owen 2007), because ratings of one
query or by one rater are alike. They err on the wide side. With a single rater
they are over queries alone.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from regionlab.metrics.stats import compare_paired, krippendorff_alpha
from regionlab.util.errors import RegionlabError, check_count
from regionlab.util.paths import expand

SCALE = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "excellent"}  # ITU-T P.800's words
PATIENCE = 30  # seconds that a writer waits for another

SCHEMA = """
CREATE TABLE IF NOT EXISTS study (plan TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
    rater TEXT PRIMARY KEY, number INTEGER UNIQUE NOT NULL, enrolled TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ratings (
    time TEXT NOT NULL,
    rater TEXT NOT NULL REFERENCES raters,
    position INTEGER NOT NULL,
    query TEXT NOT NULL,
    method TEXT NOT NULL,
    rating INTEGER CHECK (rating BETWEEN 1 AND 5),  -- NULL: skipped
    PRIMARY KEY (rater, position)
);
"""


class RatingError(RegionlabError, ValueError):
    """Raised where a book of ratings is not the one asked for, or does not know a rater."""


class Task(NamedTuple):
    """One thing to rate: what a method found for a query, at a position from 1."""

    position: int
    query: str
    method: str


@dataclass(frozen=True)
class RatingStudy:
    """What is rated, and by whom in which order.

    A rater gets `per_rater` queries and rates every method on each, so that methods are
    compared within raters and queries. Rater after rater takes the next queries of the list and
    begins anew at its end: whoever stops coming, no query has been handed out two times more
    than another. The methods of a query come in the order of a row of a Williams square, with
    the next row the next time: each method is equally often first, second, ..., and equally
    often after each other one. The order of a rater's queries is random.

    Parameters
    ----------
    name
        Of the study.
    queries, methods
        Names, unique.
    per_rater
        How many queries a rater is asked about.
    seed
        Mixes queries and methods.
    simulated
        Whether the raters are simulated ones: a book holds people or these, never both.

    Raises
    ------
    ValueError
        If names are missing or given twice, or a rater should rate more queries than there are.
    """

    name: str
    queries: tuple[str, ...]
    methods: tuple[str, ...]
    per_rater: int
    seed: int = 0
    simulated: bool = False

    def __post_init__(self) -> None:
        for kind in ("queries", "methods"):
            names = tuple(map(str, getattr(self, kind)))
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{kind} must be one or more different names, got {names}")
            object.__setattr__(self, kind, names)
        check_count("per_rater", self.per_rater)
        if self.per_rater > len(self.queries):
            raise ValueError(f"per_rater is {self.per_rater}, of {len(self.queries)} queries")

    def __len__(self) -> int:
        """Return the number of tasks of a rater."""
        return self.per_rater * len(self.methods)

    def make_sheet(self, number: int) -> list[Task]:
        """Return the tasks of the rater with a number, from 0, in their order."""
        rng = np.random.default_rng(self.seed)
        queries, methods = rng.permutation(self.queries), rng.permutation(self.methods)
        square = make_williams_square(len(methods))
        handed_out = number * self.per_rater + np.arange(self.per_rater)
        pairs = []
        for turn in np.random.default_rng([self.seed, number]).permutation(handed_out):
            time, query = divmod(turn, len(queries))
            order = methods[square[(query + time) % len(square)]]
            pairs += [(str(queries[query]), str(method)) for method in order]
        return [Task(position, *pair) for position, pair in enumerate(pairs, 1)]


def make_williams_square(m: int) -> np.ndarray:
    """Return orders of m things, (m, m) int, or (2 m, m) if m is odd (Williams 1949).

    Each thing is equally often at each place, and equally often directly after each other one.
    """
    steps = np.arange(m)
    first = np.where(steps % 2, (steps + 1) // 2, -steps // 2)
    rows = (first + steps[:, None]) % m
    return rows if m % 2 == 0 else np.vstack([rows, rows[:, ::-1]])


class RatingStore:
    """Ratings of a study in an SQLite file, written as they come; many may write at a time.

    Parameters
    ----------
    file
        Made if it is not there. On a disk of this machine: the write-ahead log that lets raters
        not wait for each other does not work on network drives.
    study
        Which study. A file holds one.

    Raises
    ------
    RatingError
        If the file is of another study, no SQLite file, or cannot be written to; the same where
        it fails later.
    """

    def __init__(self, file: Path | str, study: RatingStudy):
        self.file, self.study = expand(file), study
        self.file.parent.mkdir(parents=True, exist_ok=True)
        plan = json.dumps(asdict(study), sort_keys=True)
        with self._open() as base:
            base.execute("PRAGMA journal_mode = WAL")
            base.executescript(SCHEMA)
            base.execute("BEGIN IMMEDIATE")
            found = base.execute("SELECT plan FROM study").fetchone()
            if found is None:
                base.execute("INSERT INTO study VALUES (?)", (plan,))
            base.execute("COMMIT")
        if found and found[0] != plan:
            theirs, ours = json.loads(found[0]), json.loads(plan)
            differing = [name for name in ours if ours[name] != theirs.get(name)]
            raise RatingError(
                f"{self.file} holds study {theirs['name']!r} with other {', '.join(differing)}: "
                "take another file for this study"
            )

    def __repr__(self) -> str:
        table = self.read()
        kind = "simulated ratings" if self.study.simulated else "ratings"
        return f"<RatingBook {self.study.name}: {len(table)} {kind} by {table['rater'].nunique()}>"

    def enrol(self, rater: str) -> int:
        """Return a rater's number, a new one for a new name.

        Raises
        ------
        RatingError
            If the name is empty.
        """
        if not rater.strip():
            raise RatingError("a rater needs a name, or any code that stays the same")
        with self._open() as base:
            base.execute("BEGIN IMMEDIATE")  # two newcomers never get one number
            base.execute(
                "INSERT OR IGNORE INTO raters "
                "SELECT ?, COALESCE(MAX(number) + 1, 0), ? FROM raters",
                (rater, _now()),
            )
            base.execute("COMMIT")
            return self._find_number(base, rater)

    def get_sheet(self, rater: str) -> list[Task]:
        """Return a rater's tasks.

        Raises
        ------
        RatingError
            If the rater is not enrolled.
        """
        with self._open() as base:
            return self.study.make_sheet(self._find_number(base, rater))

    def find_next(self, rater: str) -> Task | None:
        """Return the first task without an answer: where to begin or go on; None at the end."""
        answered = self.get_answers(rater)
        left = (task for task in self.get_sheet(rater) if task.position not in answered)
        return next(left, None)

    def get_answers(self, rater: str) -> dict[int, int | None]:
        """Return position to rating for all that a rater has answered; None is a skip."""
        with self._open() as base:
            asked = "SELECT position, rating FROM ratings WHERE rater = ?"
            return dict(base.execute(asked, (rater,)).fetchall())

    def rate(self, rater: str, position: int, rating: int | None) -> None:
        """Write down a rating, from 1 to 5, or None for a skip; another one replaces it.

        Raises
        ------
        RatingError
            If the rater is not enrolled.
        ValueError
            If there is no such position or rating.
        """
        if rating is not None and (isinstance(rating, bool) or rating not in SCALE):
            raise ValueError(f"a rating must be 1, 2, 3, 4 or 5, or None to skip, got {rating!r}")
        if isinstance(position, bool) or position not in range(1, len(self.study) + 1):
            raise ValueError(f"position must be 1 to {len(self.study)}, got {position!r}")
        task = self.get_sheet(rater)[position - 1]
        with self._open() as base:
            row = (_now(), rater, *task, None if rating is None else int(rating))
            base.execute("INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?)", row)

    def read(self) -> pd.DataFrame:
        """Return all answers: `time` (UTC), `rater`, `position`, `query`, `method`, `rating`.

        In the order of time; `rating` is NaN for a skip.
        """
        with self._open() as base:
            table = pd.read_sql_query("SELECT * FROM ratings ORDER BY time, rater, position", base)
        return table.astype({"rating": float})

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # One connection a call: no thread or process is in another's way.
        try:
            base = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)
            with closing(base):
                yield base
        except sqlite3.Error as e:
            raise RatingError(f"{self.file} cannot be used for ratings: {e}") from e

    def _find_number(self, base: sqlite3.Connection, rater: str) -> int:
        asked = "SELECT number FROM raters WHERE rater = ?"
        if (found := base.execute(asked, (rater,)).fetchone()) is None:
            raise RatingError(f"nobody is enrolled as {rater!r}")
        return found[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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
    `stats.compare_paired`: it speaks of other queries, with these raters.

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
        "value": _none_for_nan(krippendorff_alpha(ratings, level=level)),
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
        alphas.append(krippendorff_alpha(ratings[:, columns], level=level))
    return found | {"ci95": np.nanpercentile(alphas, [2.5, 97.5]).tolist()}


def count_ratings(table: pd.DataFrame) -> pd.DataFrame:
    """Return how often each method got each rating: methods by 1 to 5."""
    table = table.dropna(subset="rating")
    counts = pd.crosstab(table["method"], table["rating"].astype(int))
    return counts.reindex(index=table["method"].unique(), columns=list(SCALE), fill_value=0)


def simulate_ratings(
    book: RatingStore,
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
