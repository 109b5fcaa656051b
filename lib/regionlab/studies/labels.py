"""Label images by their nearest neighbours (S1, table 1), as they are and rescaled twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from regionlab.data.images import read_image
from regionlab.models.encoder import Encoder
from regionlab.search.engine import ExactEngine
from regionlab.util.progress import progress as show_progress


class _Darken:
    """Divide pixels by 255; a step of a preprocessing."""

    def __call__(self, pixels):
        return pixels / 255

    def __repr__(self) -> str:
        return "Rescale(1 / 255)"


def rescale_twice(encoder: Encoder) -> Encoder:
    """Return the encoder with S1's probable mistake in its preprocessing.

    Pixels are divided by 255 once more, between their conversion to [0, 1] and the
    normalisation. The model is shared, the space is another one. Use it in fp32: in bf16 the
    differences that are left fall below the rounding.

    Raises
    ------
    ValueError
        If the preprocessing has no step that normalises.
    """
    steps = list(encoder.preprocess.transforms)
    places = [i for i, step in enumerate(steps) if type(step).__name__ == "Normalize"]
    if len(places) != 1:
        raise ValueError(f"one step should normalise in the preprocessing of {encoder}: {steps}")
    steps.insert(places[0], _Darken())
    preprocess = type(encoder.preprocess)(steps)
    return Encoder(
        f"{encoder.name}, rescaled twice",
        encoder.model,
        preprocess,
        encoder.tokenizer,
        {**encoder.fingerprint, "preprocess": " ".join(repr(preprocess).split())},
        encoder.device,
    )


@dataclass(frozen=True, eq=False)
class NeighbourLabels:
    """The labels of each query's nearest gallery images, and whether they are right.

    Attributes
    ----------
    truth
        (q,) str, the queries' own labels.
    labels
        (q, k) str, those of the neighbours, nearest first; "" where there is none.
    rows
        (q, k) int64, their rows in the gallery, -1 for none.
    scores
        (q, k) float32, cosine, higher is more similar.
    """

    truth: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    scores: np.ndarray

    @property
    def top1(self) -> np.ndarray:
        """(q,) bool: the nearest neighbour has the right label."""
        return self.labels[:, 0] == self.truth

    @property
    def among(self) -> np.ndarray:
        """(q,) bool: at least one of the k neighbours has the right label, S1's "top-5".

        That is no classifier's top-5: the more labels the neighbours have between them, the
        easier it is, and neighbours drawn at random reach it often (see `chance_of_labels`).
        """
        return (self.labels == self.truth[:, None]).any(1)

    @property
    def voted(self) -> np.ndarray:
        """(q,) str: the label that most of the neighbours have; of several, the nearest."""
        votes = (self.labels[:, :, None] == self.labels[:, None, :]).sum(2)
        return self.labels[np.arange(len(self.labels)), votes.argmax(1)]

    @property
    def vote(self) -> np.ndarray:
        """(q,) bool: the label voted for is right, as in k-nearest-neighbour classification."""
        return self.voted == self.truth


def label_by_neighbours(
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    *,
    k: int = 5,
    exclude: np.ndarray | None = None,
    chunk: int = 500,
    progress: bool = False,
) -> NeighbourLabels:
    """Find each query's nearest gallery images, exactly, and read their labels (S1, table 1).

    Neighbours of equal score come in gallery order.

    Parameters
    ----------
    gallery
        (n, d) float32 unit vectors.
    gallery_labels
        (n,) str.
    queries
        (q, d) float32 unit vectors.
    query_labels
        (q,) str.
    k
        Neighbours a query, at most n.
    exclude
        (q,) int: a gallery row that is left out for each query, -1 for none. Needed where the
        queries are in the gallery themselves.
    chunk
        Queries between two steps of progress. Beside the vectors, memory holds the scores of
        64 queries with the gallery.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If there are not as many labels as vectors, no queries, or as `ExactEngine.search` does.
    """
    gallery_labels = _check_labels("gallery", gallery_labels, gallery)
    query_labels = _check_labels("queries", query_labels, queries)
    exclude = np.full(len(queries), -1) if exclude is None else np.asarray(exclude)
    if exclude.shape != (len(queries),):
        raise ValueError(f"exclude must be one row a query ({len(queries)}), got {exclude.shape}")
    engine = ExactEngine(gallery)
    starts = range(0, len(queries), chunk)
    if progress:
        starts = show_progress(starts, desc=f"label by neighbours, {chunk} queries a step")
    found = []
    for start in starts:
        part = slice(start, start + chunk)
        found.append(engine.search(queries[part], k, exclude=exclude[part]))
    rows, scores = (np.concatenate(each) for each in zip(*found, strict=True))
    labels = np.where(rows < 0, "", gallery_labels[rows])
    return NeighbourLabels(query_labels, labels, rows, scores)


def keep_allowed(rows: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """Return the first `k` rows of each ranking that its query allows.

    For what one excluded row a query cannot say: the frames beside it in a film, or all of its
    film.

    Parameters
    ----------
    rows
        (q, r) int, gallery rows best first, -1 for none.
    allowed
        (q, n) bool.
    k
        At least 1.

    Returns
    -------
    np.ndarray
        (q, k) int64, -1 where fewer than k are allowed.

    Raises
    ------
    ValueError
        If `k` is below 1, or `rows` and `allowed` are of different queries.
    """
    rows, allowed = np.asarray(rows, np.int64), np.asarray(allowed, bool)
    if k < 1 or len(rows) != len(allowed):
        raise ValueError(f"k={k} of {len(rows)} rankings, allowed for {len(allowed)} queries")
    kept = np.take_along_axis(allowed, rows, axis=1)  # whatever row -1 reads, it stays -1
    first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(np.where(kept, rows, -1), first, axis=1)
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)


def chance_of_labels(gallery_labels: np.ndarray, query_labels: np.ndarray, k: int) -> float:
    """Return how often one of `k` gallery images drawn at random has the query's label.

    Drawn without replacement, and on average over the queries: what `NeighbourLabels.among`
    would be for vectors that know nothing, and `top1` with k = 1.

    Raises
    ------
    ValueError
        If `k` is not in [1, n].
    """
    n = len(gallery_labels)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is not in [1, {n}], the size of the gallery")
    asked, queries = np.unique(query_labels, return_counts=True)
    others = n - (np.asarray(gallery_labels) == asked[:, None]).sum(1)
    drawn = np.arange(k)
    misses = np.maximum(others[:, None] - drawn, 0) / (n - drawn)
    return float(1 - np.average(misses.prod(1), weights=queries))


def pixels_to_vectors(
    images: Sequence[np.ndarray | Path | str], *, side: int = 0, gray: bool = False
) -> np.ndarray:
    """Return images as their pixels, one after the other: the baseline that has no model.

    Parameters
    ----------
    images
        (H, W, 3) uint8 RGB arrays, or paths.
    side
        Pixels that each side is resized to; 0 takes images as they are, all of one size.
    gray
        Take the mean of the three channels: for gray images the same in a third of the memory.

    Returns
    -------
    np.ndarray
        (n, d) float32, unit length, but 0 for a black image, which is like no other.

    Raises
    ------
    ImageError
        If an image cannot be read.
    ValueError
        If images differ in size and `side` is 0.
    """
    vectors = np.empty((0, 0), np.float32)
    for row, source in enumerate(images):
        pixels = _read_pixels(source, side, gray)
        if not row:
            vectors, shape = np.empty((len(images), pixels.size), np.float32), pixels.shape
        if pixels.shape != shape:
            raise ValueError(
                f"image {row} is {pixels.shape[:2]} pixels (height, width), the first {shape[:2]}: "
                "say the side to resize them to"
            )
        vectors[row] = pixels.ravel()
        vectors[row] /= np.linalg.norm(vectors[row]) or 1
    return vectors


def _read_pixels(source: np.ndarray | Path | str, side: int, gray: bool) -> np.ndarray:
    image = source if isinstance(source, np.ndarray) else read_image(source)
    if side and image.shape[:2] != (side, side):
        image = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    return image.mean(2) if gray else image


def _check_labels(name: str, labels: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (len(vectors),) or not len(vectors):
        raise ValueError(f"{name}: {len(vectors)} vectors, labels of shape {labels.shape}")
    return labels
