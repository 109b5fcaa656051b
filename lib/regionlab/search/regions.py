"""search_regions(index, queries) -> RegionRanking: images that hold what was marked or named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regionlab.index.index import Index
from regionlab.search.gallery import RegionGallery
from regionlab.search.images import Ranking
from regionlab.search.query import Query, make_query_vectors
from regionlab.search.rol import Shapes, find_overlaps, find_placed, load_shapes
from regionlab.search.scoring import Rol
from regionlab.util.checks import check_choice, check_count

AGAINST = ("regions", "images", "both")
SEVERAL = ("match", "mean")


@dataclass(frozen=True, eq=False, repr=False)
class RegionRanking(Ranking):
    """A ranking with its evidence: the regions that were matched, and the score's terms.

    Attributes
    ----------
    regions
        (q, k, m) int64, row of `index.regions` that answers each part of the query; -1 for
        none, and where a query has fewer parts than m. For an unwanted part it is the region
        most like it. For whole images alone there are none, unless the Ranking Optimization
        Layer has looked at regions.
    terms
        (q, k) float32 each, already weighted, so that they sum to `scores`: "similarity" of the
        wanted parts, "without" (what the unwanted parts take away), "iou".
    """

    regions: np.ndarray
    terms: dict[str, np.ndarray]

    def table(self, query: int = 0) -> pd.DataFrame:
        """Return one query's results: as for `Ranking`, `regions` (ids) and the score's terms."""
        table = super().table(query)
        found = self.rows[query] >= 0
        table["regions"] = [self._region_ids(rows) for rows in self.regions[query][found]]
        for name, values in self.terms.items():
            table[name] = values[query][found]
        return table

    def _region_ids(self, rows: np.ndarray) -> tuple[str, ...]:
        held = rows[rows >= 0]
        return tuple(self.index.regions["region_id"].iloc[held]) if len(held) else ()


def search_regions(
    index: Index,
    queries: Query | Iterable[Query],
    *,
    k: int = 10,
    against: str = "regions",
    several: str = "match",
    image_weight: float = 0.5,
    rol: Rol | None = None,
    exclude: Sequence[int] | np.ndarray | None = None,
) -> RegionRanking:
    """Find the images that hold the parts of a query.

    The score is the mean, by weight, of the wanted parts' similarities, less the weighted
    similarity of the unwanted ones (see `ranking`); higher is better. The result is exact:
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
    against
        What a part is compared with: "images", the vector of the whole image, as in S0 (section
        3.5); "regions", the region of the image that is most like it; "both", their sum,
        weighted by `image_weight`.
    several
        What several wanted parts are: "match", each needs a region of its own, the assignment
        being the best there is, and a part that finds none counts `ranking.UNMATCHED`; "mean",
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

    Raises
    ------
    TypeError
        If a query is no Query.
    ValueError
        If there is no query, one has vectors of another length than the index or, where the
        IoU counts, no box (in pixels: no size, of masks: no mask) on a wanted part; or an
        option is not known.
    IndexFolderError
        If the index has no regions and they are needed, or a part of a query is of another
        space, or was encoded in another way than the regions that it is compared with.
    """
    queries = [queries] if isinstance(queries, Query) else list(queries)
    rol = rol or Rol()
    _check_options(k, against, several, image_weight)
    looks_at_regions = against != "images" or (rol.beta > 0 and rol.region != "whole")
    _check_queries(queries, index, rol, looks_at_regions)
    excluded = _check_exclude(exclude, len(queries), len(index))
    share = {"images": 1.0, "regions": 0.0, "both": image_weight}[against]
    gallery = RegionGallery(index, looks_at_regions)
    shapes = load_shapes(index, rol) if rol.beta > 0 else None
    probes = [make_query_vectors(query, several) for query in queries]
    k, m = min(k, len(index)), max(map(len, queries))
    depth = max(k, rol.candidates) if rol.beta > 0 else k
    found = gallery.find(probes, excluded, share=share, depth=depth)
    ranked = []
    for query, its_probes, one in zip(queries, probes, found, strict=True):
        one["regions"] = one["regions"][its_probes.of_part]
        ranked.append(_pad(rerank(one, query, rol, shapes, gallery.offsets), k, m))
    names = [query.label or str(i) for i, query in enumerate(queries)]
    return _join(index, names, excluded, ranked)


# Re-ranking


def rerank(
    found: dict[str, np.ndarray],
    query: Query,
    rol: Rol,
    shapes: Shapes | None,
    offsets: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Put the images found in the order of the Ranking Optimization Layer's score.

    Parameters
    ----------
    found
        `rows` (c,), best first, `similarity` and `without` (c,), `regions` (m, c).
    shapes
        What overlaps; None where `rol.beta` is 0.
    offsets
        (n + 1,) where each image's regions begin; None where no regions are looked at.

    Returns
    -------
    dict
        The same, in order, similarities weighted; `iou` and `scores` (c,). Images that are no
        candidates stay behind, with an IoU of 0.
    """
    overlap = np.zeros(len(found["rows"]))
    if rol.beta > 0:
        first = slice(rol.candidates)
        rows, regions = found["rows"][first], found["regions"][:, first]
        overlap[first] = find_overlaps(shapes, query, rol, rows, regions, offsets)
    # Of the rounded sum, so that images that the search has ranked as equal stay so.
    similarity = (found["similarity"] + found["without"]).astype(np.float32)
    scores = rol.alpha * similarity.astype(np.float64) + rol.beta * overlap
    order = np.argsort(-scores, kind="stable")
    weighted = {name: rol.alpha * found[name] for name in ("similarity", "without")}
    found = found | weighted | {"iou": rol.beta * overlap, "scores": scores}
    return {name: values[..., order] for name, values in found.items()}


# Checking and joining


def _check_options(k: int, against: str, several: str, image_weight: float) -> None:
    check_count("k", k)
    check_choice("against", against, AGAINST)
    check_choice("several", several, SEVERAL)
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight must be in [0, 1], got {image_weight}")


def _check_queries(queries: list[Query], index: Index, rol: Rol, looks_at_regions: bool) -> None:
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
            if looks_at_regions:
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
    if rol.frame == "pixels" and any(part.size is None for part in placed):
        raise ValueError(f"{name} has a box without `size`, which an IoU in pixels needs")
    if rol.overlap == "mask" and any(part.rle is None for part in placed):
        raise ValueError(
            f"{name} has a box without `rle`, the mask, which an IoU of masks needs: make its "
            "parts with part_from_region, or search with Rol(overlap='box')"
        )


def _check_exclude(exclude: Sequence[int] | np.ndarray | None, q: int, n: int) -> np.ndarray:
    if exclude is None:
        return np.full(q, -1)
    exclude = np.asarray(exclude)
    if exclude.shape != (q,) or exclude.dtype.kind not in "iu":
        raise ValueError(f"exclude must be ({q},) rows, got {exclude}")
    if ((exclude < -1) | (exclude >= n)).any():
        raise ValueError(f"exclude must be ({q},) rows in [-1, {n}), got {exclude}")
    return exclude.astype(np.int64)


def _pad(one: dict[str, np.ndarray], k: int, m: int) -> dict[str, np.ndarray]:
    """Cut or fill up to k images, by row -1 and score -inf, and to m parts, by region -1."""
    missing = max(k - len(one["rows"]), 0)
    empty = {"rows": -1, "regions": -1, "scores": -np.inf, "similarity": -np.inf}
    padded = {}
    for name, values in one.items():
        parts = [(0, m - len(values))] if name == "regions" else []
        value = empty.get(name, 0)
        padded[name] = np.pad(values[..., :k], [*parts, (0, missing)], constant_values=value)
    return padded | {"regions": padded["regions"].T}


def _join(
    index: Index, names: list[str], excluded: np.ndarray, found: list[dict[str, np.ndarray]]
) -> RegionRanking:
    joined = {name: np.stack([one[name] for one in found]) for name in found[0]}
    return RegionRanking(
        index,
        names,
        joined["rows"],
        joined["scores"].astype(np.float32),
        excluded,
        joined["regions"],
        {name: joined[name].astype(np.float32) for name in ("similarity", "without", "iou")},
    )
