"""Bench of search: the recommended engine and exact search against S3's way and FAISS Flat."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from regionlab.search.engine import ExactEngine
from regionlab.search.engines import build_engine, recommend
from regionlab.studies.scale import grow_vectors, sample_clusters, to_unit
from regionlab.util.paths import DATA
from regionlab.util.timing import summarise_measure, time_interleaved

FACTORIES = ("IVF2048,Flat", "IVF2048,SQ8")
CLUSTERS = 1000
SPREAD = 1.0  # noise as long as a centre
KINDS = {"image": SPREAD, "text": 2 * SPREAD}  # queries: as the gallery, and farther away


def measure_search(
    *,
    n: int = 500_000,
    d: int = 512,
    queries: int = 100,
    batch: int = 64,
    recall: float = 0.99,
    k: int = 10,
    factories: Sequence[str] = FACTORIES,
    rounds: int = 5,
    seed: int = 0,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure search among clustered unit vectors.

    Parameters
    ----------
    n, d
        Of the gallery.
    queries
        Of each kind, not in the gallery: drawn as it is, and twice as far from the centres,
        as words lie away from pictures. Half of them choose the engine, the others measure it.
    batch
        Queries that exact search and FAISS Flat answer at once, besides one alone.
    recall, k
        That the recommended engine has to reach.
    factories
        FAISS factory strings that are tried.
    rounds
        How often each side is timed, in turn.
    folder
        Where indexes are built; they are thrown away.

    Returns
    -------
    dict
        "ratio_vs_sklearn": S3's way, scikit-learn's `cosine_similarity` and `argsort`, by the
        recommended engine, one query each; "recall_at_10" of the worst kind of query (at `k`);
        "exact_vs_faiss_flat": seconds of exact search by those of FAISS Flat, "one" query and
        a "batch". Milliseconds of all.
    """
    gallery = sample_clusters(n, d, clusters=CLUSTERS, spread=SPREAD, seed=seed)
    asked = {kind: _draw_queries(gallery.shape[1], 2 * queries, spread, seed)
             for kind, spread in KINDS.items()}  # fmt: skip
    chosen_on = {kind: vectors[:queries] for kind, vectors in asked.items()}
    measured_on = {kind: vectors[queries:] for kind, vectors in asked.items()}
    (folder or DATA).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder or DATA) as place:
        kept = {"folder": place, "identity": "bench"}
        found = recommend(
            gallery, chosen_on, recall=recall, k=k, factories=factories, **kept
        )  # fmt: skip
        engine = build_engine(found.name, gallery, **kept)
        flat = build_engine("faiss:Flat", gallery, **kept)
        exact = ExactEngine(gallery)
        recalls = {kind: _measure_recall(engine, exact, v, k) for kind, v in measured_on.items()}
        every = np.concatenate(list(measured_on.values()))
        times = _time(gallery, engine, exact, flat, every, k=k, batch=batch, rounds=rounds)
    ratio = {name: np.divide(times[f"exact_{name}"], times[f"flat_{name}"])
             for name in ("one", "batch")}  # fmt: skip
    return {
        "ratio_vs_sklearn": summarise_measure(np.divide(times["sklearn"], times["engine"])),
        "recall_at_10": min(recalls.values()),
        "recall_by_query": recalls,
        "recommended": found.name,
        "reached": found.reached,
        "exact_vs_faiss_flat": {name: summarise_measure(r) for name, r in ratio.items()},
        "milliseconds": {name: summarise_measure(1000 * np.array(t)) for name, t in times.items()},
        "n": n, "d": d, "k": k, "batch": batch,
    }  # fmt: skip


def _draw_queries(d: int, count: int, spread: float, seed: int) -> np.ndarray:
    """Draw queries around the gallery's own centres."""
    centres = to_unit(np.random.default_rng(seed).normal(size=(CLUSTERS, d)))
    return grow_vectors(centres, count, spread=spread, seed=seed + 2)


def _measure_recall(engine, exact, queries: np.ndarray, k: int) -> float:
    """Return the share of the k nearest that an engine finds."""
    found, truth = (side.search(queries, k)[0] for side in (engine, exact))
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))


def _time(gallery, engine, exact, flat, queries, *, k: int, batch: int, rounds: int):
    """Return the seconds of each side a round; a query's, but for the batches'."""
    from sklearn.metrics.pairwise import cosine_similarity

    some = iter(range(10**9))

    def one(search) -> None:
        search(queries[next(some) % len(queries)][None])

    def as_s3(query: np.ndarray) -> np.ndarray:
        return np.argsort(cosine_similarity(query, gallery)[0])[::-1][:k]

    def many(search) -> None:
        for query in queries:
            search(query[None])

    sides = {
        "sklearn": lambda: one(as_s3),
        "engine": lambda: many(lambda q: engine.search(q, k)),
        "exact_one": lambda: one(lambda q: exact.search(q, k)),
        "flat_one": lambda: one(lambda q: flat.index.search(q, k)),
        "exact_batch": lambda: exact.search(queries[:batch], k),
        "flat_batch": lambda: flat.index.search(queries[:batch], k),
    }
    time_interleaved(sides, 1)  # warm
    times = time_interleaved(sides, rounds)
    return times | {"engine": [seconds / len(queries) for seconds in times["engine"]]}
