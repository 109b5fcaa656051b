"""Rank a gallery for composed vectors, and measure the rankings by CIRR's and FashionIQ's protocol.

A composed vector stands for a reference image and a modification text; the gallery's vectors are
those of all images of the split, in the order of `Triplets.gallery`. Both are of unit length, and
the score is their cosine: higher is better. Images of equal score come in gallery order, and equal
vectors score equally. Values are hits, one a query; the papers call their mean Recall@K, R@K or
R_subset@K.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from regionlab.data.triplets import Triplets
from regionlab.metrics.stats import compare_paired, exact_interval, mean_with_ci, sample_groups
from regionlab.models.spaces import find_difference
from regionlab.search.engine import ExactEngine
from regionlab.search.exact import ROUNDING, rank_rows, score_rows
from regionlab.util.errors import InputError, check_choice, check_count
from regionlab.util.files import write_text
from regionlab.util.paths import expand

GALLERIES = ("split", "union")
RECALL, RECALL_SUBSET = (50, 3)  # names a query that CIRR's server takes
MOST_BYTES = 5_000_000
BLOCK = 256  # queries compared with the gallery at a time
UNIT_TOLERANCE = 1e-3

Measured = dict[str, np.ndarray]  # metric -> one value a query, (q,) float
Groups = Mapping[str, Sequence]  # category -> a label a query, equal where queries are alike


# Rankings


def rank_gallery(
    composed: np.ndarray, gallery: np.ndarray, *, k: int, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` images most similar to each composed vector, best first, or all if fewer.

    Parameters
    ----------
    composed, gallery
        (q, d) and (n, d) float32, unit length.
    exclude
        (q,) int, one row a query that is left out, such as its reference; None for none.

    Returns
    -------
    rows, scores
        (q, k) int64 and (q, k) float32.

    Raises
    ------
    ValueError
        If `k` is not positive, `exclude` does not fit, or the vectors are not of one width and
        space, finite and of unit length.
    """
    composed, gallery = _check_vectors(composed, gallery)
    check_count("k", k)
    k = min(k, len(gallery) - (exclude is not None))
    return ExactEngine(gallery).search(composed, k, exclude=exclude)


def rank_targets(
    composed: np.ndarray,
    gallery: np.ndarray,
    targets: np.ndarray,
    *,
    exclude: np.ndarray | None = None,
) -> np.ndarray:
    """Return the place of each query's target in its ranking, (q,) int64 from 1.

    It is that which `rank_gallery` gives, which describes the rest; but images ahead of the
    target, (q,) int, a row of the gallery each, are counted instead of sorted.
    """
    composed, gallery = _check_vectors(composed, gallery)
    targets = np.asarray(targets)
    exclude = np.full(len(composed), -1) if exclude is None else np.asarray(exclude)
    for name, rows, least in (("targets", targets, 0), ("exclude", exclude, -1)):
        if rows.shape != composed.shape[:1] or ((rows < least) | (rows >= len(gallery))).any():
            raise ValueError(
                f"{name} must be {len(composed)} rows in [{least}, {len(gallery)}), got {rows}"
            )
    if (exclude == targets).any():
        raise ValueError("a target cannot be left out of its own ranking")
    ranks = np.empty(len(composed), np.int64)
    for start in range(0, len(composed), BLOCK):
        for i, rough in enumerate(composed[start : start + BLOCK] @ gallery.T, start):
            if exclude[i] >= 0:
                rough[exclude[i]] = -np.inf
            ranks[i] = 1 + _count_ahead(composed[i], gallery, rough, targets[i])
    return ranks


def rank_subsets(composed: np.ndarray, gallery: np.ndarray, triplets: Triplets) -> list[np.ndarray]:
    """Return each query's subset without its reference as rows of the gallery, best first."""
    ranked = []
    references = triplets.reference_rows
    for query, subset, own in zip(composed, triplets.queries["subset"], references, strict=True):
        rows = np.sort(triplets.rows_of(subset))
        rows = rows[rows != own]
        ranked.append(rank_rows(gallery, query, rows, len(rows))[0])
    return ranked


def _count_ahead(query: np.ndarray, gallery: np.ndarray, rough: np.ndarray, target: int) -> int:
    """Count the images that come before a target, by (n,) scores of a matrix product.

    Only those about as similar as the target are compared again, without its rounding.
    """
    lead = rough - rough[target]
    close = np.flatnonzero(np.abs(lead) <= ROUNDING)
    scores = score_rows(gallery[close], query)
    own = scores[close == target]
    ahead = (scores > own) | ((scores == own) & (close < target))
    return np.count_nonzero(lead > ROUNDING) + np.count_nonzero(ahead)


# Protocols


class Protocol(ABC):
    """How composed queries of a data set are measured, category by category.

    Averages are over categories of each one's mean over queries, as in FashionIQ's tables. Their
    95 % percentile intervals are of a bootstrap that draws queries anew within each category, or,
    given `groups` (see `benchmark.find_groups`), whole groups, which may have queries in several
    categories. Where all values are 0, or all are 1, the interval is the exact one of a share of
    as many queries, or groups, as the smallest category has.
    """

    name: ClassVar[str]

    @abstractmethod
    def measure(
        self, composed: np.ndarray, gallery_vectors: np.ndarray, triplets: Triplets
    ) -> Measured:
        """Measure the queries of one category.

        `composed` is (q, d), a vector a query, `gallery_vectors` (n, d), one an image of
        `triplets.gallery`, both float32 of unit length. Returns "hit@k", or another name, to
        (q,) float: 1 where the target is among the first k. Raises ValueError if the targets are
        hidden, a cut is not allowed, or the vectors are not as said.
        """

    @abstractmethod
    def score(self, by_category: Mapping[str, Measured]) -> float:
        """Return the one number in [0, 1] that models are selected by, higher is better."""

    def summarise(
        self, by_category: Mapping[str, Measured], *, seed: int,
        groups: Groups | None = None, resamples: int = 2000,
    ) -> dict[str, dict]:  # fmt: skip
        """Average each metric: to `{"value", "ci95", "n"}`, n queries in all.

        Raises ValueError if there is no category, or not all have the same metrics.
        """
        metrics = [list(measured) for measured in by_category.values()]
        if not metrics or any(names != metrics[0] for names in metrics):
            found = {category: list(measured) for category, measured in by_category.items()}
            raise ValueError(f"every category must be measured by the same metrics, got {found}")
        labels = None if groups is None else [groups[category] for category in by_category]
        found = {}
        for name in metrics[0]:
            samples = [measured[name] for measured in by_category.values()]
            every = np.concatenate(samples)
            interval = _bootstrap_average(samples, labels, seed, resamples)
            if np.ptp(every) == 0 and every[0] in (0, 1):
                units = [len(set(part)) for part in labels] if labels else list(map(len, samples))
                interval = exact_interval(int(every[0]), min(units))
            found[name] = {"value": _average(samples), "ci95": interval, "n": len(every)}
        return found

    def compare(
        self, a: Mapping[str, Measured], b: Mapping[str, Measured], metric: str, *, seed: int,
        groups: Groups | None = None, resamples: int = 2000,
    ) -> dict:  # fmt: skip
        """Return a - b of two methods' averages on the same queries: "value", "ci95", "n"."""
        samples = [a[category][metric] - b[category][metric] for category in a]
        labels = None if groups is None else [groups[category] for category in a]
        interval = _bootstrap_average(samples, labels, seed, resamples)
        return {"value": _average(samples), "ci95": interval, "n": sum(map(len, samples))}


@dataclass(frozen=True)
class FashionIqProtocol(Protocol):
    """FashionIQ's: the reference stays in the ranking.

    Attributes
    ----------
    gallery : what is searched: "split", all images of the split; "union", only those that are some
        query's reference or target, about half as many, which gives higher values. Papers use
        either: say which.
    cuts : the k of hit@k
    """

    gallery: str = "split"
    cuts: Sequence[int] = (10, 50)
    name: ClassVar[str] = "fashioniq"

    def __post_init__(self) -> None:
        check_choice("gallery", self.gallery, GALLERIES)

    def measure(self, composed, gallery_vectors, triplets) -> Measured:
        """Measure one category, see `Protocol.measure`."""
        composed, vectors = _check_measurable(composed, gallery_vectors, triplets, self.cuts)
        targets = triplets.target_rows
        if self.gallery == "union":
            vectors = vectors[triplets.union_rows]
            targets = np.searchsorted(triplets.union_rows, targets)
        return _count_hits("hit", rank_targets(composed, vectors, targets), self.cuts)

    def score(self, by_category: Mapping[str, Measured]) -> float:
        """Return (mean hit@10 + mean hit@50) / 2, the means over categories."""
        means = [
            _average([measured[name] for measured in by_category.values()])
            for name in ("hit@10", "hit@50")
        ]
        return means[0] / 2 + means[1] / 2


@dataclass(frozen=True)
class CirrProtocol(Protocol):
    """CIRR's: the reference is taken out of every ranking; there is one category, "".

    Attributes
    ----------
    cuts : the k of hit@k, among all other images of the split
    subset_cuts : the k of subset_hit@k (S4's "Precision@K"), among the five other images of the
        query's subset
    """

    cuts: Sequence[int] = (1, 5, 10, 50)
    subset_cuts: Sequence[int] = (1, 2, 3)
    name: ClassVar[str] = "cirr"

    def measure(self, composed, gallery_vectors, triplets) -> Measured:
        """Measure all queries, see `Protocol.measure`; InputError if they have no subsets."""
        _check_subsets(triplets)
        cuts = [*self.cuts, *self.subset_cuts]
        composed, vectors = _check_measurable(composed, gallery_vectors, triplets, cuts)
        targets, references = triplets.target_rows, triplets.reference_rows
        ranks = rank_targets(composed, vectors, targets, exclude=references)
        in_subset = [rows.tolist() for rows in rank_subsets(composed, vectors, triplets)]
        subset_ranks = [1 + rows.index(row) for rows, row in zip(in_subset, targets, strict=True)]
        return _count_hits("hit", ranks, self.cuts) | _count_hits(
            "subset_hit", np.array(subset_ranks), self.subset_cuts
        )

    def score(self, by_category: Mapping[str, Measured]) -> float:
        """Return the leaderboard's average, (hit@5 + subset_hit@1) / 2."""
        measured = by_category[""]
        return float(measured["hit@5"].mean() + measured["subset_hit@1"].mean()) / 2

    def summarise(self, by_category, *, seed, groups=None, resamples=2000) -> dict[str, dict]:
        """Average each metric over the queries, see `mean_with_ci`."""
        labels = groups and groups[""]
        return {
            name: mean_with_ci(values, seed=seed, groups=labels, n_resamples=resamples)
            for name, values in by_category[""].items()
        }

    def compare(self, a, b, metric, *, seed, groups=None, resamples=2000) -> dict:
        """Compare two methods on the same queries, see `compare_paired`."""
        pair = (a[""][metric], b[""][metric])
        labels = groups and groups[""]
        return compare_paired(*pair, seed=seed, groups=labels, n_resamples=resamples)


PROTOCOLS: dict[str, type[Protocol]] = {p.name: p for p in (CirrProtocol, FashionIqProtocol)}


def write_cirr_submission(
    folder: Path | str, composed: np.ndarray, gallery_vectors: np.ndarray, triplets: Triplets
) -> list[Path]:
    """Write the two files that CIRR's test server takes, the reference left out of both.

    `recall.json` holds the names of the first 50 images for each pair, `recall_subset.json`
    those of the first three of its subset; both paths are returned. The server wants an answer to
    each pair of test1, and at most 5 MB. Arrays are as for `Protocol.measure`, but targets may be
    hidden. Raises ValueError, and writes nothing, if the queries have no subsets, a file would be
    too large or the vectors are wrong.
    """
    _check_subsets(triplets)
    composed, vectors = _check_vectors(composed, gallery_vectors, triplets)
    first, _ = rank_gallery(composed, vectors, k=RECALL, exclude=triplets.reference_rows)
    alike = [rows[:RECALL_SUBSET] for rows in rank_subsets(composed, vectors, triplets)]
    folder = expand(folder)
    texts = {
        folder / f"{metric}.json": _submission_to_json(metric, triplets, rows)
        for metric, rows in (("recall", first), ("recall_subset", alike))
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_text(file, text)
    return list(texts)


def _submission_to_json(metric: str, triplets: Triplets, rows: Sequence[np.ndarray]) -> str:
    found = {
        query_id: [triplets.gallery[row] for row in ranked]
        for query_id, ranked in zip(triplets.queries["query_id"], rows, strict=True)
    }
    text = json.dumps({"version": "rc2", "metric": metric} | found, separators=(",", ":"))
    if len(text) > MOST_BYTES:
        raise InputError(f"{metric}.json would have {len(text):,} bytes; {MOST_BYTES:,} at most")
    return text


def _count_hits(name: str, ranks: np.ndarray, cuts: Sequence[int]) -> Measured:
    return {f"{name}@{k}": (ranks <= k).astype(float) for k in cuts}


def _average(samples: Sequence[np.ndarray]) -> float:
    return float(np.mean([sample.mean() for sample in samples]))


def _bootstrap_average(
    samples: list[np.ndarray], labels: list[Sequence] | None, seed: int, resamples: int
) -> list[float]:
    rng = np.random.default_rng(seed)
    if labels is not None:
        means = sample_groups(*_sum_by_group(samples, labels), rng, resamples)
        return np.nanpercentile(np.nanmean(means, axis=1), [2.5, 97.5]).tolist()
    from scipy.stats import bootstrap  # late, as in regionlab.metrics.stats

    def average(*samples: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)

    low, high = bootstrap(
        samples, average, n_resamples=resamples, batch=100, method="percentile", rng=rng
    ).confidence_interval
    return [float(low), float(high)]


def _sum_by_group(
    samples: list[np.ndarray], labels: list[Sequence]
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums and counts, (samples, groups) each, of the values of each group."""
    numbers: dict = {}
    coded = [[numbers.setdefault(label, len(numbers)) for label in part] for part in labels]
    size = {"minlength": len(numbers)}
    sums = [np.bincount(c, s, **size) for c, s in zip(coded, samples, strict=True)]
    return np.stack(sums), np.stack([np.bincount(c, **size) for c in coded])


# Checks


def _check_measurable(
    composed: np.ndarray, gallery: np.ndarray, triplets: Triplets, cuts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    if (triplets.target_rows < 0).any():
        raise InputError(
            f"the targets of {triplets.title} are hidden: measure another split, or, for CIRR, "
            "let its server do so with the files of write_cirr_submission"
        )
    for k in cuts:
        check_count("cut", k)
    return _check_vectors(composed, gallery, triplets)


def _check_subsets(triplets: Triplets) -> None:
    if not all(triplets.queries["subset"]):
        raise InputError(f"{triplets.title} has no subsets, which CIRR's protocol needs")


def _check_vectors(
    composed: np.ndarray, gallery: np.ndarray, triplets: Triplets | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float32 if they can be compared, and are the vectors of the triplets."""
    if difference := find_difference(composed, gallery):
        raise ValueError(f"composed vectors cannot be compared with the gallery: {difference}")
    composed = _check_unit("composed", composed)
    gallery = _check_unit("gallery", gallery)
    if composed.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"composed vectors are {composed.shape[1]} wide, the gallery's {gallery.shape[1]}: "
            "are they by different models?"
        )
    if triplets is not None:
        for name, vectors, wanted, what in (
            ("composed", composed, len(triplets), "queries"),
            ("gallery", gallery, len(triplets.gallery), "images"),
        ):
            if len(vectors) != wanted:
                of = f"{wanted:,} {what} of {triplets.title}"
                raise ValueError(f"{len(vectors):,} {name} vectors for the {of}")
    return composed, gallery


def _check_unit(name: str, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"{name} vectors must be a matrix, one a row, got shape {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # NaN is wrong too
    if len(wrong):
        raise ValueError(
            f"{name} vectors must be finite and of length 1; {len(wrong):,} of "
            f"{len(vectors):,} are not, the first, row {wrong[0]}, has {lengths[wrong[0]]:g}"
        )
    return vectors
