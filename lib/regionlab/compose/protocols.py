"""How good composed retrieval is: the protocols of FashionIQ and CIRR, exactly.

A composed vector stands for a reference picture and a change in words; the gallery's vectors
are those of all images of the split, in the order of `Triplets.gallery`. Both are of unit
length, and the score is their cosine: higher is better. Images of equal score come in gallery
order. Values are hits, one a query; the papers call their mean Recall@K, R@K or R_subset@K.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from regionlab.compose.ranking import check_vectors, rank_gallery, rank_subsets, rank_targets
from regionlab.data.triplets import Triplets
from regionlab.metrics.stats import exact_interval, mean_with_ci, sample_groups
from regionlab.util.checks import check_choice, check_count
from regionlab.util.paths import expand

GALLERIES = ("split", "union")
RECALL, RECALL_SUBSET = (50, 3)  # names a query that CIRR's server takes
MOST_BYTES = 5_000_000

Measured = dict[str, np.ndarray]  # metric -> one value a query, (q,) float


def measure_fashioniq(
    composed: np.ndarray,
    gallery_vectors: np.ndarray,
    triplets: Triplets,
    *,
    gallery: str = "split",
    cuts: Sequence[int] = (10, 50),
) -> Measured:
    """Measure one category of FashionIQ; the reference is not taken out of the ranking.

    Parameters
    ----------
    composed
        (q, d) float32, unit length, a vector a query.
    gallery_vectors
        (n, d) float32, unit length, a vector for each image of `triplets.gallery`.
    triplets
        The queries.
    gallery
        What is searched: "split", all images of the split; "union", only those that are some
        query's reference or target, about half as many, which gives higher values. Papers
        use either: say which.
    cuts
        The k of hit@k.

    Returns
    -------
    dict
        "hit@k" to (q,) float, 1 where the target is among the first k, else 0.

    Raises
    ------
    ValueError
        If the targets are hidden, `gallery` or a cut is none of those allowed, or the vectors
        are of the wrong shape, width or number, not finite or not of unit length.
    """
    check_choice("gallery", gallery, GALLERIES)
    composed, vectors = _check_measurable(composed, gallery_vectors, triplets, cuts)
    targets = triplets.target_rows
    if gallery == "union":
        vectors = vectors[triplets.union_rows]
        targets = np.searchsorted(triplets.union_rows, targets)
    return _count_hits("hit", rank_targets(composed, vectors, targets), cuts)


def measure_cirr(
    composed: np.ndarray,
    gallery_vectors: np.ndarray,
    triplets: Triplets,
    *,
    cuts: Sequence[int] = (1, 5, 10, 50),
    subset_cuts: Sequence[int] = (1, 2, 3),
) -> Measured:
    """Measure CIRR; the reference is taken out of every ranking.

    Parameters
    ----------
    composed, gallery_vectors, triplets
        As for `measure_fashioniq`.
    cuts
        The k of hit@k, among all other images of the split.
    subset_cuts
        The k of subset_hit@k (S4's "Precision@K"), among the five other images of the subset.

    Returns
    -------
    dict
        "hit@k" and "subset_hit@k" to (q,) float, 1 where the target is among the first k.

    Raises
    ------
    ValueError
        If the queries have no subsets, or as `measure_fashioniq` does.
    """
    _check_subsets(triplets)
    composed, vectors = _check_measurable(
        composed, gallery_vectors, triplets, [*cuts, *subset_cuts]
    )
    targets, references = triplets.target_rows, triplets.reference_rows
    ranks = rank_targets(composed, vectors, targets, exclude=references)
    in_subset = [rows.tolist() for rows in rank_subsets(composed, vectors, triplets)]
    subset_ranks = [1 + rows.index(row) for rows, row in zip(in_subset, targets, strict=True)]
    return _count_hits("hit", ranks, cuts) | _count_hits(
        "subset_hit", np.array(subset_ranks), subset_cuts
    )


def score_fashioniq(by_category: Mapping[str, Measured]) -> float:
    """Return what FashionIQ's models are selected by: (mean hit@10 + mean hit@50) / 2.

    The means are over categories, of each category's mean over queries. In [0, 1].
    """
    return _average(by_category, "hit@10") / 2 + _average(by_category, "hit@50") / 2


def score_cirr(measured: Measured) -> float:
    """Return CIRR's leaderboard average, (hit@5 + subset_hit@1) / 2, in [0, 1]."""
    return float(measured["hit@5"].mean() + measured["subset_hit@1"].mean()) / 2


def summarise_measures(
    measured: Measured, *, seed: int, groups: Sequence | None = None, resamples: int = 2000
) -> dict[str, dict]:
    """Average each metric over the queries, with a 95 % bootstrap interval.

    Returns metric to `{"value", "ci95", "n"}`, see `bootstrap.mean_with_ci`, which also says what
    `groups` is (from `composed_data.find_groups`), and what is raised.
    """
    return {
        name: mean_with_ci(values, seed=seed, groups=groups, n_resamples=resamples)
        for name, values in measured.items()
    }


def average_categories(
    by_category: Mapping[str, Measured],
    *,
    seed: int,
    groups: Mapping[str, Sequence] | None = None,
    resamples: int = 2000,
) -> dict[str, dict]:
    """Average each metric as FashionIQ's tables do: the mean over categories of their means.

    The 95 % percentile interval is of a bootstrap that draws queries anew within each category,
    or, given `groups`, whole groups for all categories at once. Where all values are 0, or all
    are 1, it is the exact one of a share of as many queries, or groups, as the smallest
    category has.

    Parameters
    ----------
    by_category
        Category to what `measure_fashioniq` returned.
    seed
        Of the bootstrap.
    groups
        Category to a label a query, from `composed_data.find_groups`. A group may have
        queries in several categories.
    resamples
        How many times the queries are drawn anew.

    Returns
    -------
    dict
        Metric to `{"value", "ci95", "n"}`; n queries in all.

    Raises
    ------
    ValueError
        If there is no category, or they were not measured by the same metrics.
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
        found[name] = {"value": _average(by_category, name), "ci95": interval, "n": len(every)}
    return found


def compare_categories(
    a: Mapping[str, Measured],
    b: Mapping[str, Measured],
    metric: str,
    *,
    seed: int,
    groups: Mapping[str, Sequence] | None = None,
    resamples: int = 2000,
) -> dict:
    """Return a - b of two methods' averages on the same queries, with its 95 % interval.

    Returns `{"value", "ci95", "n"}`; the parameters are those of `average_categories`.
    """
    differences = {category: {metric: a[category][metric] - b[category][metric]} for category in a}
    samples = [measured[metric] for measured in differences.values()]
    labels = None if groups is None else [groups[category] for category in differences]
    return {
        "value": _average(differences, metric),
        "ci95": _bootstrap_average(samples, labels, seed, resamples),
        "n": sum(map(len, samples)),
    }


def write_cirr_submission(
    folder: Path | str, composed: np.ndarray, gallery_vectors: np.ndarray, triplets: Triplets
) -> list[Path]:
    """Write the two files that CIRR's test server takes, the reference left out of both.

    `recall.json` holds the names of the first 50 images for each pair, `recall_subset.json`
    those of the first three of its subset. The server wants an answer to each pair of test1.

    Parameters
    ----------
    folder
        Where to; made if it is not there. Files of these names are replaced.
    composed, gallery_vectors, triplets
        As for `measure_cirr`; the targets may be hidden.

    Returns
    -------
    list
        The paths of both files.

    Raises
    ------
    ValueError
        If the queries have no subsets, a file would be larger than the 5 MB that the server
        takes, or the vectors are wrong: see `measure_fashioniq`. Nothing is written then.
    """
    _check_subsets(triplets)
    composed, vectors = check_vectors(composed, gallery_vectors, triplets)
    first, _ = rank_gallery(composed, vectors, k=RECALL, exclude=triplets.reference_rows)
    alike = [rows[:RECALL_SUBSET] for rows in rank_subsets(composed, vectors, triplets)]
    folder = expand(folder)
    texts = {
        folder / f"{metric}.json": _submission_to_json(metric, triplets, rows)
        for metric, rows in (("recall", first), ("recall_subset", alike))
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return list(texts)


def _submission_to_json(metric: str, triplets: Triplets, rows: Sequence[np.ndarray]) -> str:
    found = {
        query_id: [triplets.gallery[row] for row in ranked]
        for query_id, ranked in zip(triplets.queries["query_id"], rows, strict=True)
    }
    text = json.dumps({"version": "rc2", "metric": metric} | found, separators=(",", ":"))
    if len(text) > MOST_BYTES:
        raise ValueError(f"{metric}.json would have {len(text):,} bytes; {MOST_BYTES:,} at most")
    return text


def _count_hits(name: str, ranks: np.ndarray, cuts: Sequence[int]) -> Measured:
    return {f"{name}@{k}": (ranks <= k).astype(float) for k in cuts}


def _average(by_category: Mapping[str, Measured], name: str) -> float:
    return float(np.mean([measured[name].mean() for measured in by_category.values()]))


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


def _check_measurable(
    composed: np.ndarray, gallery: np.ndarray, triplets: Triplets, cuts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    if (triplets.target_rows < 0).any():
        raise ValueError(
            f"the targets of {triplets.title} are hidden: measure another split, or, for CIRR, "
            "let its server do so with the files of write_cirr_submission"
        )
    for k in cuts:
        check_count("cut", k)
    return check_vectors(composed, gallery, triplets)


def _check_subsets(triplets: Triplets) -> None:
    if not all(triplets.queries["subset"]):
        raise ValueError(f"{triplets.title} has no subsets, which CIRR's protocol needs")
