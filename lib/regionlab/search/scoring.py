"""How well an image answers a query of several parts: pure array arithmetic, exact.

With part i of weight w_i, and W the sum of the positive weights,

    score = sum of w_i * s_i / W,

s_i being the cosine (S0, equations 5, 6 and 8) of the part and the image, or the image's region
that answers it best. A negative weight so takes away what the unwanted part finds at best.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.optimize import linear_sum_assignment

from regionlab.search.query import QueryVectors
from regionlab.util.checks import check_choice, check_count

WORKED_OUT = 3  # parts, at most, whose ways to be matched are all looked at: 4 ** 3
TIED = 1e-9  # scores this close may be equal but for rounding


def choose_regions(
    similarity: np.ndarray, counts: np.ndarray, probes: QueryVectors
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the region of each image that answers each probe.

    An unwanted probe gets the region most like it; the wanted ones get a region each, such that
    the image's score is highest. Where their best regions differ there is nothing to decide.

    Parameters
    ----------
    similarity
        (p, c, r) float32 cosines of the probes and the regions of c images; -inf behind the
        last region of an image.
    counts
        (c,) int, how many regions each image has.
    probes
        Of the query.

    Returns
    -------
    best
        (p, c) float32, the similarity of the region. That of none is as bad as can be:
        `UNMATCHED` for a wanted probe, 1 for an unwanted one.
    chosen
        (p, c) int64, its number in the image, the first one among equals; -1 for none.
    """
    chosen = similarity.argmax(axis=2)
    chosen[:, counts == 0] = -1
    wanted = np.flatnonzero(probes.wanted)
    shared = np.flatnonzero(_find_shared(chosen[wanted]))
    if len(shared):
        ours = np.ix_(wanted, shared)
        chosen[ours] = match_images(similarity[ours], counts[shared], probes.weights[wanted])
    best = np.take_along_axis(similarity, chosen.clip(0)[..., None], axis=2)[..., 0]
    worst = np.where(probes.wanted, UNMATCHED, -UNMATCHED).astype(np.float32)
    return np.where(chosen < 0, worst[:, None], best), chosen


def match_images(similarity: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Do as `match_parts` for many images at once.

    Two and three parts are matched by looking at all their ways; an image where two ways are
    equal, or that has fewer regions than parts, is assigned by itself.

    Parameters
    ----------
    similarity, counts
        (m, c, r) and (c,), as for `choose_regions`.
    weights
        (m,) positive.

    Returns
    -------
    np.ndarray
        (m, c) int64, the region of each part; -1 where there are too few.
    """
    m, c, _ = similarity.shape
    matched, is_clear = np.full((m, c), -1), np.zeros(c, bool)
    if m <= WORKED_OUT:
        matched, is_clear = _work_out(_gain(similarity, weights))
    for image in np.flatnonzero(~is_clear):
        matched[:, image] = match_parts(similarity[:, image, : counts[image]], weights)
    return matched


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
    parts, regions = linear_sum_assignment(_gain(similarity, weights), maximize=True)
    matched = np.full(len(similarity), -1)
    matched[parts] = regions
    return matched


def _gain(similarity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what each part gains by each region, over finding none."""
    return weights.reshape(-1, *[1] * (similarity.ndim - 1)) * (similarity - UNMATCHED)


def _find_shared(chosen: np.ndarray) -> np.ndarray:
    """Tell in which images two of the (m, c) parts have chosen the same region, (c,) bool."""
    chosen = np.sort(chosen, axis=0)
    return ((chosen[1:] == chosen[:-1]) & (chosen[1:] >= 0)).any(axis=0)


def _work_out(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match m parts by (m, c, r) gains, and tell where that is the one best way, (c,) bool.

    In a best way each part has one of its m best regions: of these, the others take m - 1 at
    most. One more is looked at, so that a further way that is as good never goes unseen.
    """
    m, c, _ = gain.shape
    gains, regions = _find_highest(gain, m + 1)
    ways = np.array(list(product(range(m + 1), repeat=m)))
    total = sum(gains[i][:, ways[:, i]] for i in range(m))
    taken = [regions[i][:, ways[:, i]] for i in range(m)]
    for one, other in combinations(taken, 2):
        total[one == other] = -np.inf
    way, images = total.argmax(axis=1), np.arange(c)
    best = total[images, way]
    total[images, way] = -np.inf
    matched = np.stack([taken[i][images, way] for i in range(m)])
    return matched, total.max(axis=1) < best - TIED


def _find_highest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest of (m, c, r) values and their places in the last axis, (m, c, count)."""
    values = values.copy()
    highest, places = [], []
    for _ in range(count):
        place = values.argmax(axis=2)[..., None]
        places.append(place)
        highest.append(np.take_along_axis(values, place, axis=2))
        np.put_along_axis(values, place, -np.inf, axis=2)
    return np.concatenate(highest, axis=2), np.concatenate(places, axis=2)


# Similarity of a wanted part that finds no region: the lowest cosine. So a further region never
# makes an image worse, which no value inside the range of the cosines could promise.
UNMATCHED = -1.0

# Images looked at first while looking for the best: more are a waste, fewer cost rounds.
WINDOW = 32

RANKED_BY = ("similar", "overlap", "whole")
FRAMES = ("image", "pixels")
OVERLAPS = ("box", "mask")
MOST_CELLS = 256  # along each side of the grid of masks


@dataclass(frozen=True)
class Rol:
    """Settings of the Ranking Optimization Layer (S0, algorithm 1, step 5, and section 3.7).

        score = alpha * sim(f_Q, f_I) + beta * IoU(R_Q, R_I)

    The paper gives no alpha and beta, and does not say what R_I is, in which frame two regions
    of different images overlap, nor how many images are re-ranked. Here `sim` is the score of
    the search, and the IoU is that of boxes or masks, averaged by weight over the wanted parts
    that have one; words and unwanted parts take no part in it.

    Parameters
    ----------
    alpha, beta
        Weights of the two terms, 0 or more, not both 0.
    region
        What R_I is: "similar", the region that the search matched with the part; "overlap", the
        region of the image with the highest IoU, chosen for each part by itself; "whole", the
        whole image. Without a region the IoU is 0. In the frame "image" the whole image adds
        the area of the query's region to each candidate alike, and so changes no order.
    candidates
        How many images of the search are re-ranked. The others follow in their order, with an
        IoU of 0: none of them can score higher than a candidate, as beta is not negative.
    frame
        Where the regions lie over each other: "image", both images stretched to the same
        square; "pixels", for boxes, the images' own pixels, counted from the top left corner.
    overlap
        What a region is: its "box", or its "mask" on a grid, see `packed_masks`.
    grid
        Cells along each side of that grid, a multiple of 8 from 8 to 256.

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
    overlap: str = "box"
    grid: int = 32

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not np.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0: every image would score the same")
        check_choice("region", self.region, RANKED_BY)
        check_choice("frame", self.frame, FRAMES)
        check_choice("overlap", self.overlap, OVERLAPS)
        check_count("candidates", self.candidates)
        check_count("grid", self.grid)
        if self.grid % 8 or self.grid > MOST_CELLS:
            raise ValueError(f"grid must be a multiple of 8 up to {MOST_CELLS}, got {self.grid}")
        if self.overlap == "mask" and self.frame != "image":
            raise ValueError(f"masks overlap in the frame 'image' only, got {self.frame!r}")


def cosines(probes: QueryVectors, vectors: np.ndarray) -> np.ndarray:
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


def spread(offsets: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the regions of some images.

    Parameters
    ----------
    offsets
        (n + 1,) where each image's regions begin.
    images
        (c,) which.

    Returns
    -------
    regions
        (r,) int64, the regions of the first of them, then those of the second, and so on.
    local
        (c + 1,) int64, where in `regions` each one's begin.
    """
    local = np.append(0, np.cumsum(offsets[images + 1] - offsets[images]))
    return np.arange(local[-1]) + np.repeat(offsets[images] - local[:-1], np.diff(local)), local


def weigh(
    probes: QueryVectors, whole: np.ndarray | None, best: np.ndarray | None, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the wanted and what the unwanted parts give each image, (c,) float64 each.

    Parameters
    ----------
    probes
        Of the query.
    whole, best
        (p, c) float32, similarity of each probe to the whole image and to its best region.
    share
        Weight of the whole image, in [0, 1]; the region has the rest. What has none may be None.
    """
    similarity = share * whole if share > 0 else 0.0
    if share < 1:
        similarity = similarity + (1 - share) * best
    weighted = probes.weights[:, None] * similarity
    # Part by part, as numpy sums a lone column in another order than many.
    nothing = np.zeros(weighted.shape[1])
    return sum(weighted[probes.wanted], nothing), sum(weighted[~probes.wanted], nothing)


def find_best(
    bounds: np.ndarray,
    look: Callable[[np.ndarray], dict[str, np.ndarray]],
    *,
    depth: int,
    slack: float = 0.0,
    excluded: int = -1,
) -> dict[str, np.ndarray]:
    """Find the images of the highest score, looking only at those that may be among them.

    Those of the highest bounds are looked at, until no other can come before the worst of the
    best. Rows of equal score come in rising order.

    Parameters
    ----------
    bounds
        (n,) no score is more than `slack` above it; inf where nothing is known.
    look
        Takes (c,) rows in rising order and returns arrays whose last axis is that of the rows,
        among them `scores`, (c,) float32.
    depth
        How many images.
    slack
        See `bounds`.
    excluded
        Row of an image that is left out, -1 for none.

    Returns
    -------
    dict
        Of `rows`, (depth,) int64 or fewer, and what `look` has returned of these, best first.
    """
    bounds = np.array(bounds, np.float64)
    if excluded >= 0:
        bounds[excluded] = -np.inf
    window, floor = max(depth, WINDOW, np.isposinf(bounds).sum()), -np.inf
    parts: list[dict[str, np.ndarray]] = []
    while len(rows := _find_highest_ranking(bounds, floor, window)) or not parts:
        parts.append({"rows": rows, **look(rows)})
        bounds[rows] = -np.inf
        scores = np.concatenate([part["scores"] for part in parts])
        if len(scores) >= depth:
            floor = float(np.partition(scores, -depth)[-depth]) - slack
        window *= 2
    found = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    order = np.lexsort((found["rows"], -found["scores"]))[:depth]
    return {name: values[..., order] for name, values in found.items()}


def _find_highest_ranking(values: np.ndarray, floor: float, count: int) -> np.ndarray:
    """Return the places of the `count` highest values of at least `floor`, in rising order."""
    places = np.flatnonzero((values >= floor) & (values > -np.inf))
    if len(places) > count:
        places = np.sort(places[np.argpartition(values[places], -count)[-count:]])
    return places
