"""How well an image answers a query of several parts: pure array arithmetic, exact.

With part i of weight w_i, and W the sum of the positive weights,

    score = sum of w_i * s_i / W,

s_i being the cosine (S0, equations 5, 6 and 8) of the part and the image, or the image's region
that answers it best. A negative weight so takes away what the unwanted part finds at best.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from regionlab.query import Probes

# Similarity of a wanted part that finds no region: the lowest cosine. So a further region never
# makes an image worse, which no value inside the range of the cosines could promise.
UNMATCHED = -1.0

# Images matched at a time while looking for the best: more are a waste, fewer cost rounds.
WINDOW = 32

RANKED_BY = ("similar", "overlap", "whole")
FRAMES = ("image", "pixels")


@dataclass(frozen=True)
class Rol:
    """Settings of the Ranking Optimization Layer (S0, algorithm 1, step 5, and section 3.7).

        score = alpha * sim(f_Q, f_I) + beta * IoU(R_Q, R_I)

    The paper gives no alpha and beta, and does not say what R_I is, in which frame two regions
    of different images overlap, nor how many images are re-ranked. Here `sim` is the score of
    the search, and the IoU is that of boxes, averaged by weight over the wanted parts that have
    one; words and unwanted parts take no part in it.

    Parameters
    ----------
    alpha, beta
        Weights of the two terms, 0 or more, not both 0.
    region
        What R_I is: "similar", the region that the search matched with the part; "overlap", the
        region of the image with the highest IoU, chosen for each part by itself; "whole", the
        whole image. Without a region the IoU is 0. In the frame "image" the whole image adds
        the area of the query's box to each candidate alike, and so changes no order.
    candidates
        How many images of the search are re-ranked. The others follow in their order, with an
        IoU of 0: none of them can score higher than a candidate, as beta is not negative.
    frame
        Where the boxes lie over each other: "image", both images stretched to the same square;
        "pixels", the images' own pixels, counted from the top left corner.

    Raises
    ------
    ValueError
        If a value is not one of these.
    """

    alpha: float = 1.0
    beta: float = 0.0
    region: str = "similar"
    candidates: int = 50
    frame: str = "image"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not np.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0: every image would score the same")
        check_choice("region", self.region, RANKED_BY)
        check_choice("frame", self.frame, FRAMES)
        check_count("candidates", self.candidates)


def cosines(probes: Probes, vectors: np.ndarray) -> np.ndarray:
    """Return (p, n) float32, each probe with each of (n, d) unit vectors.

    Not a matrix product, whose rounding depends on where a row stands: equal vectors must tie.
    """
    return np.stack([np.einsum("nd,d->n", vectors, probe) for probe in probes.vectors])


def best_of_each(values: np.ndarray, offsets: np.ndarray, empty: np.ndarray | float) -> np.ndarray:
    """Return the highest of each image's regions, (p, n), from (p, r) values.

    The regions of image i are `offsets[i]` to `offsets[i + 1]`; `empty` stands where it has none.
    """
    best = np.empty((len(values), len(offsets) - 1), values.dtype)
    best[:] = np.reshape(empty, (-1, 1))
    held = np.diff(offsets) > 0
    if held.any():
        best[:, held] = np.maximum.reduceat(values, offsets[:-1][held], axis=1)
    return best


def match_parts(similarity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give each part a region of its own, such that the score is highest.

    Parameters
    ----------
    similarity
        (m, r) cosines.
    weights
        (m,) positive.

    Returns
    -------
    np.ndarray
        (m,) int64, the region of each part; -1, worth `UNMATCHED`, where there are too few.
    """
    gain = weights[:, None] * (similarity - UNMATCHED)
    parts, regions = linear_sum_assignment(gain, maximize=True)
    matched = np.full(len(similarity), -1)
    matched[parts] = regions
    return matched


class BestRegions:
    """Which region of each image answers each probe of a query, and how well.

    Starts with the best region of each probe by itself. Where two wanted probes share it, that
    is a bound from above, and the image is `open` until `match` has been called for it.

    Parameters
    ----------
    probes
        Of the query.
    vectors
        (r, d) float32 region vectors, those of an image together.
    offsets
        (n + 1,) where each image's regions begin.

    Attributes
    ----------
    similarity
        (p, n) float32. An image without regions is as bad as can be: `UNMATCHED` for a wanted
        probe, 1 for an unwanted one, so that it comes last.
    rows
        (p, n) int64, the region; -1 for none.
    open
        (n,) bool.
    """

    def __init__(self, probes: Probes, vectors: np.ndarray, offsets: np.ndarray):
        self._probes, self._offsets = probes, offsets
        self._all = cosines(probes, vectors)
        worst = np.where(probes.wanted, UNMATCHED, -UNMATCHED)
        self.similarity = best_of_each(self._all, offsets, worst)
        self.rows = self._find_rows()
        chosen = np.sort(self.rows[probes.wanted], axis=0)
        self.open = ((chosen[1:] == chosen[:-1]) & (chosen[1:] >= 0)).any(axis=0)

    def _find_rows(self) -> np.ndarray:
        """Return the first region that reaches the similarity, (p, n)."""
        counts = np.diff(self._offsets)
        is_best = self._all == np.repeat(self.similarity, counts, axis=1)
        last = self._all.shape[1]
        from_last = np.where(is_best, last - np.arange(last), 0)
        return last - best_of_each(from_last, self._offsets, last + 1)

    def match(self, images: np.ndarray) -> None:
        """Give each wanted probe a region of its own in those of the images that are open."""
        wanted = np.flatnonzero(self._probes.wanted)
        weights = self._probes.weights[wanted]
        for image in images[self.open[images]]:
            start, stop = self._offsets[image : image + 2]
            similarity = self._all[wanted, start:stop]
            found = match_parts(similarity, weights)
            value = similarity[np.arange(len(wanted)), found]
            self.similarity[wanted, image] = np.where(found < 0, UNMATCHED, value)
            self.rows[wanted, image] = np.where(found < 0, -1, start + found)
        self.open[images] = False


def find_best(
    probes: Probes,
    images: np.ndarray,
    best: BestRegions | None,
    *,
    share: float,
    depth: int,
    excluded: int = -1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the images that answer a query best, by whole image, by region or by both.

    An image that is still to be matched stands where its bound would put it. Once none of the
    first ones is, no image behind them can come before them.

    Parameters
    ----------
    probes
        Of the query.
    images
        (n, d) float32 image vectors.
    best
        Its regions; some of them are matched here. None where `share` is 1.
    share
        Weight of the whole image, in [0, 1]; the region has the rest.
    depth
        How many images.
    excluded
        Row of an image that is left out, -1 for none.

    Returns
    -------
    rows
        (depth,) int64, or fewer, best first; rows of equal score in rising order.
    similarity, without
        As `rows`, float64: what the wanted and the unwanted parts give. Their sum, in float32,
        is the score.
    """
    whole = cosines(probes, images) if share > 0 else None
    window = max(depth, WINDOW)
    while True:
        similarity, without = _weigh(probes, whole, best, share)
        order = np.argsort(-np.float32(similarity + without), kind="stable")
        order = order[order != excluded]
        if share == 1 or not best.open[order[:depth]].any():
            rows = order[:depth]
            return rows, similarity[rows], without[rows]
        best.match(order[:window])
        window *= 2


def _weigh(
    probes: Probes, whole: np.ndarray | None, best: BestRegions | None, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the wanted and what the unwanted parts give each image, (n,) float64 each."""
    similarity = share * whole if share > 0 else 0.0
    if share < 1:
        similarity = similarity + (1 - share) * best.similarity
    weighted = probes.weights[:, None] * similarity
    return weighted[probes.wanted].sum(axis=0), weighted[~probes.wanted].sum(axis=0)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of (m, 4) and (r, 4) XYXY boxes, (m, r) float64.

    Both in the same frame; 0 where neither box has an area.
    """
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(axis=-1)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `ValueError` if a value is not among the known ones."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def check_count(name: str, value: int) -> None:
    """Raise `ValueError` if a value is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
