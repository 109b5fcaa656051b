"""Projection: vectors as points in the plane, and the numbers that say how far to believe them.

A map shows neighbourhoods, and t-SNE and UMAP show little else: distances between groups, their
sizes and their density mean nothing. So whether images of a kind sit together is measured
among the vectors themselves (`neighbour_purity`, `similarity_auc`), and how true a map is to
them by its trustworthiness.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.util.paths import let_numba_cache


def _project_pca(vectors: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, random_state=seed).fit_transform(vectors)


def _project_tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(vectors) - 1) / 3)
    return TSNE(metric="cosine", perplexity=perplexity, random_state=seed).fit_transform(vectors)


def _project_umap(vectors: np.ndarray, seed: int) -> np.ndarray:
    let_numba_cache()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP  # ten seconds to import, and as many to compile when first used

    neighbours = min(15, len(vectors) - 1)
    # One job: only so does the seed decide the map.
    model = UMAP(metric="cosine", n_neighbors=neighbours, random_state=seed, n_jobs=1)
    return model.fit_transform(vectors)


PROJECTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "PCA": _project_pca,
    "t-SNE": _project_tsne,
    "UMAP": _project_umap,
}


def project(vectors: np.ndarray, method: str, *, seed: int) -> np.ndarray:
    """Lay vectors out in the plane, (n, 2) float32.

    t-SNE (perplexity 30) and UMAP (15 neighbours, both fewer where there are few vectors) go by
    the cosine. The same seed gives the same map on the same machine and versions.

    Parameters
    ----------
    vectors
        (n, d) float32, unit length, n at least 5.
    method
        A name in `PROJECTIONS`.
    """
    if method not in PROJECTIONS:
        raise ValueError(f"unknown projection {method!r}; known: {', '.join(PROJECTIONS)}")
    if len(vectors) < 5:
        raise ValueError(f"a map needs at least 5 vectors, got {len(vectors)}")
    return PROJECTIONS[method](np.asarray(vectors), seed).astype(np.float32)


def measure_trust(vectors: np.ndarray, positions: np.ndarray, *, k: int = 10) -> np.ndarray:
    """Return how far each image's neighbours on a map are its neighbours among the vectors, (n,).

    The mean over images is the map's trustworthiness (Venna and Kaski 2001; scikit-learn's, by
    cosine): 1 if each image's k nearest on the map are its k nearest; about 0.5 for a map drawn
    at random. Takes n x n numbers of memory.

    Parameters
    ----------
    vectors, positions
        (n, d) float32 and (n, 2), from `project`.
    k
        Neighbours, fewer than n / 2.
    """
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors

    n = len(vectors)
    if k >= n / 2:
        raise ValueError(f"k={k} neighbours must be fewer than half of the {n} images")
    distances = pairwise_distances(vectors, metric="cosine")
    np.fill_diagonal(distances, np.inf)
    ranks = np.empty((n, n), np.int64)
    np.put_along_axis(ranks, distances.argsort(axis=1), np.arange(1, n + 1)[None], axis=1)
    near = NearestNeighbors(n_neighbors=k).fit(positions).kneighbors(return_distance=False)
    beyond = np.maximum(np.take_along_axis(ranks, near, axis=1) - k, 0).sum(axis=1)
    return 1 - 2 * beyond / (k * (2 * n - 3 * k - 1))


def neighbour_purity(
    points: np.ndarray, labels: Sequence, *, k: int = 10, metric: str = "cosine"
) -> np.ndarray:
    """Return the share of each image's k nearest, itself left out, that have its label, (n,).

    Parameters
    ----------
    points
        (n, d) vectors, or (n, 2) positions on a map.
    labels
        (n,) a label an image.
    k
        Neighbours, fewer than n.
    metric
        "cosine" for vectors, "euclidean" for positions.
    """
    from sklearn.neighbors import NearestNeighbors

    labels = np.asarray(labels)
    if len(points) != len(labels):
        raise ValueError(f"{len(points)} points have {len(labels)} labels")
    if not 1 <= k < len(points):
        raise ValueError(f"k must be at least 1 and below {len(points)}, got {k}")
    search = NearestNeighbors(n_neighbors=k, metric=metric).fit(points)
    nearest = search.kneighbors(return_distance=False)
    return (labels[nearest] == labels[:, None]).mean(axis=1)


def chance_purity(labels: Sequence) -> np.ndarray:
    """Return the share of the other images that have an image's label, (n,) float."""
    labels = pd.Series(labels)
    return ((labels.groupby(labels).transform("size") - 1) / (len(labels) - 1)).to_numpy()


def split_similarities(vectors: np.ndarray, labels: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of all pairs within a class, and of all pairs between classes, 1-D each.

    Takes n x n numbers of memory. A pair counts once, an image with itself does not.
    """
    labels = np.asarray(labels)
    first, second = np.triu_indices(len(labels), 1)
    cosines, same = (vectors @ vectors.T)[first, second], labels[first] == labels[second]
    return cosines[same], cosines[~same]


def similarity_auc(vectors: np.ndarray, labels: Sequence) -> np.ndarray:
    """Return how surely the cosine tells an image's own class from the others, (n,) in [0, 1].

    For each image, the chance that another of its class is more similar to it than one of
    another class, ties counted half: 1 where the class comes first as a whole, 0.5 by chance;
    NaN for an image that has no other of its class, or none of another.
    """
    from scipy.stats import rankdata

    labels = np.asarray(labels)
    found = np.full(len(labels), np.nan)
    for row, vector in enumerate(vectors):
        others = np.arange(len(labels)) != row
        same = labels[others] == labels[row]
        pairs = same.sum() * (~same).sum()
        if pairs:
            ranks = rankdata((vectors @ vector)[others])
            found[row] = (ranks[same].sum() - same.sum() * (same.sum() + 1) / 2) / pairs
    return found


def label_images(collection: Collection, image_ids: Iterable[str], column: str) -> np.ndarray:
    """Label (n,) images by a column, as str: of their own, or of the largest object that they hold.

    The column is one of `collection.images`, such as "label" or "ground", or else of
    `collection.objects`, such as "category"; "" where an image has no object or no value.
    """
    if column in collection.images:
        table = collection.images
    elif column in collection.objects:
        table = collection.objects[~collection.objects["iscrowd"]]
        table = table.sort_values("area", ascending=False, kind="stable")
    else:
        known = [*collection.images.columns, *collection.objects.columns]
        raise ValueError(f"no column {column!r} in {collection.name}; there are {known}")
    values = table.drop_duplicates("image_id").set_index("image_id")[column]
    return values.reindex(list(image_ids)).fillna("").astype(str).to_numpy(str)


def count_concepts(captions: Iterable[str]) -> dict[str, int]:
    """Count the words of captions, most frequent first, plurals with their singulars.

    Words of no concept ("the", "with") and numbers are left out, as the wordcloud library does.
    """
    from wordcloud import WordCloud

    counts = WordCloud(collocations=False).process_text("\n".join(captions))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
