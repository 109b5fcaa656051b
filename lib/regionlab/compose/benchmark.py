"""Measure composers on a benchmark: the ladder with intervals, its weights, the embedding space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from regionlab.compose import composers as fusions
from regionlab.compose.composers import COMPOSERS, Compose, create_composer
from regionlab.compose.features import ComposedFeatures, encode_triplets, find_groups
from regionlab.compose.protocols import (
    Measured,
    average_categories,
    compare_categories,
    measure_cirr,
    measure_fashioniq,
    score_cirr,
    score_fashioniq,
    summarise_measures,
)
from regionlab.data.triplets import Triplets, list_categories, load_cirr, load_fashioniq
from regionlab.metrics.stats import compare_paired
from regionlab.models.encoder import Encoder
from regionlab.models.text_tower import TextFeatures
from regionlab.util.checks import check_choice


@dataclass(frozen=True, eq=False)
class Cosines:
    """Cosines of composed queries with the gallery.

    Attributes
    ----------
    targets
        (q,) float32, with each query's own target.
    others
        (m,) float32, with images that are neither its target nor its reference.
    """

    targets: np.ndarray
    others: np.ndarray

    @property
    def separations(self) -> np.ndarray:
        """(q,) share of other images that each query's target is nearer than; half for equals."""
        ranked = np.sort(self.others)
        below = np.searchsorted(ranked, self.targets, "left")
        upto = np.searchsorted(ranked, self.targets, "right")
        return (below + upto) / 2 / len(ranked)

    @property
    def separation(self) -> float:
        """Share of pairs of a target and another image where the target is nearer (ROC AUC)."""
        return float(self.separations.mean())


def measure_cosines(
    composed: np.ndarray,
    gallery: np.ndarray,
    targets: np.ndarray,
    references: np.ndarray,
    *,
    others: int = 50,
    seed: int = 0,
) -> Cosines:
    """Measure the cosines of queries with their targets and with other images, drawn by chance.

    Parameters
    ----------
    composed, gallery
        (q, d) and (n, d) float32, unit length.
    targets, references
        (q,) int, rows of the gallery.
    others
        How many other images a query; some may come twice.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        If the gallery has no other image.
    """
    if len(gallery) < 3:
        raise ValueError(f"a gallery of {len(gallery)} images has none but target and reference")
    rows = np.random.default_rng(seed).integers(len(gallery) - 2, size=(len(composed), others))
    rows += rows >= np.minimum(targets, references)[:, None]  # step over the two, lower one first
    rows += rows >= np.maximum(targets, references)[:, None]
    cosines = np.einsum("qd,qod->qo", composed, gallery[rows])
    return Cosines(np.einsum("qd,qd->q", composed, gallery[targets]), cosines.ravel())


def effective_rank(vectors: np.ndarray) -> float:
    """Return how many directions vectors spread over: the exponential of an entropy.

    That of the shares of the singular values of the centred vectors (Roy and Vetterli 2007),
    from 1, all on a line, to d, the same in all directions.

    Parameters
    ----------
    vectors
        (n, d) float.

    Raises
    ------
    ValueError
        If all are equal.
    """
    values = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    if not values[0] > 1e-7:
        raise ValueError("all vectors are equal: they spread over no direction")
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))
LAYOUTS = ("cirr", "fashioniq")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One split of a data set for composed retrieval, encoded.

    Attributes
    ----------
    layout
        "cirr" or "fashioniq": whose protocol is followed.
    sets
        Category to features; CIRR has the one category "".
    gallery
        FashionIQ's gallery, "split" or "union"; see `measure_fashioniq`.
    """

    layout: str
    sets: Mapping[str, ComposedFeatures]
    gallery: str = "split"

    def __repr__(self) -> str:
        first = next(iter(self.sets.values())).triplets
        return f"<Benchmark {first.name} {first.split}, {self.layout}: {self.queries:,} queries>"

    @property
    def queries(self) -> int:
        """How many queries there are, of all categories."""
        return sum(len(part.triplets) for part in self.sets.values())

    @property
    def image_length(self) -> float:
        """Mean length of the features of all images."""
        return float(
            np.mean([np.linalg.norm(p.vectors, axis=1).mean() for p in self.sets.values()])
        )

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Name and reason of each image left out, and with it the queries that name it."""
        return list(dict.fromkeys(f for part in self.sets.values() for f in part.failures))

    @cached_property
    def groups(self) -> dict[str, list]:
        """Category to a label a query: which queries are alike, see `find_groups`."""
        return {category: find_groups(part.triplets) for category, part in self.sets.items()}

    def count_groups(self) -> int:
        """Return how many groups of queries there are, of all categories."""
        return len({label for labels in self.groups.values() for label in labels})

    def compose(self, compose: Compose) -> dict[str, np.ndarray]:
        """Compose the queries of each category, (q, d) unit vectors."""
        return {
            category: compose(part.references, part.triplets.texts())
            for category, part in self.sets.items()
        }

    def measure(self, composed: Mapping[str, np.ndarray]) -> dict[str, Measured]:
        """Measure composed queries by the protocol: category to metric to (q,) hits."""
        found = {}
        for category, part in self.sets.items():
            arrays = (composed[category], part.gallery, part.triplets)
            if self.layout == "cirr":
                found[category] = measure_cirr(*arrays)
            else:
                found[category] = measure_fashioniq(*arrays, gallery=self.gallery)
        return found

    def score(self, measured: Mapping[str, Measured]) -> float:
        """Return the one number that models are chosen by, higher is better."""
        return score_cirr(measured[""]) if self.layout == "cirr" else score_fashioniq(measured)

    def summarise(self, measured: Mapping[str, Measured], *, seed: int) -> dict[str, dict]:
        """Average over queries, and over categories, with 95 % intervals that draw groups."""
        if self.layout == "cirr":
            return summarise_measures(measured[""], seed=seed, groups=self.groups[""])
        return average_categories(measured, seed=seed, groups=self.groups)

    def compare(
        self, a: Mapping[str, Measured], b: Mapping[str, Measured], metric: str, *, seed: int
    ) -> dict:
        """Compare two composers on the same queries by one metric: a - b and its interval."""
        if self.layout == "cirr":
            return compare_paired(a[""][metric], b[""][metric], seed=seed, groups=self.groups[""])
        return compare_categories(a, b, metric, seed=seed, groups=self.groups)


def load_benchmark(
    encoder: Encoder,
    data: str,
    root: Path | str | None = None,
    *,
    layout: str | None = None,
    split: str = "val",
    gallery: str = "split",
    folder: Path | None = None,
    **options,
) -> Benchmark:
    """Load a split of a data set and encode its images.

    Parameters
    ----------
    data
        "cirr", "fashioniq" or "toybox".
    root
        The folder of the data set; Toybox needs none.
    layout
        "cirr" or "fashioniq": which of the two Toybox is read as.
    split
        "train", "val" or "test" ("test1" for CIRR).
    gallery
        FashionIQ's, "split" or "union".
    folder
        Where features are kept; None keeps nothing.
    options
        Of Toybox: `groups`, `seed`.

    Raises
    ------
    ValueError
        If `data` or `layout` is unknown, or a root is missing. Else as the readers do.
    """
    layout = layout or (data if data in LAYOUTS else LAYOUTS[0])
    check_choice("layout", layout, LAYOUTS)
    sets = load_triplet_sets(data, root, layout=layout, split=split, **options)
    features: dict[str, ComposedFeatures] = {}
    for category, triplets in sets.items():
        alike = [known for known in features.values() if _same_images(known.triplets, triplets)]
        features[category] = (
            replace(alike[0], triplets=triplets)
            if alike
            else encode_triplets(encoder, triplets, folder=folder)
        )
    return Benchmark(layout, features, gallery)


def _same_images(a: Triplets, b: Triplets) -> bool:
    return (a.gallery, a.files) == (b.gallery, b.files)


def load_triplet_sets(
    data: str, root: Path | str | None, *, layout: str, split: str, **options
) -> dict[str, Triplets]:
    """Load the triplets of each category of a data set; see `load_benchmark`."""
    check_choice("data", data, (*LAYOUTS, "toybox"))
    if data == "toybox":
        from toybox.triplets import CATEGORIES, find_changes, load_toybox_changes

        folder = find_changes(split=split, root=root, **options)
        categories = {"cirr": [None], "fashioniq": CATEGORIES}[layout]
        written = {"root": folder, "split": split, **options}
        return {c or "": load_toybox_changes(layout, category=c, **written) for c in categories}
    if root is None:
        raise ValueError(f"{data} needs root, the folder that it lies in")
    if data == "cirr":
        return {"": load_cirr(root, split=split)}
    return {c: load_fashioniq(root, split=split, category=c) for c in list_categories(root, split)}


def load_kinds(benchmark: Benchmark, data: str, root: Path | str | None = None, **options):
    """Return the kind of change of each query of a category, (q,) str; None but for Toybox.

    Parameters
    ----------
    benchmark
        As loaded with the same `data`, `root` and options.
    """
    if data != "toybox":
        return None
    from toybox.triplets import find_changes, kinds_of

    split = next(iter(benchmark.sets.values())).triplets.split
    kinds = kinds_of(find_changes(split=split, root=root, **options), split)
    return {
        category: np.array([kinds[query] for query in part.triplets.queries["query_id"]])
        for category, part in benchmark.sets.items()
    }


def fit_weight(
    name: str, encoder: Encoder, benchmark: Benchmark, *, weights: Sequence[float] = WEIGHTS
) -> tuple[float, list[float]]:
    """Choose the weight of the words for "weighted" or "slerp" on validation queries.

    Returns
    -------
    weight
        The one with the best score; the smallest of equals.
    scores
        Of each of `weights`.
    """
    fusion: Callable[..., np.ndarray] = COMPOSERS[name].fusion
    encode = TextFeatures(encoder).encode_texts
    texts = {category: encode(part.triplets.texts()) for category, part in benchmark.sets.items()}
    scores = []
    for weight in weights:
        composed = {
            category: fusions.to_unit(fusion(part.references, texts[category], weight=weight))
            for category, part in benchmark.sets.items()
        }
        scores.append(benchmark.score(benchmark.measure(composed)))
    return weights[int(np.argmax(scores))], scores


@dataclass(frozen=True, eq=False)
class Study:
    """What each composer made of a benchmark's queries, and how well they did.

    Attributes
    ----------
    composed
        Composer to category to (q, d) unit vectors.
    measured
        Composer to category to metric to (q,) hits.
    """

    benchmark: Benchmark
    composed: dict[str, dict[str, np.ndarray]]
    measured: dict[str, dict[str, Measured]]

    def summarise(self, *, seed: int) -> dict[str, dict[str, dict]]:
        """Composer to metric to value with interval."""
        return {n: self.benchmark.summarise(m, seed=seed) for n, m in self.measured.items()}

    def compare(self, a: str, b: str, metric: str, *, seed: int) -> dict:
        """Compare two composers by name; see `Benchmark.compare`."""
        return self.benchmark.compare(self.measured[a], self.measured[b], metric, seed=seed)


def study_ladder(
    encoder: Encoder,
    benchmark: Benchmark,
    *,
    weights: Mapping[str, float],
    folder: Path | None = None,
    names: Sequence[str] = tuple(COMPOSERS),
) -> Study:
    """Compose and measure a benchmark's queries by each composer.

    Parameters
    ----------
    weights
        Of "weighted" and "slerp", chosen by `fit_weight`.
    folder
        Of trained parts, as for `create_composer`.
    names
        Which rungs of `COMPOSERS`.
    """
    composed, measured = {}, {}
    for name in names:
        composer = create_composer(
            name, encoder, weight=weights.get(name), folder=folder,
            image_length=benchmark.image_length,
        )  # fmt: skip
        composed[name] = benchmark.compose(composer.compose)
        measured[name] = benchmark.measure(composed[name])
    return Study(benchmark, composed, measured)
