"""The ranking formula: what an image scores for a query, and a bound of it that prunes a search.

With part i of weight w_i, and W the sum of the positive weights,

    score = alpha * (sum of w_i * s_i / W) + beta * IoU(R_Q, R_I)

s_i is the cosine (S0, equations 5, 6 and 8) of the part and the whole image, of the part and the
image's region that answers it best, or a weighted mean of both. A part of negative weight
subtracts its own s_i. The IoU is the Ranking Optimization Layer's, see `Rol`.

To add a term, add a field to `Terms` and compute it in `score_terms`: tables, the service and
its page iterate over the fields.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from regionlab.data.masks import mask_to_rle, rle_to_mask
from regionlab.index.index import Index
from regionlab.search.exact import ROUNDING
from regionlab.search.query import Part, Query, QueryVectors
from regionlab.util.errors import check_choice, check_count

# Similarity of a wanted part that finds no region: the lowest cosine. So a further region never
# makes an image worse, which no value inside the range of the cosines could promise.
UNMATCHED = -1.0

RANKED_BY = ("similar", "overlap", "whole")
OVERLAPS = ("box", "mask")


@dataclass(frozen=True)
class Rol:
    """Settings of the Ranking Optimization Layer (S0, algorithm 1, step 5, and section 3.7).

        score = alpha * sim(f_Q, f_I) + beta * IoU(R_Q, R_I)

    The paper gives no alpha and beta, and does not say what R_I is, in which frame two regions
    of different images overlap, nor how many images are re-ranked. Here `sim` is the score of
    the search; both images are stretched to the same frame; the IoU is averaged by weight over
    the wanted parts that have a box. Words and unwanted parts take no part in it.

    Parameters
    ----------
    alpha, beta
        Weights of the two terms, 0 or more, not both 0.
    region
        What R_I is: "similar", the region that the search matched with the part; "overlap", the
        region of the image with the highest IoU, chosen for each part by itself; "whole", the
        whole image, which adds the same to each candidate. Without a region the IoU is 0.
    candidates
        How many images of the search are re-ranked. The others follow in their order, with an
        IoU of 0: none of them can score higher than a candidate, as beta is not negative.
    overlap
        What a region is: its "box" or its "mask".

    Raises
    ------
    ValueError
        If a value is not one of these.
    """

    alpha: float = 1.0
    beta: float = 0.0
    region: str = "similar"
    candidates: int = 50
    overlap: str = "box"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not np.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0: every image would score the same")
        check_choice("region", self.region, RANKED_BY)
        check_choice("overlap", self.overlap, OVERLAPS)
        check_count("candidates", self.candidates)

    @property
    def needs_regions(self) -> bool:
        """Whether the overlap is that of regions of the index."""
        return self.beta > 0 and self.region != "whole"


# The score and its bound


@dataclass(frozen=True)
class Terms:
    """What each term adds to the scores of some images, weighted: (c,) float64 each.

    The defaults stand where a ranking has no image left; `says` is for people to read.
    """

    similarity: np.ndarray | float = field(
        default=-np.inf, metadata={"says": "like what is wanted"}
    )
    negative: np.ndarray | float = field(default=0.0, metadata={"says": "like what is unwanted"})
    iou: np.ndarray | float = field(default=0.0, metadata={"says": "in the same place"})


TERMS = {term.name: term.metadata["says"] for term in fields(Terms)}


def score_terms(
    vectors: QueryVectors,
    whole: np.ndarray,
    best: np.ndarray,
    *,
    image_weight: float,
    rol: Rol | None = None,
    iou: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, Terms]:
    """Return the scores of images and what each term gives to them.

    Parameters
    ----------
    vectors
        Of the query.
    whole, best
        (p, c) float32, cosine of each vector with the whole image and with the region that
        answers it; what has no weight may be any finite number, such as (p, 1) zeros.
    image_weight
        Weight of the whole image in [0, 1]; the region has the rest.
    rol, iou
        Weights of the terms, by default `Rol()`, and (c,) overlaps in [0, 1].

    Returns
    -------
    scores
        (c,) float64. The cosines' sum is rounded to float32 first, so that images whose scores
        differ by less than is shown count as equal.
    terms
        Their sum is the score, but for this rounding.
    """
    rol = rol or Rol()
    weighted = vectors.weights[:, None] * (image_weight * whole + (1 - image_weight) * best)
    # Part by part, as numpy sums a lone column in another order than many.
    nothing = np.zeros(weighted.shape[1])
    similarity = sum(weighted[vectors.wanted], nothing)
    negative = sum(weighted[~vectors.wanted], nothing)
    rounded = (similarity + negative).astype(np.float32).astype(np.float64)
    terms = Terms(rol.alpha * similarity, rol.alpha * negative, rol.beta * iou + nothing)
    return rol.alpha * rounded + terms.iou, terms


def bound_scores(
    vectors: QueryVectors, whole: np.ndarray, best: np.ndarray, *, image_weight: float
) -> np.ndarray:
    """Return what no image's score, without an IoU, is above: (n,) float64.

    An image's wanted parts need a region each (`choose_regions`). The bound lets each have the
    image's most similar one: the score rises with the similarity of wanted parts, and that of an
    unwanted part is the highest already.

    Parameters
    ----------
    vectors, image_weight
        As for `score_terms`.
    whole, best
        As for `score_terms`, `best` the highest of the image's regions. They may be products of
        matrices, whose rounding the bound allows for.
    """
    scores, _ = score_terms(vectors, whole, best, image_weight=image_weight)
    return scores + ROUNDING * np.abs(vectors.weights).sum()


# Which region answers which part


def choose_regions(
    similarity: np.ndarray, counts: np.ndarray, vectors: QueryVectors
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the region of each image that answers each vector of a query.

    An unwanted vector gets the region most like it; the wanted ones get a region each, such that
    the image's score is highest.

    Parameters
    ----------
    similarity
        (p, c, r) float32 cosines of the vectors and the regions of c images; -inf behind the
        last region of an image.
    counts
        (c,) int, how many regions each image has.

    Returns
    -------
    best
        (p, c) float32, the similarity of the region. That of none is as bad as can be:
        `UNMATCHED` for a wanted vector, 1 for an unwanted one.
    chosen
        (p, c) int64, its number in the image, the first one among equals; -1 for none.
    """
    chosen = similarity.argmax(axis=2)
    chosen[:, counts == 0] = -1
    wanted = np.flatnonzero(vectors.wanted)
    for image in _find_shared(chosen[wanted]):
        ours = similarity[wanted, image, : counts[image]]
        chosen[wanted, image] = match_parts(ours, vectors.weights[wanted])
    best = np.take_along_axis(similarity, chosen.clip(0)[..., None], axis=2)[..., 0]
    worst = np.where(vectors.wanted, UNMATCHED, -UNMATCHED).astype(np.float32)
    return np.where(chosen < 0, worst[:, None], best), chosen


def match_parts(similarity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give each of m parts a region of its own, such that the score is highest, (m,) int64.

    `similarity` is (m, r) cosines, `weights` (m,) positive; -1, worth `UNMATCHED`, where there
    are too few regions.
    """
    from scipy.optimize import linear_sum_assignment  # late: half a second

    gain = weights[:, None] * (similarity - UNMATCHED)  # over finding none
    parts, regions = linear_sum_assignment(gain, maximize=True)
    matched = np.full(len(similarity), -1)
    matched[parts] = regions
    return matched


def _find_shared(chosen: np.ndarray) -> np.ndarray:
    """Return the images in which two of the (m, c) parts have chosen the same region."""
    chosen = np.sort(chosen, axis=0)
    return np.flatnonzero(((chosen[1:] == chosen[:-1]) & (chosen[1:] >= 0)).any(axis=0))


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
    """List the regions of (c,) images, and where in this list each image's begin, (c + 1,)."""
    local = np.append(0, np.cumsum(offsets[images + 1] - offsets[images]))
    return np.arange(local[-1]) + np.repeat(offsets[images] - local[:-1], np.diff(local)), local


# The overlap of regions


def find_placed(query: Query) -> list[int]:
    """Return which parts are wanted and have a place."""
    return [i for i, part in enumerate(query.parts) if part.weight > 0 and part.box is not None]


def measure_overlaps(
    index: Index,
    query: Query,
    rol: Rol,
    rows: np.ndarray,
    regions: np.ndarray,
    offsets: np.ndarray | None,
) -> np.ndarray:
    """Return IoU(R_Q, R_I) of (c,) images, averaged by weight over the query's placed parts.

    `regions` (m, c) are those matched with the parts, -1 for none; `offsets` (n + 1,) say where
    each image's regions begin, None where none are needed.
    """
    overlap = _overlap_masks if rol.overlap == "mask" else _overlap_boxes
    placed = find_placed(query)
    found = np.empty((len(placed), len(rows)))
    for j, i in enumerate(placed):
        part = query.parts[i]
        if rol.region == "whole":
            found[j] = _overlap_whole(part, rol)
        elif rol.region == "similar":
            found[j] = overlap(index, part, regions[i])
        else:
            every, local = spread(offsets, rows)
            found[j] = best_of_each(overlap(index, part, every)[None], local, 0.0)
    weights = query.weights[placed]
    return weights @ found / weights.sum()


def _overlap_whole(part: Part, rol: Rol) -> float:
    if rol.overlap == "mask":
        return float(rle_to_mask(part.rle).mean())
    return float(box_iou(part.box[None], np.array([[0, 0, 1, 1]]))[0, 0])


def _overlap_boxes(index: Index, part: Part, regions: np.ndarray) -> np.ndarray:
    """Return the IoU of a part's box and those of (r,) rows of `index.regions`; 0 for row -1."""
    found, held = np.zeros(len(regions)), regions >= 0
    boxes = _take(index.regions, ["x0", "y0", "x1", "y1"], regions[held])
    images = _take(index.regions, ["row"], regions[held])[:, 0]
    sides = _take(index.images, ["width", "height"] * 2, images)
    found[held] = box_iou(part.box[None], boxes / sides)[0]
    return found


def _overlap_masks(index: Index, part: Part, regions: np.ndarray) -> np.ndarray:
    """As `_overlap_boxes`, of masks, all stretched to the size of the part's image."""
    from pycocotools import mask as coco_mask

    found, held = np.zeros(len(regions)), regions >= 0
    images = _take(index.regions, ["row"], regions[held])[:, 0]
    sizes = _take(index.images, ["height", "width"], images).tolist()
    masks = [
        _resize_rle({"size": size, "counts": counts}, part.rle["size"])
        for size, counts in zip(sizes, index.regions["rle"].iloc[regions[held]], strict=True)
    ]
    if masks:
        found[held] = coco_mask.iou(masks, [part.rle], [0])[:, 0]
    return found


def _take(table: pd.DataFrame, columns: list[str], rows: np.ndarray) -> np.ndarray:
    return np.stack([table[name].to_numpy()[rows] for name in columns], axis=1)


def _resize_rle(rle: dict, size: list[int]) -> dict:
    """Stretch a mask to (height, width): each pixel is that which holds its centre."""
    if rle["size"] == list(size):
        return rle
    mask = rle_to_mask(rle)
    y, x = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask_to_rle(mask[np.ix_(y, x)])


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of (m, 4) and (r, 4) XYXY boxes, (m, r) float64.

    Both in the same frame; 0 where neither box has an area.
    """
    a, b = np.asarray(a, np.float64).T[..., None], np.asarray(b, np.float64).T
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = width.clip(min=0) * height.clip(min=0)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(corners: np.ndarray) -> np.ndarray:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
