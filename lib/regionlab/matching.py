"""Which region of an image answers each part of a query: a region of its own for each."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linear_sum_assignment

from regionlab.query import Probes
from regionlab.ranking import UNMATCHED

WORKED_OUT = 3  # parts, at most, whose ways to be matched are all looked at: 4 ** 3
TIED = 1e-9  # scores this close may be equal but for rounding


def choose_regions(
    similarity: np.ndarray, counts: np.ndarray, probes: Probes
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
