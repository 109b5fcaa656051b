"""Galleries of any size to try engines on: vectors in clusters, or around real ones."""

import numpy as np

CHUNK = 2**22  # numbers drawn at a time


def draw_clusters(
    n: int, d: int, *, clusters: int = 1000, spread: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Draw unit vectors around random centres, (n, d) float32.

    Parameters
    ----------
    clusters
        How many centres; each vector has one by chance.
    spread
        Length of the noise that is added to a centre, which is of length 1.
    seed
        Of centres and noise.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    if min(n, d, clusters) < 1:
        raise ValueError(f"n, d and clusters must be at least 1, got {n}, {d}, {clusters}")
    rng = np.random.default_rng(seed)
    return grow_vectors(to_unit(rng.normal(size=(clusters, d))), n, spread=spread, seed=seed + 1)


def grow_vectors(vectors: np.ndarray, n: int, *, spread: float, seed: int = 0) -> np.ndarray:
    """Draw unit vectors each near one of those given, (n, d) float32.

    A gallery that is larger than a collection at hand but lies as it does, so that queries in
    words are as far from it as from real pictures.

    Parameters
    ----------
    vectors
        (m, d) float, unit length.
    spread
        Length of the noise that is added.
    seed
        Of the choice and the noise.

    Raises
    ------
    ValueError
        If there are no vectors, or `n` or `spread` is not positive.
    """
    m, d = vectors.shape
    if min(m, n) < 1 or not spread > 0:
        raise ValueError(f"vectors, n and spread must be positive, got {m}, {n}, {spread}")
    rng = np.random.default_rng(seed)
    grown = np.empty((n, d), np.float32)
    for start in range(0, n, CHUNK // d):
        part = grown[start : start + CHUNK // d]
        noise = rng.standard_normal(part.shape, np.float32)
        np.add(vectors[rng.integers(m, size=len(part))], spread / d**0.5 * noise, out=part)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return grown


def to_unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1, (n, d) float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
