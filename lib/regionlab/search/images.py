"""Search by words, by image or by vector: the images of an index that are most like them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.data.images import ImageError
from regionlab.index.index import Index
from regionlab.models.spaces import get_space
from regionlab.search.engine import Engine, Where, check_exclude
from regionlab.search.engines import build_engine
from regionlab.util.errors import check_count
from regionlab.util.files import hash_file
from regionlab.util.paths import expand

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder, ImageSource


@dataclass(frozen=True, eq=False)
class Ranking:
    """The images found for each query, best first."""

    index: Index
    queries: list[str]  # (q,) what was asked, in words, paths or ids
    rows: np.ndarray  # (q, k) int64, of the index; -1 where there is nothing more to offer
    scores: np.ndarray  # (q, k) float32, cosine similarity, higher is better
    excluded: np.ndarray  # (q,) int64, row of the query's own image, left out; -1 for none

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
    texts: str | Iterable[str],
    encoder: "Encoder",
    *,
    k: int = 10,
    templates: str | Sequence[str] = ("{}",),
    engine: str | Engine = "exact",
    where: Where | None = None,
) -> Ranking:
    """Find the images that words describe: cosine of text and image vectors (S2, section 3).

    Parameters
    ----------
    index
        Where to look.
    texts
        One query or several.
    encoder
        The model that the index was made with; IndexFolderError if it is another.
    k
        How many images; all, if the index holds fewer.
    templates
        Wordings around each text, see `Encoder.encode_texts`.
    engine
        Which engine searches: a name, as for `build_engine`, or what `get_engine` returned,
        which spares many searches its opening.
    where
        Only images whose columns of `index.images` match, such as `label == "cat"`; see
        `engine.match_rows`.
    """
    index.check_encoder(encoder)
    texts = [texts] if isinstance(texts, str) else list(texts)
    vectors = encoder.encode_texts(texts, templates=templates)
    return search_vectors(index, vectors, k=k, queries=texts, engine=engine, where=where)


def search_image(
    index: Index,
    images: "ImageSource | Iterable[ImageSource]",
    encoder: "Encoder",
    *,
    k: int = 10,
    exclude_self: bool = False,
    engine: str | Engine = "exact",
    where: Where | None = None,
) -> Ranking:
    """Find the images that look like an image (S2, section 3; S0, equations 5 and 6).

    Parameters
    ----------
    index, encoder, k, engine, where
        As for `search_text`.
    images
        One or several: paths, or (H, W, 3) uint8 RGB arrays; ImageError if one cannot be read.
    exclude_self
        Leave the query's own image out of its results: the file itself where it is indexed,
        else the first file of the same bytes. So this needs paths. A query that is not in the
        index loses nothing, and a further copy of the query stays and scores 1.
    """
    index.check_encoder(encoder)
    one = isinstance(images, str | Path) or getattr(images, "ndim", 0) == 3
    images = [images] if one else list(images)
    own = [_find_own_row(index, image) for image in images] if exclude_self else None
    names = [f"image {i}" if isinstance(x, np.ndarray) else str(x) for i, x in enumerate(images)]
    vectors = encoder.encode_images(images)
    options = {"k": k, "engine": engine, "where": where}
    return search_vectors(index, vectors, exclude=own, queries=names, **options)


def search_indexed(
    index: Index,
    image_ids: str | Iterable[str],
    *,
    k: int = 10,
    exclude_self: bool,
    engine: str | Engine = "exact",
    where: Where | None = None,
) -> Ranking:
    """Search with images that are in the index, by their stored vectors; no model is needed.

    `image_ids` are one query or several, KeyError if one is not in the index; `exclude_self` says
    whether each query's own image is left out of its results; all else is as for `search_text`.
    """
    image_ids = [image_ids] if isinstance(image_ids, str) else list(image_ids)
    rows = index.rows_of(image_ids)
    own, options = rows if exclude_self else None, {"k": k, "engine": engine, "where": where}
    return search_vectors(index, index.vectors[rows], exclude=own, queries=image_ids, **options)


def search_vectors(
    index: Index,
    vectors: np.ndarray,
    *,
    k: int = 10,
    exclude: Sequence[int] | np.ndarray | None = None,
    queries: Sequence[str] | None = None,
    space: str | None = None,
    engine: str | Engine = "exact",
    where: Where | None = None,
) -> Ranking:
    """Search with vectors of the index's own space.

    Regions' vectors may be asked for here too: they are compared with whole images.

    Parameters
    ----------
    index, k, engine, where
        As for `search_text`.
    vectors
        (q, d) float32, unit length.
    exclude
        (q,) rows of the index left out of each query's results, -1 for none.
    queries
        (q,) names for the record; numbers if not given.
    space
        Embedding space of the vectors, `Encoder.space`. What encoders, composers and indexes
        return says it itself; IndexFolderError if it is not the index's. A plain array without
        it is taken for one of the index's space: that it fits is yours to see to.
    """
    check_count("k", k)
    for said in (get_space(vectors), space):
        index.check_space("the query vectors are", said)
    vectors = np.asarray(vectors)
    if vectors.dtype.kind not in "fiu":
        raise ValueError(f"vectors must be numbers, got an array of {vectors.dtype}")
    vectors = vectors.astype(np.float32, copy=False)
    if vectors.ndim != 2 or vectors.shape[1] != index.vectors.shape[1]:
        raise ValueError(f"vectors must be (q, {index.vectors.shape[1]}), got {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        worst = lengths[np.argmax(np.abs(lengths - 1))]
        raise ValueError(f"query vectors must be of length 1, got one of {worst:g}")
    names = list(map(str, range(len(vectors)) if queries is None else queries))
    if len(names) != len(vectors):
        raise ValueError(f"{len(names)} names for {len(vectors)} queries")
    excluded = check_exclude(exclude, len(vectors), len(index))
    if isinstance(engine, str):
        engine = get_engine(index, engine)
    _check_engine(index, engine)
    rows, scores = engine.search(vectors, min(k, len(index)), exclude=excluded, where=where)
    return Ranking(index, names, rows, scores, excluded)


def get_engine(index: Index, name: str, *, folder: Path | str | None = None) -> Engine:
    """Return an engine over an index, built at its first use; later ones open it.

    `name` is as for `build_engine`; engines are kept in `folder`, by default beside the index, in
    `<its name>.engines`.
    """
    return build_engine(
        name,
        index.vectors,
        folder=folder or index.folder.with_name(f"{index.folder.name}.engines"),
        identity=index.id,
        table=index.images,
        ids=index.images["image_id"],
    )


def _check_engine(index: Index, engine: Engine) -> None:
    """Raise `ValueError` unless an engine holds the vectors of an index."""
    step = max(len(index) // 1000, 1)  # rows from all over: to read all would take too long
    if not np.array_equal(engine.vectors[::step], index.vectors[::step]):
        n, d = engine.vectors.shape
        raise ValueError(
            f"{engine.name} holds {n} x {d} vectors that are not those of {index!r}: "
            "get_engine(index, name) makes one that does"
        )


def _find_own_row(index: Index, image: "ImageSource") -> int:
    """Row of an image file in the index, the very file first, then its bytes; -1 for none."""
    if isinstance(image, np.ndarray):
        raise ValueError("exclude_self needs image files: an array's own image cannot be known")
    try:
        digest = hash_file(expand(image))
    except OSError as e:
        raise ImageError(image, e.strerror or str(e)) from e
    rows = np.flatnonzero(index.images["sha256"] == digest)
    here = expand(image).resolve()
    same_file = [row for row in rows if index.path(row).resolve() == here]
    return int([*same_file, *rows, -1][0])
