"""search(index, query) -> Ranking: which indexed images are most like words or a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from regionlab.embedding import DEFAULT_TEMPLATES, Encoder
from regionlab.engines import ExactEngine
from regionlab.images import ImageError
from regionlab.index import Index
from regionlab.weights import hash_file


@dataclass(frozen=True, eq=False)
class Ranking:
    """The images found for each query, best first.

    Attributes
    ----------
    index
        Where they were found.
    queries
        (q,) what was asked, in words, paths or ids.
    rows
        (q, k) int64, rows of the index; -1 where a query has nothing more to offer.
    scores
        (q, k) float32, cosine similarity, higher is better.
    excluded
        (q,) int64, the row of the query's own image that was left out; -1 for none.
    """

    index: Index
    queries: list[str]
    rows: np.ndarray
    scores: np.ndarray
    excluded: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        out = int((self.excluded >= 0).sum())
        note = f", own image left out of {out}" if out else ""
        of = f"{self.rows.shape[1]} of {len(self.index)} images"
        return f"<Ranking: {len(self)} queries x {of}{note}>"

    def table(self, query: int = 0) -> pd.DataFrame:
        """Return one query's results: `rank` from 1, `image_id`, `path`, `score`."""
        rows, scores = self.rows[query], self.scores[query]
        found = self.index.images.iloc[rows[rows >= 0]]
        return pd.DataFrame({
            "rank": np.arange(1, len(found) + 1),
            "image_id": found["image_id"].to_numpy(),
            "path": found["path"].to_numpy(),
            "score": scores[rows >= 0],
        })  # fmt: skip


def search_text(
    index: Index,
    texts: str | Sequence[str],
    encoder: Encoder,
    *,
    k: int = 10,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
) -> Ranking:
    """Find the images that words describe: cosine of text and image vectors (S2, section 3).

    Parameters
    ----------
    index
        Where to look.
    texts
        One query or several.
    encoder
        The model that the index was made with.
    k
        How many images; at most all.
    templates
        Wordings around each text, see `Encoder.encode_texts`.

    Raises
    ------
    ValueError
        If a text is empty or `k` is not positive.
    IndexFolderError
        If the index is by another model.
    """
    index.check_encoder(encoder)
    texts = [texts] if isinstance(texts, str) else list(texts)
    vectors = encoder.encode_texts(texts, templates=templates)
    return search_vectors(index, vectors, k=k, queries=texts)


def search_image(
    index: Index,
    images: Path | str | np.ndarray | Sequence[Path | str | np.ndarray],
    encoder: Encoder,
    *,
    k: int = 10,
    exclude_self: bool = False,
) -> Ranking:
    """Find the images that look like a picture (S2, section 3; S0, equations 5 and 6).

    Parameters
    ----------
    index, encoder, k
        As for `search_text`.
    images
        One or several: paths, or (H, W, 3) uint8 RGB arrays.
    exclude_self
        Leave the query's own image out of its results. It is known by the bytes of its file,
        so this needs paths. A query that is not in the index loses nothing.

    Raises
    ------
    ImageError
        If a query image cannot be read.
    ValueError
        If `exclude_self` is asked for with arrays, or `k` is not positive.
    IndexFolderError
        If the index is by another model.
    """
    index.check_encoder(encoder)
    single = isinstance(images, (str, Path)) or (
        isinstance(images, np.ndarray) and images.ndim == 3
    )
    images = [images] if single else list(images)
    own = _find_own_rows(index, images) if exclude_self else None
    queries = [f"image {i}" if isinstance(x, np.ndarray) else str(x) for i, x in enumerate(images)]
    return search_vectors(index, encoder.encode_images(images), k=k, exclude=own, queries=queries)


def search_indexed(
    index: Index, image_ids: Sequence[str], *, k: int = 10, exclude_self: bool
) -> Ranking:
    """Search with images that are in the index, by their stored vectors; no model is needed.

    Parameters
    ----------
    index, k
        As for `search_text`.
    image_ids
        The queries.
    exclude_self
        Whether each query's own image is left out of its results.

    Raises
    ------
    KeyError
        If an id is not in the index.
    """
    rows = index.rows_of(list(image_ids))
    own = rows if exclude_self else None
    return search_vectors(index, index.vectors[rows], k=k, exclude=own, queries=list(image_ids))


def search_vectors(
    index: Index,
    vectors: np.ndarray,
    *,
    k: int = 10,
    exclude: np.ndarray | None = None,
    queries: Sequence[str] | None = None,
) -> Ranking:
    """Search with vectors of the index's own space.

    Parameters
    ----------
    vectors
        (q, d) float32, unit length.
    exclude
        (q,) int rows of the index left out of each query's results, -1 for none.
    queries
        Names for the record; numbers if not given.

    Raises
    ------
    ValueError
        If `k` is not positive or the vectors are not (q, d) unit vectors.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
    vectors = np.asarray(vectors, np.float32)
    if not np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-3):
        raise ValueError("query vectors must be unit length")
    excluded = np.full(len(vectors), -1) if exclude is None else np.asarray(exclude, np.int64)
    rows, scores = ExactEngine(index.vectors).search(
        vectors, min(k, len(index)), exclude=None if exclude is None else excluded
    )
    names = [str(i) for i in range(len(vectors))] if queries is None else list(queries)
    return Ranking(index, names, rows, scores, excluded)


def _find_own_rows(index: Index, images: list) -> np.ndarray:
    """Row of each image file in the index by its content, -1 where it is not there."""
    first_row = {}
    for row, digest in enumerate(index.images["sha256"]):
        first_row.setdefault(digest, row)
    rows = []
    for image in images:
        if isinstance(image, np.ndarray):
            raise ValueError("exclude_self needs image files: an array's own image cannot be known")
        try:
            rows.append(first_row.get(hash_file(Path(image)), -1))
        except OSError as e:
            raise ImageError(image, e.strerror or str(e)) from e
    return np.array(rows, np.int64)
