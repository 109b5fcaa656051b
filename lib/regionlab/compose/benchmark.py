"""Measure composers on a benchmark: its triplets as features, the ladder, the embedding space."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from regionlab.compose.composers import COMPOSERS, Compose, create_composer, to_unit
from regionlab.compose.protocols import PROTOCOLS, Measured, Protocol
from regionlab.data.triplets import Triplets, list_categories, load_cirr, load_fashioniq
from regionlab.models.clip import TextFeatures
from regionlab.models.encoder import Encoder
from regionlab.util.errors import InputError, check_choice
from regionlab.util.files import atomic_write
from regionlab.util.paths import expand
from regionlab.util.progress import progress

LAYOUTS = tuple(PROTOCOLS)
WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))
SHARD = 1024  # images; what a run that is cut off has to compute again at most


# Triplets as features


@dataclass(frozen=True, eq=False)
class ComposedFeatures:
    """Triplets, and the features of their gallery.

    Attributes
    ----------
    triplets : those whose images could all be read
    vectors : (n, d) float32, a row an image of `triplets.gallery`, as long as the model makes them
    failures : name and reason of each image left out: missing, or not readable
    """

    triplets: Triplets
    vectors: np.ndarray
    failures: list[tuple[str, str]]

    @property
    def references(self) -> np.ndarray:
        """(q, d), features of each query's reference."""
        return self.vectors[self.triplets.reference_rows]

    @property
    def gallery(self) -> np.ndarray:
        """(n, d) float32, unit length."""
        return to_unit(self.vectors)


def find_groups(triplets: Triplets) -> list:
    """Return a label a query, (q,): queries of one label are alike, as bootstraps must know.

    They are about the same subset of images that look alike where there are subsets, about the
    same group of scenes in Toybox, which knows its groups in any layout, and else about the
    same reference.
    """
    if len(triplets) and all(triplets.queries["subset"]):
        return [tuple(sorted(subset)) for subset in triplets.queries["subset"]]
    references = triplets.queries["reference"].tolist()
    if triplets.name.startswith("toybox"):
        return [name.rpartition("-")[0] for name in references]  # split-group-member
    return references


def encode_triplets(
    encoder: Encoder, triplets: Triplets, *, folder: Path | None = None, batch_size: int = 64
) -> ComposedFeatures:
    """Encode the gallery of triplets once; images that are missing or unreadable are listed.

    Features are kept in `folder`, in shards, and taken up again; None keeps nothing. Raises
    FileNotFoundError if no query has all its images on disk, ValueError if none can be read.
    """
    triplets, missing = triplets.with_images()
    failures = [(name, "missing") for name in missing]
    files = [triplets.files[name] for name in triplets.gallery]
    parts, unreadable = [], {}
    shards = range(0, len(files), SHARD)
    for start in progress(shards, f"encode {triplets.title}", len(shards)):
        part = files[start : start + SHARD]
        vectors, lost = _load_or_encode(encoder, part, folder, batch_size)
        unreadable |= {triplets.gallery[start + row]: reason for row, reason in lost.items()}
        parts.append(vectors)
    vectors = np.concatenate(parts)
    if unreadable:
        kept = [row for row, name in enumerate(triplets.gallery) if name not in unreadable]
        triplets, vectors = triplets.without(unreadable), vectors[kept]
    return ComposedFeatures(triplets, vectors, [*failures, *unreadable.items()])


def _load_or_encode(
    encoder: Encoder, files: Sequence[Path], folder: Path | None, batch_size: int
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the features of some files, and which rows could not be read and why."""
    path = None if folder is None else expand(folder) / f"{_key(encoder, files)}.npy"
    vectors = np.full((len(files), encoder.dim), np.nan, np.float32)
    if path is not None and path.exists():
        vectors = np.load(path)
    rows = np.flatnonzero(np.isnan(vectors).any(1))  # new ones, and unreadable ones: why?
    wanted, lost = [files[row] for row in rows], {}
    with closing(encoder.encode_stream(wanted, batch_size=batch_size, unit=False)) as batches:
        for batch in batches:
            vectors[rows[batch.rows]] = batch.vectors
            lost |= {int(rows[place]): str(error) for place, error in batch.failures}
    if path is not None and len(lost) < len(rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.save(file, vectors)
    return vectors, lost


def _key(encoder: Encoder, files: Sequence[Path]) -> str:
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    text = json.dumps([encoder.space, encoder.precision, stats])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


# Data sets


def _load_cirr(root, layout: str, split: str) -> dict[str, Triplets]:
    return {"": load_cirr(root, split=split)}


def _load_fashioniq(root, layout: str, split: str) -> dict[str, Triplets]:
    return {c: load_fashioniq(root, split=split, category=c) for c in list_categories(root, split)}


def _load_toybox(root, layout: str, split: str, **options) -> dict[str, Triplets]:
    from toybox.disk import CATEGORIES, find_changes, load_toybox_changes

    folder = find_changes(split=split, root=root, **options)
    categories = {"cirr": [None], "fashioniq": CATEGORIES}[layout]
    written = {"root": folder, "split": split, **options}
    return {c or "": load_toybox_changes(layout, category=c, **written) for c in categories}


# name -> layouts it can be read in, the usual one first, and the reader of its categories
SOURCES: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, Triplets]]]] = {
    "cirr": (("cirr",), _load_cirr),
    "fashioniq": (("fashioniq",), _load_fashioniq),
    "toybox": (LAYOUTS, _load_toybox),
}


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One split of a data set for composed retrieval, encoded; `sets` is category to features."""

    protocol: Protocol
    sets: Mapping[str, ComposedFeatures]

    def __repr__(self) -> str:
        first = next(iter(self.sets.values())).triplets
        about = f"{first.name} {first.split}, {self.protocol.name}"
        return f"<Benchmark {about}: {self.queries:,} queries>"

    @property
    def queries(self) -> int:
        """How many queries there are, of all categories."""
        return sum(len(part.triplets) for part in self.sets.values())

    @property
    def image_length(self) -> float:
        """Mean length of the features of all images."""
        lengths = [np.linalg.norm(part.vectors, axis=1).mean() for part in self.sets.values()]
        return float(np.mean(lengths))

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
        return {
            category: self.protocol.measure(composed[category], part.gallery, part.triplets)
            for category, part in self.sets.items()
        }

    def score(self, measured: Mapping[str, Measured]) -> float:
        """Return the one number that models are chosen by, higher is better."""
        return self.protocol.score(measured)

    def summarise(self, measured: Mapping[str, Measured], *, seed: int) -> dict[str, dict]:
        """Average over queries, and over categories, with 95 % intervals that draw groups."""
        return self.protocol.summarise(measured, seed=seed, groups=self.groups)

    def compare(
        self, a: Mapping[str, Measured], b: Mapping[str, Measured], metric: str, *, seed: int
    ) -> dict:
        """Compare two composers on the same queries by one metric: a - b and its interval."""
        return self.protocol.compare(a, b, metric, seed=seed, groups=self.groups)


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
    data, root
        A name in `SOURCES`, "cirr", "fashioniq" or "toybox", and its folder; Toybox needs none.
    layout, options
        Of Toybox: "cirr" or "fashioniq", which of the two it is read as; `groups` and `seed`.
    split
        "train", "val" or "test" ("test1" for CIRR).
    gallery
        FashionIQ's, "split" or "union".
    folder
        Where features are kept; None keeps nothing.

    Raises
    ------
    InputError
        If `data` or `layout` is unknown, or a root is missing. Else as the readers do.
    """
    check_choice("data", data, tuple(SOURCES))
    layouts, load = SOURCES[data]
    layout = layout or layouts[0]
    check_choice("layout", layout, layouts)
    if root is None and data != "toybox":
        raise InputError(f"{data} needs root, the folder that it lies in")
    features: dict[str, ComposedFeatures] = {}
    for category, triplets in load(root, layout, split, **options).items():
        alike = [f for f in features.values() if _same_images(f.triplets, triplets)]
        known = alike[0] if alike else encode_triplets(encoder, triplets, folder=folder)
        features[category] = replace(known, triplets=triplets) if alike else known
    how = {"gallery": gallery} if layout == "fashioniq" else {}
    return Benchmark(PROTOCOLS[layout](**how), features)


def _same_images(a: Triplets, b: Triplets) -> bool:
    return (a.gallery, a.files) == (b.gallery, b.files)


def load_kinds(benchmark: Benchmark, data: str, root: Path | str | None = None, **options):
    """Return category to the kind of change of each query, (q,) str; None but for Toybox.

    `data`, `root` and options are those that the benchmark was loaded with.
    """
    if data != "toybox":
        return None
    from toybox.disk import find_changes, kinds_of

    split = next(iter(benchmark.sets.values())).triplets.split
    kinds = kinds_of(find_changes(split=split, root=root, **options), split)
    return {
        category: np.array([kinds[query] for query in part.triplets.queries["query_id"]])
        for category, part in benchmark.sets.items()
    }


# The ladder of composers


def fit_weight(
    name: str, encoder: Encoder, benchmark: Benchmark, *, weights: Sequence[float] = WEIGHTS
) -> tuple[float, list[float]]:
    """Choose the weight of the text for "weighted" or "slerp" on validation queries.

    Returns the weight with the best score, the smallest of equals; and the score of each.
    """
    fusion: Callable[..., np.ndarray] = COMPOSERS[name].fusion
    encode = TextFeatures(encoder).encode_texts
    texts = {category: encode(part.triplets.texts()) for category, part in benchmark.sets.items()}
    scores = []
    for weight in weights:
        composed = {
            category: to_unit(fusion(part.references, texts[category], weight=weight))
            for category, part in benchmark.sets.items()
        }
        scores.append(benchmark.score(benchmark.measure(composed)))
    return weights[int(np.argmax(scores))], scores


@dataclass(frozen=True, eq=False)
class ComposerResults:
    """What each composer made of a benchmark's queries, and how well they did.

    Attributes
    ----------
    composed : composer to category to (q, d) unit vectors
    measured : composer to category to metric to (q,) hits
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
) -> ComposerResults:
    """Compose and measure a benchmark's queries by each composer of `names`.

    `weights` are those of "weighted" and "slerp", chosen by `fit_weight`; `folder` is that of
    trained parts, as for `create_composer`.
    """
    composed, measured = {}, {}
    for name in names:
        composer = create_composer(
            name, encoder, weight=weights.get(name), folder=folder,
            image_length=benchmark.image_length,
        )  # fmt: skip
        composed[name] = benchmark.compose(composer.compose)
        measured[name] = benchmark.measure(composed[name])
    return ComposerResults(benchmark, composed, measured)


# The embedding space


@dataclass(frozen=True, eq=False)
class Cosines:
    """Cosines of composed queries with the gallery.

    Attributes
    ----------
    targets : (q,) float32, with each query's own target
    others : (m,) float32, with images that are neither its target nor its reference
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
    """Measure the cosines of queries with their targets and with `others` images, drawn by chance.

    `composed` and `gallery` are (q, d) and (n, d) float32, unit length; targets and references
    are (q,) rows of the gallery. Raises ValueError if it has no other image.
    """
    if len(gallery) < 3:
        raise ValueError(f"a gallery of {len(gallery)} images has none but target and reference")
    rows = np.random.default_rng(seed).integers(len(gallery) - 2, size=(len(composed), others))
    rows += rows >= np.minimum(targets, references)[:, None]  # step over the two, lower one first
    rows += rows >= np.maximum(targets, references)[:, None]
    cosines = np.einsum("qd,qod->qo", composed, gallery[rows])
    return Cosines(np.einsum("qd,qd->q", composed, gallery[targets]), cosines.ravel())


def effective_rank(vectors: np.ndarray) -> float:
    """Return how many directions (n, d) vectors spread over: the exponential of an entropy.

    That of the shares of the singular values of the centred vectors (Roy and Vetterli 2007),
    from 1, all on a line, to d, the same in all directions. ValueError if all are equal.
    """
    values = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    if not values[0] > 1e-7:
        raise ValueError("all vectors are equal: they spread over no direction")
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
