"""Synthetic vectors, engines side by side at growing sizes, and what a machine can hold."""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from regionlab.metrics.stats import mean_with_ci
from regionlab.models.spaces import to_unit
from regionlab.search.engine import Engine, ExactEngine
from regionlab.search.engines import TIE, build_engine, recommend
from regionlab.search.faiss import estimate_bytes
from regionlab.util.progress import time_interleaved

CHUNK = 2**22  # numbers drawn at a time


def sample_clusters(
    n: int, d: int, *, clusters: int = 1000, spread: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Draw unit vectors around random centres, (n, d) float32.

    Parameters
    ----------
    clusters
        How many centres; each vector has one by chance.
    spread
        Length of the noise that is added to a centre, which is of length 1.
    seed
        Of centres and noise.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    if min(n, d, clusters) < 1:
        raise ValueError(f"n, d and clusters must be at least 1, got {n}, {d}, {clusters}")
    rng = np.random.default_rng(seed)
    centres = to_unit(rng.normal(size=(clusters, d))).astype(np.float32)
    return grow_vectors(centres, n, spread=spread, seed=seed + 1)


def grow_vectors(vectors: np.ndarray, n: int, *, spread: float, seed: int = 0) -> np.ndarray:
    """Draw unit vectors each near one of those given, (n, d) float32.

    A gallery that is larger than a collection at hand but lies as it does, so that queries in
    words are as far from it as from real images.

    Parameters
    ----------
    vectors
        (m, d) float, unit length.
    spread
        Length of the noise that is added.
    seed
        Of the choice and the noise.

    Raises
    ------
    ValueError
        If there are no vectors, or `n` or `spread` is not positive.
    """
    m, d = vectors.shape
    if min(m, n) < 1 or not spread > 0:
        raise ValueError(f"vectors, n and spread must be positive, got {m}, {n}, {spread}")
    rng = np.random.default_rng(seed)
    grown = np.empty((n, d), np.float32)
    for start in range(0, n, CHUNK // d):
        part = grown[start : start + CHUNK // d]
        noise = rng.standard_normal(part.shape, np.float32)
        np.add(vectors[rng.integers(m, size=len(part))], spread / d**0.5 * noise, out=part)
        part[:] = to_unit(part)
    return grown


LATER = 1_000_000  # vectors from which a cost a vector is read off the arithmetic


def compare_engines(
    vectors: np.ndarray,
    queries: Mapping[str, np.ndarray],
    factories: Sequence[str],
    *,
    others: Mapping[str, np.ndarray],
    chroma: bool = False,
    recall: float = 0.99,
    k: int = 10,
    folder: Path,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build engines over vectors and measure each at the setting that reaches the recall.

    Parameters
    ----------
    vectors
        (n, d) float32, unit length.
    queries
        Kind, such as "image" and "text", to (q, d) unit vectors.
    factories
        Of FAISS.
    others
        Queries of the same kinds, which have no part in the choice of the settings.
    chroma
        Whether Chroma, embedded, is measured too.
    recall, k
        The worst kind of query should reach this recall@k.
    folder
        Where indexes are built.
    seed
        Draws the queries that are used.

    Returns
    -------
    best
        A row an engine: `engine`, `n`, `build_seconds`, `bytes`, `milliseconds` (the median of
        single queries) and `chosen_at`, the recall of the worse kind of `queries`, of the first
        setting that reaches the recall, else of the best there is; `recall_<kind>`, that of
        `others` with its 95 % interval, and `recall`, that of the worse kind.
    curves
        All settings, as `Recommendation.table`; Chroma has one.
    """
    for name in ("faiss:Flat", "chroma") if chroma else ("faiss:Flat",):
        _use_once(name, vectors[:1])
    found = recommend(
        vectors, queries, recall=recall, k=k, factories=factories, folder=folder, seed=seed,
        identity=f"scale {seed} {vectors.shape}",
    )  # fmt: skip
    curves = found.table.dropna(subset="recall")
    if chroma:
        row = _measure_chroma(vectors, queries, k=k, folder=folder, seed=seed)
        curves = pd.concat([curves, pd.DataFrame([row])], ignore_index=True)
    best = [_pick(curve, recall) for _, curve in curves.groupby("factory", sort=False)]
    best = pd.DataFrame(best).reset_index(drop=True)
    best.insert(1, "n", len(vectors))
    best = best.rename(columns={"recall": "chosen_at"})
    known = {"folder": folder, "identity": f"scale {seed} {vectors.shape}"}
    checked = [
        _check_recall(build_engine(name, vectors, **known), vectors, others, k, seed)
        for name in best["engine"]
    ]
    best = best.drop(columns=["parameters", "fits", *checked[0]], errors="ignore")
    return best.join(pd.DataFrame(checked, dtype=object)), curves


def _check_recall(
    engine: Engine, vectors: np.ndarray, queries: Mapping[str, np.ndarray], k: int, seed: int
) -> dict[str, dict]:
    """Return "recall_<kind>" of queries, and "recall", that of the worse kind."""
    exact, found = ExactEngine(vectors), {}
    for kind, asked in queries.items():
        least = exact.search(asked, k)[1][:, -1:]
        hits = engine.search(asked, k)[1] >= least - TIE
        found[f"recall_{kind}"] = mean_with_ci(hits.mean(axis=1), seed=seed)
    return {"recall": min(found.values(), key=lambda one: one["value"]), **found}


def _use_once(name: str, vectors: np.ndarray) -> None:
    """Build a small engine: imports and first starts are no part of building."""
    with TemporaryDirectory() as place:
        build_engine(name, vectors, folder=Path(place), identity="first use").search(vectors, 1)


def _pick(curve: pd.DataFrame, recall: float) -> pd.Series:
    good = curve[curve["recall"] >= recall]
    if len(good):
        return good.loc[good["milliseconds"].idxmin()]
    return curve.loc[curve["recall"].idxmax()]


def _measure_chroma(
    vectors: np.ndarray, queries: Mapping[str, np.ndarray], *, k: int, folder: Path, seed: int
) -> dict:
    started = time.perf_counter()
    identity = f"scale {seed} {vectors.shape}"
    engine = build_engine("chroma", vectors, folder=folder, identity=identity)
    built = time.perf_counter() - started
    exact, seconds, recalls = ExactEngine(vectors), [], {}
    for kind, asked in queries.items():
        truth = exact.search(asked, k)[0]
        hits = []
        for query, rows in zip(asked, truth, strict=True):
            started = time.perf_counter()
            found = engine.search(query[None], k)[0][0]
            seconds.append(time.perf_counter() - started)
            hits.append(np.isin(rows, found).mean())
        recalls[f"recall_{kind}"] = float(np.mean(hits))
    return {"engine": "chroma", "factory": "chroma", "build_seconds": built,
            "bytes": engine.bytes, "milliseconds": 1000 * float(np.median(seconds)),
            "recall": min(recalls.values()), **recalls}  # fmt: skip


def time_papers_way(vectors: np.ndarray, query: np.ndarray, *, rounds: int = 3) -> float:
    """Return the milliseconds of one query by S3's way: `cosine_similarity` and `argsort`."""
    from sklearn.metrics.pairwise import cosine_similarity

    sides = {"s3": lambda: np.argsort(cosine_similarity(query[None], vectors)[0])[::-1]}
    time_interleaved(sides, 1)
    return 1000 * float(np.median(time_interleaved(sides, rounds)["s3"]))


def measure_throughput(
    engines: Mapping[str, object], queries: np.ndarray, batches: Iterable[int], *, k: int = 10
) -> pd.DataFrame:
    """Return queries a second by batch size (index) and engine (columns)."""
    rows = {}
    for batch in batches:
        asked = np.resize(queries, (batch, queries.shape[1]))
        sides = {name: partial(engine.search, asked, k) for name, engine in engines.items()}
        time_interleaved(sides, 1)
        times = time_interleaved(sides, 3)
        rows[batch] = {name: batch / float(np.median(seconds)) for name, seconds in times.items()}
    return pd.DataFrame(rows).T.rename_axis("batch")


def extrapolate(
    factories: Sequence[str], d: int, memories: Mapping[str, float], *, sizes: Sequence[int]
) -> pd.DataFrame:
    """Compute what engines take at sizes that nobody measured, and what memories can hold.

    Parameters
    ----------
    factories
        Of FAISS; the centroids are counted as the strings say.
    d
        Dimensions.
    memories
        Name of a machine to the bytes that an index may take there.
    sizes
        Numbers of vectors.

    Returns
    -------
    pd.DataFrame
        A row a factory: `bytes_per_vector` (marginal), `bytes_at_<n>` for each size, and
        `most_in_<machine>`, the vectors that it can hold.
    """
    rows = []
    for factory in factories:
        fixed = estimate_bytes(factory, 0, d)
        each = (estimate_bytes(factory, LATER, d) - fixed) / LATER
        row = {"factory": factory, "bytes_per_vector": each}
        row |= {f"bytes_at_{n:.0e}".replace("+0", ""): fixed + n * each for n in sizes}
        row |= {f"most_in_{name}": max(0, int((b - fixed) / each)) for name, b in memories.items()}
        rows.append(row)
    return pd.DataFrame(rows)
