"""How composed queries lie among the images: cosines with targets and others, effective rank."""

from dataclasses import dataclass

import numpy as np


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
