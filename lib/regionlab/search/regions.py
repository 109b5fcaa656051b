"""Search by region: the images that hold what was marked or named, with their evidence."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from regionlab.index.index import Index
from regionlab.search.engine import Where, check_exclude, match_rows
from regionlab.search.exact import find_below_bounds, multiply, score_rows, top_k
from regionlab.search.images import Ranking
from regionlab.search.query import Query, QueryVectors, make_query_vectors
from regionlab.search.scoring import (
    TERMS,
    UNMATCHED,
    Rol,
    Terms,
    best_of_each,
    bound_scores,
    choose_regions,
    find_placed,
    measure_overlaps,
    score_terms,
    spread,
)
from regionlab.util.errors import check_choice, check_count

TARGETS = ("regions", "images", "both")
AGGREGATIONS = ("match", "mean")
ROWS = 2**13  # vectors compared at a time; they should stay in the processor's cache
SCORES = 2**20  # similarities held at a time; so should they
BOUNDS = 2**24  # bounds of images held at a time, for the queries of a batch
LOOKED_AT = 512  # images whose regions are compared exactly at a time


@dataclass(frozen=True, eq=False, repr=False)
class RegionRanking(Ranking):
    """A ranking with its evidence: the regions that were matched, and the score's terms.

    Attributes
    ----------
    regions
        (q, k, m) int64, row of `index.regions` that answers each part of the query (of an
        unwanted part the one most like it); -1 for none, and where a query has fewer parts than
        m. For whole images alone there are none, unless the Ranking Optimization Layer has
        looked at regions.
    terms
        Name of each field of `scoring.Terms` to (q, k) float32; they sum to `scores`.
    """

    regions: np.ndarray
    terms: dict[str, np.ndarray]

    def table(self, query: int = 0) -> pd.DataFrame:
        """Return one query's results: as for `Ranking`, `regions` (ids) and the score's terms."""
        table = super().table(query)
        found = self.rows[query] >= 0
        table["regions"] = [self._region_ids(rows) for rows in self.regions[query][found]]
        return table.assign(**{name: values[query][found] for name, values in self.terms.items()})

    def _region_ids(self, rows: np.ndarray) -> tuple[str, ...]:
        held = rows[rows >= 0]
        return tuple(self.index.regions["region_id"].iloc[held]) if len(held) else ()


def search_regions(
    index: Index,
    queries: Query | Iterable[Query],
    *,
    k: int = 10,
    target: str = "regions",
    aggregation: str = "match",
    image_weight: float = 0.5,
    rol: Rol | None = None,
    exclude: Sequence[int] | np.ndarray | None = None,
    where: Where | None = None,
) -> RegionRanking:
    """Find the images that hold the parts of a query.

    The score is the mean, by weight, of the wanted parts' similarities, less the weighted
    similarity of the unwanted ones (see `scoring`); higher is better. The result is exact:
    images are compared in the order of a bound from above until no other can be among the best.
    Images of equal score come in the order of the index. Queries asked together are quicker than
    one by one, as the vectors are read once for many. Memory does not grow with the regions: it
    is bounded by a number for each image and part of the queries compared together.

    Parameters
    ----------
    index
        Where to look.
    queries
        One query or several, their vectors of the index's space; those of regions made as the
        index's regions were, unless they are compared with whole images alone. A whole image
        and words may be compared with regions of any encoding.
    k
        How many images; all, if the index holds fewer.
    target
        What a part is compared with: "images", the vector of the whole image, as in S0 (section
        3.5); "regions", the region of the image that is most like it; "both", their sum,
        weighted by `image_weight`.
    aggregation
        What several wanted parts are: "match", each needs a region of its own, the assignment
        being the best there is, and a part that finds none counts `scoring.UNMATCHED`; "mean",
        a single vector, their mean (S0, section 3.8), and one region that answers for all. With
        "images" both rank alike, unless there are unwanted parts: the mean of cosines is the
        cosine with the mean, but for its length.
    image_weight
        Weight of the whole image in "both", in [0, 1]; the region has the rest.
    rol
        Re-rank the best by where their regions lie. With "mean" each part's box is laid over
        the one region found.
    exclude
        (q,) rows of the index left out of each query's results, such as the query's own image,
        -1 for none.
    where
        Only images whose columns of `index.images` match, see `engine.match_rows`.

    Raises
    ------
    TypeError
        If a query is no Query.
    ValueError
        If there is no query, one has vectors of another length than the index or, where the
        IoU counts, no box (of masks: no mask) on a wanted part; or an option is not known.
    IndexFolderError
        If the index has no regions and they are needed, or a part of a query is of another
        space, or was encoded in another way than the regions that it is compared with.
    """
    queries = [queries] if isinstance(queries, Query) else list(queries)
    rol = rol or Rol()
    _check_options(k, target, aggregation, image_weight)
    by_region = target != "images" or rol.needs_regions
    _check_queries(queries, index, rol, by_region)
    n, q, m = len(index), len(queries), max(map(len, queries))
    excluded = check_exclude(exclude, q, n)
    keep = None if where is None else match_rows(index.images, where)
    image_weight = {"images": 1.0, "regions": 0.0}.get(target, image_weight)
    vectors = [make_query_vectors(query, aggregation) for query in queries]
    gallery = RegionGallery(index, by_region)
    k = min(k, n)
    depth = max(k, rol.candidates) if rol.beta > 0 else k
    candidates = gallery.find(vectors, excluded, keep, image_weight=image_weight, depth=depth)
    rows, scores = np.full((q, k), -1), np.full((q, k), -np.inf, np.float32)
    regions = np.full((q, k, m), -1)
    terms = {name: np.full((q, k), getattr(Terms, name), np.float32) for name in TERMS}
    for i, (query, its_vectors, found) in enumerate(zip(queries, vectors, candidates, strict=True)):
        matched = found["regions"][its_vectors.of_part]
        iou = np.zeros(len(found["rows"]))
        if rol.beta > 0:
            first = slice(rol.candidates)
            evidence = found["rows"][first], matched[:, first], gallery.offsets
            iou[first] = measure_overlaps(index, query, rol, *evidence)
        scored, its_terms = score_terms(
            its_vectors, found["whole"], found["best"], image_weight=image_weight, rol=rol, iou=iou
        )
        order = top_k(scored, k)
        place = slice(len(order))
        rows[i, place], scores[i, place] = found["rows"][order], scored[order]
        regions[i, place, : len(query)] = matched[:, order].T
        for name, values in terms.items():
            values[i, place] = getattr(its_terms, name)[order]
    names = [query.label or str(i) for i, query in enumerate(queries)]
    return RegionRanking(index, names, rows, scores, excluded, regions, terms)


def _check_options(k: int, target: str, aggregation: str, image_weight: float) -> None:
    check_count("k", k)
    check_choice("target", target, TARGETS)
    check_choice("aggregation", aggregation, AGGREGATIONS)
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight must be in [0, 1], got {image_weight}")


def _check_queries(queries: list[Query], index: Index, rol: Rol, by_region: bool) -> None:
    if not queries:
        raise ValueError("there is no query to search for")
    d = index.vectors.shape[1]
    for i, query in enumerate(queries):
        if not isinstance(query, Query):
            raise TypeError(
                f"query {i} is a {type(query).__name__}, not a Query of parts: see "
                "query.part_from_region and query.part_from_words"
            )
        name = f"query {query.label or i}"
        for part in query.parts:
            index.check_space(f"{name} is", part.space)
            if by_region:
                index.check_encoding(name, part.encoding)
        if query.dim != d:
            raise ValueError(f"{name} has vectors of length {query.dim}, the index of {d}")
        if rol.beta > 0:
            _check_places(query, name, rol)


def _check_places(query: Query, name: str, rol: Rol) -> None:
    placed = [query.parts[i] for i in find_placed(query)]
    if not placed:
        raise ValueError(
            f"{name} has no box on a wanted part, so no IoU: search without rol, or with beta=0"
        )
    if rol.overlap == "mask" and any(part.rle is None for part in placed):
        raise ValueError(
            f"{name} has a box without `rle`, the mask, which an IoU of masks needs: make its "
            "parts with part_from_region, or search with Rol(overlap='box')"
        )


class RegionGallery:
    """The images and regions of an index, compared with queries: all by bounds, few exactly.

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
        self,
        queries: Sequence[QueryVectors],
        excluded: np.ndarray,
        keep: np.ndarray | None,
        *,
        image_weight: float,
        depth: int,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Find the images that answer each query best, by whole image, by region or by both.

        The gallery is read once for many queries: matrix products bound each image's score, and
        only the images that may be among the best are then compared exactly.

        Parameters
        ----------
        queries
            Their vectors.
        excluded
            (q,) row of an image that is left out, -1 for none.
        keep
            (n,) bool, which images may be found; None for all.
        image_weight
            Of the whole image, in [0, 1]; the region has the rest.
        depth
            How many images.

        Yields
        ------
        dict
            For each query `rows` (depth,), or fewer, best first, and what `look` says of them.
        """
        bounds = self._bound_in_batches(queries, image_weight, depth)
        for vectors, bound, own in zip(queries, bounds, excluded, strict=True):
            if keep is not None:
                bound[~keep] = -np.inf
            if own >= 0:
                bound[own] = -np.inf
            found = find_below_bounds(bound, partial(self.look, vectors, image_weight), depth)
            if image_weight == 1 and self._regions is not None:
                found["regions"] = self._match(vectors, found["rows"])[1]
            yield found

    # All images, by bounds

    def _bound_in_batches(
        self, queries: Sequence[QueryVectors], image_weight: float, depth: int
    ) -> Iterator[np.ndarray]:
        n = len(self._images)
        if 4 * depth >= n:  # nearly all would be looked at anyway
            yield from (np.full(n, np.inf) for _ in queries)
            return
        size = max(1, BOUNDS // (n * max(len(vectors.weights) for vectors in queries)))
        for start in range(0, len(queries), size):
            yield from self.bound(queries[start : start + size], image_weight)

    def bound(self, queries: Sequence[QueryVectors], image_weight: float) -> Iterator[np.ndarray]:
        """Yield what no image's score is above for each query, (n,) float64."""
        vectors = np.concatenate([one.vectors for one in queries])
        wanted = np.concatenate([one.wanted for one in queries])
        whole = best = np.zeros((len(vectors), 1), np.float32)
        if image_weight > 0:
            whole = self._multiply_images(vectors)
        if image_weight < 1:
            best = self._multiply_regions(vectors, wanted)
        stop = 0
        for one in queries:
            own = slice(stop, stop := stop + len(one.weights))
            yield bound_scores(one, whole[own], best[own], image_weight=image_weight)

    def _multiply_images(self, vectors: np.ndarray) -> np.ndarray:
        """Return (p, n) float32 cosines, but for rounding."""
        whole = np.empty((len(vectors), len(self._images)), np.float32)
        step = _count_rows(vectors)
        for start in range(0, len(self._images), step):
            part = slice(start, start + step)
            whole[:, part] = multiply(vectors, self._images[part])
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
            values = multiply(vectors, self._regions[offsets[0] : offsets[-1]])
            best[:, start:stop] = best_of_each(values, offsets - offsets[0], worst)
        return best

    # Some images, exactly

    def look(
        self, vectors: QueryVectors, image_weight: float, rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Compare (c,) images with a query of p vectors.

        Returns
        -------
        dict
            `whole` and `best`, (p, c) float32, as for `score_terms`, zeros where they have no
            weight; `regions`, (p, c) int64, which answer each vector, -1 for none; `scores` (c,).
        """
        shape = len(vectors.weights), len(rows)
        whole, best = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        regions = np.full(shape, -1)
        if image_weight > 0:
            whole = _cosines(vectors, self._images, rows)
        if image_weight < 1:
            best, regions = self._match(vectors, rows)
        scores, _ = score_terms(vectors, whole, best, image_weight=image_weight)
        return {"whole": whole, "best": best, "regions": regions, "scores": scores}

    def _match(self, vectors: QueryVectors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return similarity and row of the region that answers each vector, (p, c) each."""
        starts = range(0, max(len(rows), 1), LOOKED_AT)
        parts = [self._match_few(vectors, rows[start : start + LOOKED_AT]) for start in starts]
        best, regions = zip(*parts, strict=True)
        return np.concatenate(best, axis=1), np.concatenate(regions, axis=1)

    def _match_few(self, vectors: QueryVectors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        regions, local = spread(self.offsets, rows)
        counts = np.diff(local)
        held = np.arange(max(counts.max(initial=0), 1)) < counts[:, None]
        similarity = np.full((len(vectors.weights), *held.shape), -np.inf, np.float32)
        similarity[:, held] = _cosines(vectors, self._regions, regions)
        best, chosen = choose_regions(similarity, counts, vectors)
        return best, np.where(chosen < 0, -1, chosen + self.offsets[rows])


def _count_rows(queries: np.ndarray) -> int:
    """Return how many vectors to compare with (p, d) queries at a time."""
    return max(1, min(ROWS, SCORES // len(queries)))


def _cosines(vectors: QueryVectors, gallery: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (p, c) float32, each vector with some rows of a gallery; equal rows tie."""
    if len(rows) and (np.diff(rows) == 1).all():  # no copy
        some = gallery[rows[0] : rows[-1] + 1]
    else:
        some = gallery[rows]
    return np.stack([score_rows(some, vector) for vector in vectors.vectors])
