"""The vectors of an index, compared with queries: all of them roughly, a few of them exactly."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from regionlab.index.index import Index
from regionlab.search.engine import ROUNDING
from regionlab.search.query import QueryVectors
from regionlab.search.scoring import (
    UNMATCHED,
    best_of_each,
    choose_regions,
    cosines,
    find_best,
    spread,
    weigh,
)

ROWS = 2**13  # vectors compared at a time; they should stay in the processor's cache
SCORES = 2**20  # similarities held at a time; so should they
BOUNDS = 2**24  # bounds of images held at a time, for the queries of a batch
LOOKED_AT = 512  # images whose regions are compared exactly at a time


class RegionGallery:
    """Images and their regions as arrays, none of which is copied.

    Parameters
    ----------
    index
        Whose vectors, which may be memory-mapped.
    with_regions
        Whether the regions are needed.

    Attributes
    ----------
    offsets
        (n + 1,) int64, where each image's regions begin; None without regions.
    """

    def __init__(self, index: Index, with_regions: bool):
        self._images = np.asarray(index.vectors)
        self._regions, self.offsets = None, None
        if with_regions:
            index.check_regions()
            self._regions = np.asarray(index.region_vectors)
            rows = index.regions["row"].to_numpy()
            self.offsets = np.searchsorted(rows, np.arange(len(index) + 1))

    def find(
        self, queries: Sequence[QueryVectors], excluded: np.ndarray, *, share: float, depth: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Find the images that answer each query best, by whole image, by region or by both.

        The gallery is read once for many queries: matrix products bound each image's score, and
        only the images that may be among the best are then compared exactly. A matrix product
        would not do: its rounding depends on where a row stands, and equal vectors must tie.

        Parameters
        ----------
        queries
            As probes.
        excluded
            (q,) row of an image that is left out, -1 for none.
        share
            Weight of the whole image, in [0, 1]; the region has the rest.
        depth
            How many images.

        Yields
        ------
        dict
            For each query `rows` (depth,), or fewer, best first; their `similarity`, `without`
            and `scores`, see `look`; and `regions`, (p, depth), -1 where there are none.
        """
        bounds = self._bound_in_batches(queries, share, depth)
        for probes, bound, own in zip(queries, bounds, excluded, strict=True):
            found = find_best(
                bound,
                partial(self.look, probes, share),
                depth=depth,
                slack=ROUNDING * np.abs(probes.weights).sum(),
                excluded=int(own),
            )
            if share == 1 and self._regions is not None:
                found["regions"] = self._match(probes, found["rows"])[1]
            yield found

    # All images, roughly

    def _bound_in_batches(
        self, queries: Sequence[QueryVectors], share: float, depth: int
    ) -> Iterator[np.ndarray]:
        n = len(self._images)
        if 4 * depth >= n:  # nearly all would be looked at anyway
            yield from (np.full(n, np.inf) for _ in queries)
            return
        size = max(1, BOUNDS // (n * max(len(probes.weights) for probes in queries)))
        for start in range(0, len(queries), size):
            yield from self.bound(queries[start : start + size], share)

    def bound(self, queries: Sequence[QueryVectors], share: float) -> list[np.ndarray]:
        """Return a bound of every image's score for each query, (n,) float64.

        No score is above it by more than `ROUNDING`, times the sum of the weights' sizes.
        """
        vectors = np.concatenate([probes.vectors for probes in queries])
        wanted = np.concatenate([probes.wanted for probes in queries])
        whole = self._multiply_images(vectors) if share > 0 else None
        best = self._multiply_regions(vectors, wanted) if share < 1 else None
        stops = np.cumsum([len(probes.weights) for probes in queries])
        bounds = []
        for probes, stop in zip(queries, stops, strict=True):
            own = slice(stop - len(probes.weights), stop)
            terms = weigh(
                probes,
                None if whole is None else whole[own],
                None if best is None else best[own],
                share,
            )
            bounds.append(sum(terms))
        return bounds

    def _multiply_images(self, vectors: np.ndarray) -> np.ndarray:
        """Return (p, n) float32 cosines, but for rounding."""
        whole = np.empty((len(vectors), len(self._images)), np.float32)
        step = _count_rows(vectors)
        for start in range(0, len(self._images), step):
            part = slice(start, start + step)
            whole[:, part] = _multiply(vectors, self._images[part])
        return whole

    def _multiply_regions(self, vectors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return (p, n) float32 cosines with the best region of each image, but for rounding."""
        worst = np.where(wanted, UNMATCHED, -UNMATCHED)
        n, step = len(self._images), _count_rows(vectors)
        best = np.empty((len(vectors), n), np.float32)
        stops = np.searchsorted(self.offsets, np.arange(step, self.offsets[-1], step))
        stops = np.unique([0, *stops, n])
        for start, stop in zip(stops[:-1], stops[1:], strict=True):
            offsets = self.offsets[start : stop + 1]
            values = _multiply(vectors, self._regions[offsets[0] : offsets[-1]])
            best[:, start:stop] = best_of_each(values, offsets - offsets[0], worst)
        return best

    # Some images, exactly

    def look(self, probes: QueryVectors, share: float, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Compare images with a query: what the wanted and the unwanted parts give each.

        Returns
        -------
        dict
            `similarity` and `without`, (c,) float64; `scores`, their sum, (c,) float32;
            `regions`, (p, c) int64, the region that answers each probe, -1 for none.
        """
        whole = cosines(probes, _take(self._images, rows)) if share > 0 else None
        best, regions = None, np.full((len(probes.weights), len(rows)), -1)
        if share < 1:
            best, regions = self._match(probes, rows)
        similarity, without = weigh(probes, whole, best, share)
        scores = (similarity + without).astype(np.float32)
        return {
            "similarity": similarity, "without": without, "scores": scores, "regions": regions
        }  # fmt: skip

    def _match(self, probes: QueryVectors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return similarity and row of the region that answers each probe, (p, c) each."""
        starts = range(0, max(len(rows), 1), LOOKED_AT)
        parts = [self._match_few(probes, rows[start : start + LOOKED_AT]) for start in starts]
        best, regions = zip(*parts, strict=True)
        return np.concatenate(best, axis=1), np.concatenate(regions, axis=1)

    def _match_few(self, probes: QueryVectors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        regions, local = spread(self.offsets, rows)
        counts = np.diff(local)
        held = np.arange(max(counts.max(initial=0), 1)) < counts[:, None]
        similarity = np.full((len(probes.weights), *held.shape), -np.inf, np.float32)
        similarity[:, held] = cosines(probes, _take(self._regions, regions))
        best, chosen = choose_regions(similarity, counts, probes)
        return best, np.where(chosen < 0, -1, chosen + self.offsets[rows])


def _count_rows(queries: np.ndarray) -> int:
    """Return how many vectors to compare with (p, d) queries at a time."""
    return max(1, min(ROWS, SCORES // len(queries)))


def _multiply(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return (p, m) inner products; for two or three queries BLAS is faster one by one."""
    if len(queries) < 4:
        return np.stack([vectors @ query for query in queries])
    return queries @ vectors.T


def _take(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows; without a copy where they follow each other."""
    if len(rows) and (np.diff(rows) == 1).all():
        return vectors[rows[0] : rows[-1] + 1]
    return vectors[rows]
