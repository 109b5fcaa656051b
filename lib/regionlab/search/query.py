"""Queries: parts of images and words, each a vector with a weight (query algebra).

A query holds one or several parts. A part of positive weight is wanted; a part of negative
weight is not ("like this, without that").
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regionlab.data.masks import rle_to_mask
from regionlab.models.spaces import find_difference, get_encoding, get_space, with_space

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Region


@dataclass(frozen=True, eq=False)
class Part:
    """One thing that a query asks for, or asks to be without.

    Parameters
    ----------
    vector
        (d,) float32, unit length.
    box
        (4,) XYXY in [0, 1], as shares of the width and height of the image that the part was
        taken from; None for a part that has no place, such as words.
    weight
        Relative to the other parts; negative for what should not be there. The cosine of words
        with an image is lower than that of two images, and so has less to say in a query of
        both: weight words higher there.
    label
        For people to read.
    rle
        The mask of the part in that image, as COCO's compressed RLE, see `regionlab.data.masks`;
        asked for only by `Rol(overlap="mask")`.
    space, encoding
        Embedding space of the vector, `Encoder.space`, and how a region became the vector, a name
        in `regions.REGION_ENCODINGS`, which a search compares with the index's. By default what
        the vector says of itself, as all that encoders make do. Without a space, as an array of
        your own, it is compared with any: that it fits is yours to see to. Whole images and words
        have no encoding, and may be compared with regions of any.
    """

    vector: np.ndarray
    box: np.ndarray | None = None
    weight: float = 1.0
    label: str = ""
    rle: dict | None = None
    space: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if difference := find_difference(self.vector, self):
            raise ValueError(f"the vector of a part is not what it is said to be: {difference}")
        space = get_space(self.vector) or self.space
        encoding = get_encoding(self.vector) or self.encoding
        vector = with_space(_check_vector(self.vector), space, encoding)
        for name, value in (("vector", vector), ("space", space), ("encoding", encoding)):
            object.__setattr__(self, name, value)
        if self.box is not None:
            object.__setattr__(self, "box", _check_box(self.box))
        if not np.isfinite(self.weight) or self.weight == 0:
            raise ValueError(f"the weight of a part must be finite and not 0, got {self.weight}")
        if self.rle is not None:
            _check_rle(self.rle)


@dataclass(frozen=True, eq=False)
class Query:
    """Parts that are asked for together, at least one of positive weight.

    The label is for people to read; by default made of the parts' labels.
    """

    parts: tuple[Part, ...]
    label: str = ""

    def __post_init__(self) -> None:
        parts = tuple(self.parts)
        if not any(part.weight > 0 for part in parts):
            raise ValueError(
                f"none of the {len(parts)} parts of the query has a positive weight: "
                "say what to look for, not only what to avoid"
            )
        dims = sorted({len(part.vector) for part in parts})
        if len(dims) > 1:
            raise ValueError(f"the parts of a query have vectors of different lengths: {dims}")
        spaces = sorted({part.space for part in parts} - {None})
        if len(spaces) > 1:
            raise ValueError(
                f"the parts of a query are of different embedding spaces: {', '.join(spaces)}; "
                "make them with one model"
            )
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "label", self.label or _join_labels(parts))

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def dim(self) -> int:
        """Length d of the parts' vectors."""
        return len(self.parts[0].vector)

    @property
    def vectors(self) -> np.ndarray:
        """(m, d) float32, the parts' unit vectors."""
        return np.stack([part.vector for part in self.parts])

    @property
    def weights(self) -> np.ndarray:
        """(m,) float64, the parts' weights."""
        return np.array([part.weight for part in self.parts], np.float64)


@dataclass(frozen=True, eq=False)
class QueryVectors:
    """The vectors that a query is compared with: its parts, or the mean of them."""

    vectors: np.ndarray  # (p, d) float32, unit length
    weights: np.ndarray  # (p,) float64, as in the score: the positive ones sum to 1
    of_part: np.ndarray  # (m,) int, which vector stands for each part of the query

    @property
    def wanted(self) -> np.ndarray:
        """(p,) bool, of positive weight."""
        return self.weights > 0


def make_query_vectors(query: Query, aggregation: str) -> QueryVectors:
    """Return a vector for each part, or with "mean" a single one for all wanted parts.

    The mean is S0's way with several objects (section 3.8), weighted and of unit length again.
    Unwanted parts stay by themselves. ValueError if the wanted vectors cancel each other out.
    """
    vectors, weights = query.vectors, query.weights
    weights = weights / weights[weights > 0].sum()
    wanted = weights > 0
    if aggregation == "match":
        return QueryVectors(vectors, weights, np.arange(len(query)))
    mean = weights[wanted] @ vectors[wanted]
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise ValueError("the vectors of the query's parts cancel each other out: no mean")
    vectors = np.vstack([mean / length, vectors[~wanted]]).astype(np.float32)
    of_part = np.where(wanted, 0, np.cumsum(~wanted))
    return QueryVectors(vectors, np.append(1.0, weights[~wanted]), of_part)


def part_from_region(
    encoder: "Encoder",
    image: np.ndarray,
    region: "Region",
    *,
    encoding: str | None = None,
    weight: float = 1.0,
    label: str = "",
) -> Part:
    """Make a part from a region of an image (S0, equations 3 and 4).

    Parameters
    ----------
    encoder
        The model that the index was made with.
    image, region
        (H, W, 3) uint8 RGB, and what a prompt has marked in it.
    encoding
        How the region becomes a vector, a name in `regions.REGION_ENCODINGS`; the one that the
        regions of the index were made with. By default `regions.DEFAULT_ENCODING`.
    weight, label
        As for `Part`.
    """
    # Late: it needs torch, which a Query does not.
    from regionlab.regions.encodings import DEFAULT_ENCODING, encode_regions

    encoding = encoding or DEFAULT_ENCODING
    vector = encode_regions(encoder, image, [region.mask], encoding=encoding)[0]
    height, width = image.shape[:2]
    box = np.asarray(region.box, np.float64) / (width, height, width, height)
    return Part(vector, box, weight, label, region.rle)


def part_from_words(encoder: "Encoder", words: str, *, weight: float = 1.0) -> Part:
    """Make a part from words by the text encoder, without a place (S0, section 3.7).

    This compares words with images directly. To let words choose a region of a given image,
    see `regions.grounding`, and use `part_from_region` (S0, figure 1). ValueError without words.
    """
    return Part(encoder.encode_texts([words])[0], weight=weight, label=words)


def _join_labels(parts: tuple[Part, ...]) -> str:
    """Return such as "chair + table - lamp"; nothing if not all parts have a label."""
    if not all(part.label for part in parts):
        return ""
    signed = "".join(f" {'+' if part.weight > 0 else '-'} {part.label}" for part in parts)
    return signed.removeprefix(" + ").strip()


def _check_vector(vector: np.ndarray) -> np.ndarray:
    vector = np.array(vector, np.float32)
    if vector.ndim != 1:
        raise ValueError(f"the vector of a part must be (d,), got {vector.shape}")
    length = np.linalg.norm(vector)
    if not np.isclose(length, 1, atol=1e-3):
        raise ValueError(f"the vector of a part must be of length 1, got {length:g}")
    return vector


def _check_box(box: np.ndarray) -> np.ndarray:
    box = np.array(box, np.float64)
    if box.shape != (4,):
        raise ValueError(f"the box of a part must be (4,) XYXY, got {box.shape}")
    if not (box >= 0).all() or not (box <= 1).all():
        raise ValueError(f"the box of a part must be in [0, 1], shares of its image, got {box}")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"the box of a part must be XYXY with an area above 0, got {box}")
    return box


def _check_rle(rle: dict) -> None:
    try:
        empty = not rle_to_mask(rle).any()
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"the RLE of a part is none: {e!r} in {str(rle)[:80]}") from e
    if empty:
        raise ValueError(f"the RLE of a part must hold a mask, got {str(rle)[:80]}")
