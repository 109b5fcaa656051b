"""The engine protocol, the exact engine, names of engines and the folders they are kept in."""

import ast
import hashlib
import json
import operator
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from pandas.api.types import is_bool_dtype

from regionlab.models.spaces import find_difference
from regionlab.search.exact import FEW, EngineError, find_exactly, list_not_finite, rank_rows
from regionlab.util.errors import InputError

SLACK = 8  # candidates beyond those asked for, so that equal rows at the cut-off are told apart
ANSWERED = 2**20  # places in rankings that are filled at a time
KNOWN = "exact, faiss:<index_factory string>, chroma, chroma:<host>:<port>"
SCHEMA = 1
MANIFEST = "engine.json"
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda column, values: column.isin(values),
    ast.NotIn: lambda column, values: ~column.isin(values),
}
Where = str | np.ndarray | Callable[[pd.DataFrame], Any]  # see `match_rows`


class Engine(ABC):
    """Find the rows of a gallery that are most like a query.

    Engines differ in how they find candidates, exactly or nearly. What they found is compared
    with the query once more, by the gallery's own vectors, so all engines give the same score
    to the same row, and rows of equal score come in gallery order. All ask the same filter, and
    where an engine finds fewer rows than there are to be found, all of them are compared.

    `name`, `vectors` and `table` are as for `build_engine`.
    """

    block = 1024  # queries answered at a time

    def __init__(self, name: str, vectors: np.ndarray, table: pd.DataFrame | None = None):
        check_gallery(vectors, table)
        self.name, self.vectors, self.table = name, vectors, table
        self.bytes = 4 * vectors.size  # that have to be in memory for a fast search

    def __repr__(self) -> str:
        n, d = self.vectors.shape
        return f"<{type(self).__name__} {self.name}: {n} x {d}>"

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        exclude: np.ndarray | None = None,
        where: Where | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` most similar rows for each query, best first.

        Equal vectors score equally, and a query scores the same alone and among others. (Of many
        equal rows at the cut-off, only the exact engine is sure to take the first.)

        Parameters
        ----------
        queries
            (q, d) float32.
        k
            At most n.
        exclude
            (q,) int: one row a query that is left out, -1 for none.
        where
            Only rows of the table that match, see `match_rows`.

        Returns
        -------
        rows
            (q, k) int64; -1 in the last places where exclusion or filter leaves fewer.
        scores
            (q, k) float32, cosine, higher is more similar; -inf where the row is -1.

        Raises
        ------
        EngineError
            If a server does not answer, the queries say that they are of another space than the
            gallery, or a row of the gallery is not finite.
        """
        queries, k = _check_queries(queries, self.vectors), _check_count(k, len(self.vectors))
        exclude = check_exclude(exclude, len(queries), len(self.vectors))
        keep = None if where is None else match_rows(self.table, where)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        block = max(1, min(self.block, ANSWERED // k))
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            found = self._find_enough(queries[part], k, exclude[part], keep)
            for i, candidates in enumerate(found, start):
                best, values = rank_rows(self.vectors, queries[i], candidates, k)
                rows[i, : len(best)], scores[i, : len(best)] = best, values
        return rows, scores

    @abstractmethod
    def _find(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, keep: np.ndarray | None
    ) -> Iterable[np.ndarray]:
        """Yield candidates for each query: ascending rows, without what must be left out.

        `keep` (n,) bool tells which rows the filter leaves; None for all.
        """

    def _find_enough(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, keep: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """Yield candidates, all rows that are left having been compared where too few come."""
        left = len(self.vectors) if keep is None else np.count_nonzero(keep)
        if keep is not None and left <= FEW:
            yield from find_exactly(self.vectors, queries, k, exclude, keep)
            return
        found = list(self._find(queries, k, exclude, keep))
        leaves_out = exclude >= 0 if keep is None else (exclude >= 0) & keep[exclude]
        wanted = np.minimum(k, left - leaves_out)
        short = np.flatnonzero([len(rows) for rows in found] < wanted)
        if len(short):
            complete = find_exactly(self.vectors, queries[short], k, exclude[short], keep)
            for i, rows in zip(short, complete, strict=True):
                found[i] = rows
        yield from found


class ExactEngine(Engine):
    """Compare each query with every vector: no approximation (what FAISS calls Flat IP).

    On unit vectors the inner product is the cosine (S0, equations 5, 6 and 8). `block` queries
    are compared at a time: more of them read the gallery less often; memory grows with neither.
    """

    def __init__(self, vectors: np.ndarray, *, table: pd.DataFrame | None = None, block: int = 256):
        super().__init__("exact", vectors, table)
        self.block = block

    def _find(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, keep: np.ndarray | None
    ) -> Iterable[np.ndarray]:
        return find_exactly(self.vectors, queries, k, exclude, keep)


# Arguments


def match_rows(table: pd.DataFrame | None, where: Where) -> np.ndarray:
    """Return which rows of a table a filter keeps, (n,) bool.

    Parameters
    ----------
    table
        The columns to ask about.
    where
        Comparisons of columns as for `DataFrame.query`, such as `label == "cat"`,
        `width >= 640 and label in ["cat", "dog"]` or `not sharp`; a function of the table; or
        the (n,) bool mask itself.

    Raises
    ------
    ValueError
        If there is no table, or the filter is none of these.
    """
    if table is None:
        raise InputError("there is no table to filter by: give one when the engine is built")
    if isinstance(where, str):
        where = _evaluate(table, where)
    keep = where(table) if callable(where) else where
    if isinstance(keep, pd.Series):
        keep = keep.to_numpy(bool, na_value=False) if is_bool_dtype(keep) else keep.to_numpy()
    keep = np.asarray(keep)
    if keep.shape != (len(table),) or keep.dtype != bool:
        raise InputError(
            f"a filter must give ({len(table)},) bool, got {keep.dtype} of shape {keep.shape}"
        )
    return keep


def _evaluate(table: pd.DataFrame, where: str) -> Any:
    """Compare columns and nothing else, unlike pandas' own: a filter may come from a web page."""
    try:
        return _evaluate_node(table, ast.parse(where.strip(), mode="eval").body)
    except (SyntaxError, TypeError) as e:
        known = ", ".join(map(str, table.columns))
        raise InputError(f"{where!r} cannot filter: {e}; known columns: {known}") from e


def _evaluate_node(table: pd.DataFrame, node: ast.expr) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name) if name in table.columns:
            return table[name]
        case ast.Name(name):
            known = ", ".join(map(str, table.columns))
            raise InputError(f"no column {name!r} to filter by; known: {known}")
        case ast.List(parts) | ast.Tuple(parts):
            return [_evaluate_node(table, part) for part in parts]
        case ast.UnaryOp(ast.Not(), operand):
            return ~_evaluate_node(table, operand)
        case ast.UnaryOp(ast.USub(), operand):
            return -_evaluate_node(table, operand)
        case ast.BoolOp(joint, parts):
            join = operator.and_ if isinstance(joint, ast.And) else operator.or_
            return reduce(join, (_evaluate_node(table, part) for part in parts))
        case ast.Compare(left, words, others) if all(type(word) in COMPARISONS for word in words):
            sides = [_evaluate_node(table, part) for part in (left, *others)]
            each = zip(words, sides, sides[1:], strict=False)
            return reduce(operator.and_, (COMPARISONS[type(word)](a, b) for word, a, b in each))
    raise InputError(f"only comparisons of columns can filter, got {ast.unparse(node)!r}")


def check_gallery(vectors: np.ndarray, table: pd.DataFrame | None) -> None:
    """Raise `ValueError` unless vectors are (n, d), not empty, with a row of the table each."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"vectors must be (n, d) with n and d at least 1, got {vectors.shape}")
    if table is not None and len(table) != len(vectors):
        raise ValueError(f"a table of {len(table)} rows for {len(vectors)} vectors")


def _check_queries(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return queries as an array, which keeps its space."""
    queries, d = np.asanyarray(queries), vectors.shape[1]
    if queries.dtype.kind not in "fiu":
        raise ValueError(f"queries must be numbers, got an array of {queries.dtype}")
    if queries.ndim != 2 or queries.shape[1] != d:
        raise ValueError(f"queries must be (q, {d}), got {queries.shape}")
    if len(bad := list_not_finite(queries)):
        raise ValueError(f"{len(bad)} of {len(queries)} queries not finite, first: {bad[0]}")
    if difference := find_difference(queries, vectors):
        raise EngineError(f"the queries cannot be compared with these vectors: {difference}")
    return queries


def _check_count(k: int, n: int) -> int:
    """Return a whole number, NumPy's too, as Python's own: FAISS and Chroma know no other."""
    if isinstance(k, bool | np.bool_) or not isinstance(k, int | np.integer):
        raise ValueError(f"k must be a whole number, got {k!r}")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is not in [1, {n}], the size of the gallery")
    return int(k)


def check_exclude(exclude: np.ndarray | None, q: int, n: int) -> np.ndarray:
    """Return (q,) int64 rows of a gallery of n that are left out, -1 for none."""
    if exclude is None:
        return np.full(q, -1)
    exclude = np.asarray(exclude)
    whole = exclude.dtype.kind in "iu" or not exclude.size
    if exclude.shape != (q,) or not whole or ((exclude < -1) | (exclude >= n)).any():
        raise ValueError(f"exclude must be ({q},) rows in [-1, {n}), got {exclude}")
    return exclude.astype(np.int64)


# Names


@dataclass(frozen=True)
class EngineName:
    """A name taken apart: `kind:argument?options`."""

    kind: str
    argument: str
    options: dict[str, str]

    @property
    def base(self) -> str:
        """The name without options, which decides what is kept on disk."""
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    def __str__(self) -> str:
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.base}?{options}" if options else self.base

    def check_options(self, known: Collection[str]) -> None:
        """Raise `ValueError` if an option is not among the known ones."""
        for option in self.options:
            if option not in known:
                allowed = ", ".join(known) or "none"
                raise InputError(f"{self.base} has no option {option!r}; known: {allowed}")

    def get_count(self, option: str, default: int) -> int:
        """Return an option that counts something; ValueError unless it is 1 or more."""
        value = self.options.get(option)
        if value is None:
            return default
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) < 1:
            raise InputError(
                f"{option} of {self.base} must be a whole number of at least 1, got {value!r}"
            )
        return int(value)


def parse_name(name: str) -> EngineName:
    """Take the name of an engine apart; ValueError with the known forms if it is none."""
    base, question, query = str(name).partition("?")
    kind, colon, argument = base.partition(":")
    known = {"exact": not colon, "faiss": bool(argument), "chroma": bool(argument) or not colon}
    if not known.get(kind):
        raise InputError(f"unknown engine {name!r}; known: {KNOWN}")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(question)))
    except ValueError as e:
        raise InputError(f"the options of {name!r} are not key=value, joined by &") from e
    return EngineName(kind, argument, options)


# Folders


def fingerprint_vectors(vectors: np.ndarray, identity: str = "") -> str:
    """Hash whose vectors these are, so that an engine of others is known.

    `identity` stands for their contents, such as the id of an index: then a thousand rows are
    read. All are read if it is empty.
    """
    digest = hashlib.sha256(f"{vectors.shape} {identity}".encode())
    step = max(len(vectors) // 1000, 1) if identity else 1
    for start in range(0, len(vectors), 1000 * step):
        rows = vectors[start : start + 1000 * step : step]
        digest.update(np.ascontiguousarray(rows, np.float32).tobytes())
    return digest.hexdigest()[:16]


def find_place(folder: Path | str | None, base: str) -> Path:
    """Return the folder of one engine in the folder of all; the same base, the same place."""
    if folder is None:
        raise ValueError(f"{base} is kept on disk: name a folder for it")
    readable = re.sub(r"[^A-Za-z0-9_,.-]+", "-", base)[:60]
    return Path(folder).expanduser() / f"{readable}.{hashlib.sha256(base.encode()).hexdigest()[:6]}"


@contextmanager
def staged_site(place: Path) -> Iterator[Path]:
    """Make a folder beside its place, which it takes in one move when all has gone well.

    EngineError if it cannot be written, or another process is building the same engine; what was
    there before stays.
    """
    site = place.with_name(f".{place.name}.building")
    try:
        site.mkdir(parents=True, exist_ok=True)
        with FileLock(site / "lock", timeout=0, fallback_to_soft=False):
            try:
                shutil.rmtree(site / "new", ignore_errors=True)
                (site / "new").mkdir()
                yield site / "new"
                _swap(site / "new", place, site / "old")
            finally:
                shutil.rmtree(site, ignore_errors=True)
    except Timeout as e:
        raise EngineError(f"another process is building {place}: wait until it is done") from e
    except OSError as e:
        raise EngineError(
            f"the engine cannot be written to {place}: {e.strerror or e}. What was there is not "
            "lost: make room, let it be written to, or name another folder"
        ) from e


def _swap(new: Path, place: Path, old: Path) -> None:
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    new.rename(place)


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write what an engine is into its folder."""
    text = json.dumps({"schema": SCHEMA, **facts}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(place: Path, name: str, fingerprint: str) -> dict[str, Any]:
    """Read what an engine is; EngineError if it is missing, damaged, or of other vectors."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        schema, written = manifest["schema"], manifest["fingerprint"]
    except (FileNotFoundError, NotADirectoryError) as e:
        raise EngineError(f"no engine {name} at {place}: build it") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EngineError(f"the engine at {place} is damaged ({e!r}): build it again") from e
    if schema != SCHEMA:
        raise EngineError(
            f"the engine at {place} has schema {schema}, not {SCHEMA}: build it again"
        )
    if written != fingerprint:
        raise EngineError(f"the engine at {place} is of other vectors: build it again")
    return manifest
