"""A blind rating study: who rates what in which order, and the book that keeps the ratings.

study = Study("first", queries, methods, per_rater=12, seed=0)
book = RatingBook("ratings.sqlite", study)
book.enrol("anna")
task = book.find_next("anna")
book.rate("anna", task.position, 4)
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from regionlab.paths import expand
from regionlab.ranking import check_count

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


class RatingError(ValueError):
    """Raised where a book of ratings is not the one asked for, or does not know a rater."""


class Task(NamedTuple):
    """One thing to rate: what a method found for a query, at a position from 1."""

    position: int
    query: str
    method: str


@dataclass(frozen=True)
class Study:
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


class RatingBook:
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

    def __init__(self, file: Path | str, study: Study):
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
