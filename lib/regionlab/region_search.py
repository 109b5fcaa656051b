"""search_regions(index, queries) -> RegionRanking: images that hold what was marked or named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regionlab.index import Index
from regionlab.query import Probes, Query, make_probes
from regionlab.ranking import (
    BestRegions,
    Rol,
    best_of_each,
    box_iou,
    check_choice,
    check_count,
    find_best,
)
from regionlab.search import Ranking

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
    whole_weight: float = 0.5,
    rol: Rol | None = None,
    exclude: Sequence[int] | np.ndarray | None = None,
) -> RegionRanking:
    """Find the images that hold the parts of a query.

    The score is the mean, by weight, of the wanted parts' similarities, less the weighted
    similarity of the unwanted ones (see `ranking`); higher is better. The result is exact:
    images are matched in the order of a bound from above until no other can be among the best.
    Images of equal score come in the order of the index. Memory is bounded by the similarities
    of one query's parts with all regions.

    Parameters
    ----------
    index
        Where to look.
    queries
        One query or several, their vectors of the index's space.
    k
        How many images; all, if the index holds fewer.
    against
        What a part is compared with: "images", the vector of the whole image, as in S0 (section
        3.5); "regions", the region of the image that is most like it; "both", their sum,
        weighted by `whole_weight`.
    several
        What several wanted parts are: "match", each needs a region of its own, the assignment
        being the best there is, and a part that finds none counts `ranking.UNMATCHED`; "mean",
        a single vector, their mean (S0, section 3.8), and one region that answers for all. With
        "images" both rank alike, unless there are unwanted parts: the mean of cosines is the
        cosine with the mean, but for its length.
    whole_weight
        Weight of the whole image in "both", in [0, 1]; the region has the rest.
    rol
        Re-rank the best by where their regions lie. With "mean" each part's box is laid over
        the one region found.
    exclude
        (q,) rows of the index left out of each query's results, such as the query's own image,
        -1 for none.

    Raises
    ------
    ValueError
        If there is no query, one has vectors of another length than the index or, where the
        IoU counts, no box (in pixels: no size) on a wanted part; or an option is not known.
    IndexFolderError
        If the index has no regions and they are needed.
    """
    queries = [queries] if isinstance(queries, Query) else list(queries)
    rol = rol or Rol()
    _check_options(k, against, several, whole_weight)
    _check_queries(queries, index, rol)
    excluded = _check_exclude(exclude, len(queries), len(index))
    share = {"images": 1.0, "regions": 0.0, "both": whole_weight}[against]
    looks_at_regions = against != "images" or (rol.beta > 0 and rol.region != "whole")
    gallery = _read_gallery(index, looks_at_regions, rol)
    probes = [make_probes(query, several) for query in queries]
    k, m = min(k, len(index)), max(map(len, queries))
    found = [
        _search_one(gallery, *asked, k=k, share=share, rol=rol)
        for asked in zip(queries, probes, excluded, strict=True)
    ]
    names = [query.label or str(i) for i, query in enumerate(queries)]
    return _join(index, names, excluded, [_pad(one, k, m) for one in found])


# Searching


@dataclass(frozen=True, eq=False)
class _Gallery:
    """An index as arrays: vectors, and boxes in the frame of the IoU."""

    images: np.ndarray  # (n, d)
    frames: np.ndarray  # (n, 4), the whole image
    regions: np.ndarray | None = None  # (r, d)
    boxes: np.ndarray | None = None  # (r + 1, 4); row -1, of no region, has no area
    offsets: np.ndarray | None = None  # (n + 1,), where each image's regions begin


def _read_gallery(index: Index, with_regions: bool, rol: Rol) -> _Gallery:
    width, height = index.images[["width", "height"]].to_numpy(np.float64).T
    frames = np.stack([0 * width, 0 * height, width, height], axis=1)
    unit = np.ones(4) if rol.frame == "pixels" else np.stack([width, height] * 2, axis=1)
    images = np.asarray(index.vectors)
    if not with_regions:
        return _Gallery(images, frames / unit)
    index.check_regions()
    row = index.regions["row"].to_numpy()
    boxes = index.regions[["x0", "y0", "x1", "y1"]].to_numpy(np.float64)
    boxes = boxes / (unit if unit.ndim == 1 else unit[row])
    offsets = np.searchsorted(row, np.arange(len(index) + 1))
    vectors = np.asarray(index.region_vectors)
    return _Gallery(images, frames / unit, vectors, np.vstack([boxes, np.zeros(4)]), offsets)


def _search_one(
    gallery: _Gallery,
    query: Query,
    probes: Probes,
    excluded: int,
    *,
    k: int,
    share: float,
    rol: Rol,
) -> dict[str, np.ndarray]:
    """Rank the images for one query: `rows`, `regions` and the terms of the score."""
    best = None
    if gallery.regions is not None:
        best = BestRegions(probes, gallery.regions, gallery.offsets)
    depth = max(k, rol.candidates) if rol.beta > 0 else k
    rows, similarity, without = find_best(
        probes, gallery.images, best, share=share, depth=depth, excluded=excluded
    )
    regions = np.full((len(query), len(rows)), -1)
    if best is not None:
        best.match(rows)
        regions = best.rows[probes.of_part][:, rows]
    found = {"rows": rows, "regions": regions.T, "similarity": similarity, "without": without}
    overlap = np.zeros(len(rows))
    if rol.beta > 0:
        first = slice(rol.candidates)
        overlap[first] = _overlaps(gallery, query, rol, rows[first], regions[:, first])
    return {name: values[:k] for name, values in _rerank(found, overlap, rol).items()}


def _rerank(found: dict[str, np.ndarray], overlap: np.ndarray, rol: Rol) -> dict[str, np.ndarray]:
    """Put the images in the order of the ROL's score; those without an IoU stay behind."""
    # Of the rounded sum, so that images that the search has ranked as equal stay so.
    similarity = (found["similarity"] + found["without"]).astype(np.float32)
    scores = rol.alpha * similarity.astype(np.float64) + rol.beta * overlap
    order = np.argsort(-scores, kind="stable")
    weighted = {name: rol.alpha * found[name] for name in ("similarity", "without")}
    found = found | weighted | {"iou": rol.beta * overlap, "scores": scores}
    return {name: values[order] for name, values in found.items()}


def _overlaps(
    gallery: _Gallery, query: Query, rol: Rol, rows: np.ndarray, regions: np.ndarray
) -> np.ndarray:
    """Return IoU(R_Q, R_I) of (c,) images, (c,), averaged by weight over the wanted boxes."""
    boxed = _find_boxed(query)
    asked = np.stack([query.parts[i].box for i in boxed])
    if rol.frame == "pixels":
        sizes = np.array([query.parts[i].size for i in boxed])
        asked = asked * np.tile(sizes[:, ::-1], 2)
    if rol.region == "whole":
        overlap = box_iou(asked, gallery.frames[rows])
    elif rol.region == "overlap":
        every = box_iou(asked, gallery.boxes[:-1])
        overlap = best_of_each(every, gallery.offsets, 0.0)[:, rows]
    else:
        matched = gallery.boxes[regions[boxed]]
        overlap = np.concatenate([box_iou(asked[[i]], matched[i]) for i in range(len(boxed))])
    weights = query.weights[boxed]
    return weights @ overlap / weights.sum()


def _find_boxed(query: Query) -> list[int]:
    """Return which parts are wanted and have a place."""
    return [i for i, part in enumerate(query.parts) if part.weight > 0 and part.box is not None]


# Checking and joining


def _check_options(k: int, against: str, several: str, whole_weight: float) -> None:
    check_count("k", k)
    check_choice("against", against, AGAINST)
    check_choice("several", several, SEVERAL)
    if not 0 <= whole_weight <= 1:
        raise ValueError(f"whole_weight must be in [0, 1], got {whole_weight}")


def _check_queries(queries: list[Query], index: Index, rol: Rol) -> None:
    if not queries:
        raise ValueError("there is no query to search for")
    d = index.vectors.shape[1]
    for i, query in enumerate(queries):
        name = f"query {query.label or i}"
        if query.dim != d:
            raise ValueError(f"{name} has vectors of length {query.dim}, the index of {d}")
        boxed = _find_boxed(query) if rol.beta > 0 else []
        if rol.beta > 0 and not boxed:
            raise ValueError(
                f"{name} has no box on a wanted part, so no IoU: search without rol, or with beta=0"
            )
        if rol.frame == "pixels" and any(query.parts[j].size is None for j in boxed):
            raise ValueError(f"{name} has a box without `size`, which an IoU in pixels needs")


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
    """Fill up to k images by row -1 and score -inf, and to m parts by region -1."""
    missing = k - len(one["rows"])
    empty = {"rows": -1, "scores": -np.inf, "similarity": -np.inf}
    padded = {
        name: np.pad(values, (0, missing), constant_values=empty.get(name, 0))
        for name, values in one.items()
        if name != "regions"
    }
    shape = ((0, missing), (0, m - one["regions"].shape[1]))
    return padded | {"regions": np.pad(one["regions"], shape, constant_values=-1)}


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
