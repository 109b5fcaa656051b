"""Build, open and choose a search engine by name; all give a row the same score.

| name | finds | keeps |
|---|---|---|
| `exact` | all | nothing: it reads the vectors |
| `faiss:<index_factory string>` | `Flat` all, others nearly all | a file, mapped |
| `chroma` | nearly all | a folder |
| `chroma:<host>:<port>` | nearly all | a collection on a server (`chroma run --path FOLDER`) |

Options follow a question mark: `faiss:IVF256,SQ8?nprobe=16&k_factor=4`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from regionlab.search.chroma import open_chroma
from regionlab.search.engine import Engine, EngineName, ExactEngine, parse_name
from regionlab.search.exact import EngineError
from regionlab.search.faiss import (
    FaissEngine,
    build_faiss,
    estimate_bytes,
    list_factories,
    list_settings,
    open_faiss,
)
from regionlab.util.progress import progress

TIE = 1e-6  # a found row counts if its score is that of the k-th true one, whichever row it is


def build_engine(
    name: str,
    vectors: np.ndarray,
    *,
    folder: Path | str | None = None,
    identity: str = "",
    table: pd.DataFrame | None = None,
    ids: Sequence[str] | None = None,
    fresh: bool = False,
) -> Engine:
    """Return an engine over vectors: the one that is kept in a folder, else a new one.

    Parameters
    ----------
    name
        `exact`, `faiss:<index_factory string>`, `chroma` or `chroma:<host>:<port>`, each with
        `?option=value&...` if wanted.
    vectors
        (n, d) float32, one unit vector a row; may be memory-mapped, and is read in chunks.
    folder
        Where engines are kept; each has a folder in it by its name. Not for `exact` and servers.
    identity
        What stands for the contents of the vectors, such as the id of an index. If it is empty,
        all of them are read to know whether a kept engine is theirs.
    table
        n rows, what `where` can ask about.
    ids
        n different names of the rows, by which Chroma keeps them; row numbers if not given.
    fresh
        Build a FAISS index again, whatever is kept.

    Raises
    ------
    EngineError
        If a folder cannot be written, a server does not answer, or a collection is of another
        width, space or gallery.
    """
    parsed, kept = parse_name(name), {"folder": folder, "identity": identity, "table": table}
    if parsed.kind == "chroma":
        return open_chroma(parsed, vectors, ids=ids, build=True, **kept)
    if parsed.kind == "faiss" and not fresh:
        try:
            return open_faiss(parsed, vectors, **kept)
        except EngineError:  # none yet, of older vectors, or damaged
            pass
    if parsed.kind == "faiss":
        return build_faiss(parsed, vectors, **kept)
    return open_engine(name, vectors, table=table)


def open_engine(
    name: str,
    vectors: np.ndarray,
    *,
    folder: Path | str | None = None,
    identity: str = "",
    table: pd.DataFrame | None = None,
    ids: Sequence[str] | None = None,
) -> Engine:
    """Open an engine that was built; parameters as for `build_engine`.

    EngineError if there is none, it is of other vectors, damaged or incomplete.
    """
    parsed, kept = parse_name(name), {"folder": folder, "identity": identity, "table": table}
    if parsed.kind == "chroma":
        return open_chroma(parsed, vectors, ids=ids, **kept)
    if parsed.kind == "faiss":
        return open_faiss(parsed, vectors, **kept)
    parsed.check_options(())
    return ExactEngine(vectors, table=table)


@dataclass(frozen=True)
class Recommendation:
    """The engine to take, for `build_engine` and the searches, and what was measured to say so.

    `reached` says whether it has the recall that was asked for; else it is the best that memory
    allows. `table` has a row for each engine and setting, `exact` first: `engine`, its name;
    `factory` and `parameters`; `bytes` in memory; `build_seconds`; `milliseconds` a query, the
    median of single ones; `recall`, of the worst kind of query; `recall_<kind>` of each; `fits`,
    whether the memory holds it. What does not fit is not built: the rest is NaN.
    """

    name: str
    reached: bool
    table: pd.DataFrame


def recommend(
    vectors: np.ndarray,
    queries: Mapping[str, np.ndarray],
    *,
    memory: float | None = None,
    recall: float = 0.99,
    k: int = 10,
    factories: Sequence[str] | None = None,
    max_queries: int = 100,
    folder: Path | str | None = None,
    identity: str = "",
    seed: int = 0,
) -> Recommendation:
    """Measure engines on vectors and name the fastest that has the recall and fits in memory.

    Candidates and their settings follow FAISS's guidelines for choosing an index. Recall@k is
    the share of the k nearest, found by exact search, that an engine finds; the worst kind of
    query decides, for words lie elsewhere than the images that the cells were made from.

    Parameters
    ----------
    vectors
        (n, d) float32, unit length; may be memory-mapped.
    queries
        Kind, such as "image" and "text", to (q, d) float32 unit vectors that are not among
        `vectors`; of more than `max_queries` of a kind, that many are drawn by `seed`.
    memory
        Bytes that an engine may take; None for any number.
    factories
        FAISS factory strings to try; by default those of `list_factories`.
    folder, identity
        As for `build_engine`; without a folder the indexes are thrown away.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be in (0, 1], got {recall}")
    asked = _sample_queries(queries, max_queries, seed)
    n, d = vectors.shape
    exact = ExactEngine(vectors)
    truth = {kind: exact.search(asked[kind], k)[1] for kind in asked}
    rows = [_measure(exact, parse_name("exact"), asked, truth)]
    factories = list_factories(n, d, memory) if factories is None else list(factories)
    with TemporaryDirectory() as temporary:
        for factory in progress(factories, desc="measure engines"):
            bytes = estimate_bytes(factory, n, d)
            if memory is not None and bytes > memory:
                rows.append({"engine": f"faiss:{factory}", "factory": factory, "bytes": bytes})
                continue
            name = parse_name(f"faiss:{factory}")
            started = time.perf_counter()
            engine = build_faiss(name, vectors, folder=folder or temporary, identity=identity)
            built = {"build_seconds": time.perf_counter() - started}
            rows += [built | row for row in _sweep(engine, name, asked, truth, recall)]
            del engine
    table = pd.DataFrame(rows)
    table["fits"] = memory is None or table["bytes"] <= memory
    return Recommendation(*_choose(table, recall), table)


def _sample_queries(
    queries: Mapping[str, np.ndarray], most: int, seed: int
) -> dict[str, np.ndarray]:
    if not queries or any(len(vectors) == 0 for vectors in queries.values()):
        raise ValueError(
            "name at least one kind of query, such as {'image': ..., 'text': ...}, each with "
            f"vectors; got { ({kind: len(vectors) for kind, vectors in queries.items()}) }"
        )
    rng = np.random.default_rng(seed)
    return {
        kind: vectors[np.sort(rng.permutation(len(vectors))[:most])]
        for kind, vectors in queries.items()
    }


def _sweep(
    engine: FaissEngine,
    name: EngineName,
    queries: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    recall: float,
) -> Iterator[dict]:
    """Measure ever more careful settings, until one has the recall."""
    for options in list_settings(name.argument):
        name = EngineName("faiss", name.argument, {k: str(v) for k, v in options.items()})
        engine.tune(name)
        row = _measure(engine, name, queries, truth)
        yield row
        if row["recall"] >= recall:
            return


def _measure(
    engine: Engine,
    name: EngineName,
    queries: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
) -> dict:
    recalls, seconds = {}, []
    for kind, vectors in queries.items():
        scores = []
        for query in vectors:
            started = time.perf_counter()
            scores.append(engine.search(query[None], truth[kind].shape[1])[1][0])
            seconds.append(time.perf_counter() - started)
        found = np.stack(scores) >= truth[kind][:, -1:] - TIE
        recalls[f"recall_{kind}"] = float(found.mean())
    return {
        "engine": str(name),
        "factory": name.argument or name.kind,
        "parameters": str(name).partition("?")[2],
        "bytes": engine.bytes,
        "milliseconds": 1000 * float(np.median(seconds)),
        "recall": min(recalls.values()),
        **recalls,
    }


def _choose(table: pd.DataFrame, recall: float) -> tuple[str, bool]:
    """Return the fastest that fits and has the recall, else the one nearest to it."""
    fitting = table[table["fits"] & table["recall"].notna()]
    if fitting.empty:
        least = table["bytes"].min()
        raise ValueError(f"no engine fits in the memory: the smallest takes {least:,.0f} bytes")
    good = fitting[fitting["recall"] >= recall]
    if good.empty:
        return fitting.loc[fitting["recall"].idxmax(), "engine"], False
    return good.loc[good["milliseconds"].idxmin(), "engine"], True
