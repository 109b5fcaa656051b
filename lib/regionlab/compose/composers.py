"""Composed retrieval (S4): an image and a modification text become one query vector.

A composer is a text encoder, frozen or tuned, and a way to fuse: `COMPOSERS` names them all, from
the image alone to the Combiner on a tuned text encoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regionlab.models import spaces
from regionlab.models.spaces import Vectors, find_difference, get_encoding, with_space
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder

Fusion = Callable[[np.ndarray, np.ndarray], np.ndarray]
Compose = Callable[[np.ndarray, list[str]], np.ndarray]
UNIT = 1e-3  # how near to 1 a length must be to be that of a unit vector


# Ways to fuse (q, d) features of images and of texts


def image_only(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the images' features."""
    return images


def text_only(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the texts' features."""
    return texts


def add(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the element-wise sum of the features as they are (S4; Baldrati et al. 2022)."""
    return images + texts


def weighted_sum(images: np.ndarray, texts: np.ndarray, *, weight: float) -> np.ndarray:
    """Return (1 - weight) * image + weight * text of the unit vectors."""
    return (1 - weight) * to_unit(images) + weight * to_unit(texts)


def slerp(images: np.ndarray, texts: np.ndarray, *, weight: float) -> np.ndarray:
    """Go the share `weight` of the great circle from image to text.

    Spherical linear interpolation, sin((1 - w) a) / sin(a) * image + sin(w a) / sin(a) * text
    with a the angle between them (Shoemake 1985; Jang et al. 2024 for composed retrieval).
    """
    images, texts = to_unit(images), to_unit(texts)
    cosine = (images * texts).sum(1, keepdims=True).clip(-1, 1)
    angle = np.arccos(cosine)
    straight = np.sin(angle) < 1e-4  # no great circle between them, or any
    sine = np.where(straight, 1, np.sin(angle))
    first = np.where(straight, 1 - weight, np.sin((1 - weight) * angle) / sine)
    second = np.where(straight, weight, np.sin(weight * angle) / sine)
    return first * images + second * texts


def to_unit(vectors: np.ndarray) -> np.ndarray:
    """Return (q, d) vectors of unit length; ValueError if one is zero or not finite."""
    directions = spaces.to_unit(vectors)
    lost = np.isnan(directions).any(axis=1)
    if lost.any():
        raise ValueError(f"vector {int(lost.argmax())} is zero or not finite: it has no direction")
    return directions


@dataclass(frozen=True)
class ComposerSpec:
    """What a composer is made of."""

    summary: str  # what it does, for tables
    fusion: Callable[..., np.ndarray] | None  # None for the Combiner
    tuned: bool = False  # whether the text encoder is the tuned one
    weighted: bool = False  # whether the fusion has a weight, chosen on validation queries


COMPOSERS: dict[str, ComposerSpec] = {
    "image": ComposerSpec("image only", image_only),
    "text": ComposerSpec("text only", text_only),
    "sum": ComposerSpec("element-wise sum", add),
    "weighted": ComposerSpec("weighted sum of unit vectors", weighted_sum, weighted=True),
    "slerp": ComposerSpec("along the great circle", slerp, weighted=True),
    "fine_tuned_sum": ComposerSpec("text encoder tuned, sum (stage 1)", add, tuned=True),
    "combiner": ComposerSpec("CLIP frozen, Combiner (stage 2)", None),
    "fine_tuned_combiner": ComposerSpec(
        "text encoder tuned, Combiner (both stages)", None, tuned=True
    ),
}


@dataclass(frozen=True, eq=False)
class Composer:
    """A way to compose an image and a modification text; made by `create_composer`.

    Attributes
    ----------
    name : a name in `COMPOSERS`
    encode_texts : texts to (q, d) float32 features, as long as the tower makes them
    fuse : image and text features to (q, d)
    image_length : mean length of image features; what unit vectors are stretched to
    space : embedding space of the features, `Encoder.space`, and so of what is composed; None if
        it is not known
    """

    name: str
    encode_texts: Callable[[list[str]], np.ndarray]
    fuse: Fusion
    image_length: float
    space: str | None = None

    def compose(self, image_vectors: np.ndarray, texts: Sequence[str]) -> Vectors:
        """Compose queries.

        Parameters
        ----------
        image_vectors
            (q, d) float, features of the reference images, or of regions of them: as long as
            the model makes them (`encode_images(..., unit=False)`), or unit vectors, such as an
            index holds. The latter lose nothing but their own lengths: all get the mean length.
        texts
            (q,) modification texts, one a reference.

        Returns
        -------
        Vectors
            (q, d) float32, unit length, to be compared with unit vectors of images; in the space
            of the encoder and, of regions, by the encoding of the references.

        Raises
        ------
        ValueError
            If the numbers of vectors and texts differ, a text is empty, or a vector is not
            finite, or of another length or space than the encoder's.
        """
        if difference := find_difference(image_vectors, self):
            raise ValueError(f"image_vectors are by another model than {self.name}: {difference}")
        texts = check_texts(texts)
        features = self.encode_texts(texts)
        images = self._check_images(image_vectors, features)
        composed = to_unit(self.fuse(images, features)).astype(np.float32)
        return with_space(composed, self.space, get_encoding(image_vectors))

    def _check_images(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        images = np.asarray(images, np.float32)
        if images.shape != texts.shape:
            raise ValueError(
                f"image_vectors must be {texts.shape}, a vector for each text of the width of "
                f"this encoder's, got {images.shape}"
            )
        lengths = np.linalg.norm(images, axis=1)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise ValueError("image_vectors hold one that is zero or not finite")
        unit = np.abs(lengths - 1) < UNIT
        return images * np.where(unit, self.image_length, 1).astype(np.float32)[:, None]


def create_composer(
    name: str,
    encoder: "Encoder",
    *,
    image_length: float | None = None,
    weight: float | None = None,
    folder: Path | str | None = None,
) -> Composer:
    """Create a composer by name.

    Parameters
    ----------
    name
        A name in `COMPOSERS`.
    encoder
        CLIP, of whose features queries are made.
    image_length
        Mean length of the encoder's image features, for queries from unit vectors; by default
        that of the training images, where `folder` holds trained parts. It matters to the sum
        and the Combiner alone.
    weight
        Of the text, in [0, 1], for "weighted" and "slerp"; see `benchmark.fit_weight`.
    folder
        With `text.safetensors`, `combiner.safetensors` and `fine_tuned_combiner.safetensors`,
        as training leaves them. By default those of Toybox, for toyclip.

    Raises
    ------
    InputError
        If the name is unknown, a weight is missing or not in [0, 1], or `image_length` is not
        positive.
    WeightsError
        If trained parts are missing, or of another encoder.
    """
    from regionlab.compose.files import TrainedParts  # late: it needs torch
    from regionlab.models.clip import TextFeatures

    if name not in COMPOSERS:
        raise InputError(f"unknown composer {name!r}; known: {', '.join(COMPOSERS)}")
    spec = COMPOSERS[name]
    parts = TrainedParts(encoder, folder)
    fuse = spec.fusion or parts.load_combiner(name).compose
    if spec.weighted:
        if weight is None or not 0 <= weight <= 1:
            raise InputError(f"{name} needs the weight of the words, in [0, 1], got {weight}")
        fuse = partial(spec.fusion, weight=weight)
    texts = parts.load_text() if spec.tuned else TextFeatures(encoder)
    if image_length is None:
        image_length = parts.image_length if spec.fusion in (None, add) else 1.0
    if not 0 < image_length < np.inf:
        raise InputError(f"image_length must be positive, got {image_length}")
    return Composer(name, texts.encode_texts, fuse, image_length, encoder.space)


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return modification texts as a list; InputError if a single string, or one is empty."""
    if isinstance(texts, str):
        raise InputError(f"texts is a single string, {texts!r}: give a list, one for each image")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"text {i} is {text!r}: a change needs at least one word")
    return texts
