"""Training-free ways to fuse an image vector with a text vector into a query, row by row.

All take (q, d) features as long as the models make them, and return (q, d); the length of what
comes out says nothing.
"""

import numpy as np


def take_image(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the image: the words are not heard."""
    return images


def take_text(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the words: the image is not seen."""
    return texts


def add(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the element-wise sum of the features as they are (S4; Baldrati et al. 2022)."""
    return images + texts


def weigh(images: np.ndarray, texts: np.ndarray, *, weight: float) -> np.ndarray:
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
    """Return vectors of unit length.

    Raises
    ------
    ValueError
        If one is zero or not finite, such as the sum of two opposite vectors.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~((lengths > 0) & np.isfinite(lengths)).ravel()
    if bad.any():
        raise ValueError(f"vector {int(bad.argmax())} is zero or not finite: it has no direction")
    return vectors / lengths
