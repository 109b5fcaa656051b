"""Does region search beat other methods? All of them on the same queries (notebook 06).

A method turns what is asked into queries and looks for them in an index of its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image

from regionlab.data.collection import Collection
from regionlab.data.images import read_image
from regionlab.data.prompts import Box
from regionlab.index.index import Index
from regionlab.metrics.ranking import measure_ranking
from regionlab.models.encoder import DEFAULT_TEMPLATES, Encoder
from regionlab.models.segmenter import EmptyMaskError, Region, Segmenter
from regionlab.models.spaces import with_space
from regionlab.regions.encodings import encode_regions
from regionlab.search.query import Part, Query
from regionlab.search.regions import RegionRanking, search_regions
from regionlab.studies.sampling import find_mask, jitter_box, prompt_for_object, query_regions
from regionlab.util.progress import progress

SIDE = 64  # pixels of the images whose difference is measured


def crop_box(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cut a box (4,) XYXY in pixels out of an image, with all pixels that it touches.

    Raises
    ------
    ValueError
        If the box lies outside the image.
    """
    height, width = image.shape[:2]
    left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
    right, bottom = np.minimum(np.ceil(box[2:]), [width, height]).astype(int)
    if left >= right or top >= bottom:
        sides = np.asarray(box).tolist()
        raise ValueError(f"the box {sides} lies outside the image of {width} x {height} pixels")
    return image[top:bottom, left:right]


def pixel_difference(a: np.ndarray, b: np.ndarray, *, side: int = SIDE) -> float:
    """Return the mean absolute difference of two images, in [0, 1].

    Parameters
    ----------
    a, b
        (H, W, 3) uint8 RGB each; both are resized to `side` x `side` pixels first, whatever
        their proportions.
    """
    small = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), float)
        for image in (a, b)
    ]
    return float(np.abs(small[0] - small[1]).mean() / 255)


def find_pixel_errors(
    collection: Collection,
    image_ids: Sequence[str],
    boxes: Sequence[np.ndarray],
    ranking: RegionRanking,
) -> np.ndarray:
    """Return how far the first answer's pixels are from those asked for, (q,) in [0, 1].

    S0's "MAE (pixel diff)", which the paper does not define. Our reading: `pixel_difference`
    between what the query's box holds and the box of the region that answers; the whole image
    where a method has no regions. Lower is better. NaN where nothing was found.

    Parameters
    ----------
    image_ids, boxes
        (q,) what was asked for: an image, and a box in it, (4,) XYXY in pixels.
    """
    errors = np.full(len(boxes), np.nan)
    for query in np.flatnonzero(ranking.rows[:, 0] >= 0):
        wanted = crop_box(collection.read(image_ids[query]), boxes[query])
        errors[query] = pixel_difference(wanted, show_answer(ranking, query))
    return errors


def show_answer(ranking: RegionRanking, query: int, rank: int = 1) -> np.ndarray:
    """Return the image of an answer, (h, w, 3) uint8: its matched region's box, or all of it."""
    index, region = ranking.index, ranking.regions[query, rank - 1, 0]
    image = read_image(index.path(ranking.rows[query, rank - 1]))
    if region < 0:
        return image
    box = index.regions[["x0", "y0", "x1", "y1"]].iloc[region]
    return crop_box(image, box.to_numpy(float))


def grade_images(
    collection: Collection, objects: pd.DataFrame, image_ids: Sequence[str], *, by: Sequence[str]
) -> np.ndarray:
    """Grade images by how much of what is asked for their best object shares.

    Parameters
    ----------
    objects
        (q,) rows of `collection.objects`.
    image_ids
        (n,) unique.
    by
        Columns of `objects`, such as ("category", "color", "texture").

    Returns
    -------
    np.ndarray
        (q, n) float64 in [0, 1]: the largest share of the columns in which an object of the
        image agrees, crowds left out; 0 for an image without objects.
    """
    held = collection.objects[~collection.objects["iscrowd"]]
    columns = pd.Index(list(image_ids)).get_indexer(held["image_id"])
    held, columns = held[columns >= 0], columns[columns >= 0]
    attributes = held[list(by)].to_numpy(object)
    grades = np.zeros((len(objects), len(image_ids)))
    for grade, wanted in zip(grades, objects[list(by)].to_numpy(object), strict=True):
        np.maximum.at(grade, columns, (attributes == wanted).mean(axis=1))
    return grades


def explain_grades(ranking: RegionRanking, grades: np.ndarray) -> np.ndarray:
    """Return how much of the grades a query's scores explain, (q,) in [0, 1].

    S0's "R2 score", which the paper does not define. Our reading: the coefficient of
    determination of the line, not falling, that best tells an image's grade from its score,
    over all images ranked. So scales do not matter, and scores that rank backwards explain
    nothing. NaN where all grades are equal.

    Parameters
    ----------
    ranking
        Of the whole gallery: among the best only, a perfect search has nothing left to explain.
    grades
        (q, n) float, from `grade_images`.
    """
    explained = np.full(len(ranking), np.nan)
    for query, rows in enumerate(ranking.rows):
        kept = rows >= 0
        score, grade = ranking.scores[query, kept], grades[query, rows[kept]]
        if kept.any() and np.ptp(grade) > 0:
            told = np.corrcoef(score, grade)[0, 1] if np.ptp(score) > 0 else 0.0
            explained[query] = max(told, 0) ** 2
    return explained


MEASURES = (
    "hit@1", "hit@5", "mAP", "precision@1", "precision@5", "ndcg@5", "top1_similarity", "mae", "r2"
)  # fmt: skip


@dataclass(frozen=True)
class ObjectQuery:
    """What is asked for: something in a box of an image, or words.

    Attributes
    ----------
    image_id
        The image that it is about.
    box
        In pixels of the image; None for words.
    words
        Empty for a box.
    """

    image_id: str
    box: Box | None = None
    words: str = ""


def ask_by_box(
    collection: Collection, objects: pd.DataFrame, *, seed: int, noise: float = 0.1
) -> list[ObjectQuery]:
    """Draw a box around each object, as hastily as `studies.segment_objects` does.

    It is drawn around the mask, and around the object's own box where the mask cannot be used.

    Parameters
    ----------
    objects
        (q,) from `studies.sample_objects`.
    noise
        Of the boxes, see `sampling.jitter_box`.
    """
    rng = np.random.default_rng(seed)
    asked = []
    for _, row in objects.iterrows():
        mask = find_mask(collection, row["object_id"])
        if mask is None:
            size = collection.read(row["image_id"]).shape[:2]
            corners = row[["x0", "y0", "x1", "y1"]].to_numpy(float)
            box = Box(*jitter_box(corners, size, rng, noise=noise))
        else:
            box = prompt_for_object("box", mask, rng, noise=noise)
        asked.append(ObjectQuery(row["image_id"], box))
    return asked


def ask_by_caption(collection: Collection, count: int, *, seed: int) -> list[ObjectQuery]:
    """Draw images, all if there are fewer, and a caption of each.

    Raises
    ------
    ValueError
        If the collection has no captions.
    """
    captions = collection.captions
    if captions.empty:
        raise ValueError(f"{collection!r} has no captions to ask with")
    one_each = captions.groupby("image_id", sort=False).sample(1, random_state=seed)
    drawn = one_each.sample(min(count, len(one_each)), random_state=seed)
    pairs = zip(drawn["image_id"], drawn["caption"], strict=True)
    return [ObjectQuery(image_id, words=caption) for image_id, caption in pairs]


# From what is asked to queries


def encode_whole_images(
    asked: Sequence[ObjectQuery], collection: Collection, encoder: Encoder, *, crop: bool = False
) -> list[Query]:
    """Make queries of whole images, or with `crop` of what is inside the boxes."""
    pictures = [collection.read(one.image_id) for one in asked]
    if crop:
        pictures = [crop_box(p, one.box.xyxy) for p, one in zip(pictures, asked, strict=True)]
    return [Query([Part(vector)]) for vector in encoder.encode_images(pictures)]


def encode_boxed(
    asked: Sequence[ObjectQuery],
    collection: Collection,
    encoder: Encoder,
    segmenter: Segmenter,
    *,
    encoding: str,
) -> list[Query]:
    """Make queries of the regions that SAM finds by the boxes; all of the image where it fails."""
    queries = []
    for one in asked:
        image = collection.read(one.image_id)
        try:
            mask = segmenter.segment(image, one.box).mask
        except EmptyMaskError:
            mask = np.ones(image.shape[:2], bool)
        (vector,) = encode_regions(encoder, image, [mask], encoding=encoding)
        queries.append(Query([Part(vector)]))
    return queries


def encode_words(
    asked: Sequence[ObjectQuery], encoder: Encoder, *, templates: Sequence[str] = DEFAULT_TEMPLATES
) -> list[Query]:
    """Make queries of words."""
    vectors = encoder.encode_texts([one.words for one in asked], templates=templates)
    return [Query([Part(vector)]) for vector in vectors]


@dataclass(frozen=True, eq=False)
class Method:
    """A way to search.

    Attributes
    ----------
    index
        Where it looks.
    encode
        Turns what is asked into queries.
    target
        "images" or "regions", see `search_regions`.
    """

    index: Index
    encode: Callable[[Sequence[ObjectQuery]], list[Query]]
    target: str = "images"

    def search(
        self, asked: Sequence[ObjectQuery], queries: Sequence[Query], *, k: int | None = None
    ) -> RegionRanking:
        """Rank the first k images, all by default; the own image of a box is left out.

        Parameters
        ----------
        asked, queries
            (q,) and what `encode` has made of them.
        """
        own = self.index.rows_of(one.image_id for one in asked)
        boxed = np.array([one.box is not None for one in asked])
        exclude = np.where(boxed, own, -1)
        k = k or len(self.index)
        return search_regions(self.index, queries, k=k, target=self.target, exclude=exclude)


# How good the answers are


def measure_method(
    collection: Collection,
    asked: Sequence[ObjectQuery],
    ranking: RegionRanking,
    relevance: np.ndarray,
    grades: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Measure each query of a ranking by the measures of S0's table 2.

    Parameters
    ----------
    ranking
        Of the whole gallery.
    relevance
        (q, n) bool, columns in the order of the index.
    grades
        (q, n) float, from `grade_images`, for `r2`; None leaves it out.

    Returns
    -------
    dict
        Names in `MEASURES` to (q,) float; "mae" only if all is asked by box.
    """
    measured = measure_ranking(ranking, relevance)
    if all(one.box is not None for one in asked):
        boxes = [one.box.xyxy for one in asked]
        images = [one.image_id for one in asked]
        measured["mae"] = find_pixel_errors(collection, images, boxes, ranking)
    if grades is not None:
        measured["r2"] = explain_grades(ranking, grades)
    return {name: measured[name] for name in MEASURES if name in measured}


def time_method(method: Method, asked: Sequence[ObjectQuery], *, k: int = 5) -> list[float]:
    """Return the seconds of each query by itself: to read, segment, encode and search.

    The last query is asked once before, uncounted, as the first call pays for what later ones
    find ready. For honest times ask about different images, with a segmenter that remembers
    but one.
    """
    method.search(asked[-1:], method.encode(asked[-1:]), k=k)
    seconds = []
    for one in asked:
        started = time.perf_counter()
        method.search([one], method.encode([one]), k=k)
        seconds.append(time.perf_counter() - started)
    return seconds


# Region encodings on the same masks (notebook 05)


@dataclass(frozen=True, eq=False)
class EncodingTrial:
    """What one region encoding brought.

    Attributes
    ----------
    encoding
        Its name.
    ranking
        Of the whole gallery for each query, without the query's own image.
    milliseconds
        Per region of the gallery, masks being there already.
    """

    encoding: str
    ranking: RegionRanking
    milliseconds: float


def try_encoding(
    collection: Collection,
    index: Index,
    objects: pd.DataFrame,
    regions: Sequence[Region | None],
    encoder: Encoder,
    *,
    encoding: str,
) -> EncodingTrial:
    """Encode the gallery's regions and the queries anew, and search.

    Parameters
    ----------
    collection
        Of the index.
    index
        With regions: their masks are used, their vectors are not.
    objects
        (q,) rows from `studies.sample_objects`.
    regions
        (q,) what prompts for the objects have found.
    encoding
        A name in `regions.REGION_ENCODINGS`.
    """
    asked = objects["image_id"].tolist()
    vectors, seconds = encode_gallery(index, encoder, encoding)
    gallery = replace(index, region_vectors=vectors)
    queries = query_regions(
        collection, asked, [[region] for region in regions], encoder, encoding=encoding
    )
    ranking = search_regions(gallery, queries, k=len(index), exclude=index.rows_of(asked))
    return EncodingTrial(encoding, ranking, 1000 * seconds / max(len(vectors), 1))


def encode_gallery(index: Index, encoder: Encoder, encoding: str) -> tuple[np.ndarray, float]:
    """Return (r, d) float32 vectors of all regions of an index, and the seconds it took to encode.

    Reading the images and masks is not counted.
    """
    index.check_regions()
    vectors, seconds = [np.empty((0, encoder.dim), np.float32)], 0.0
    for row in progress(range(len(index)), desc=f"encode {encoding}", total=len(index)):
        image = read_image(index.path(row))
        held = index.regions_of(row)
        masks = [index.region_mask(region) for region in range(held.start, held.stop)]
        started = time.perf_counter()
        vectors.append(encode_regions(encoder, image, masks, encoding=encoding))
        seconds += time.perf_counter() - started
    return with_space(np.concatenate(vectors), encoder.space, encoding), seconds


def take_images(index: Index, count: int) -> Index:
    """Return the first images of an index and their regions, as an index in memory."""
    index.check_regions()
    regions = index.regions[index.regions["row"] < count]
    return replace(
        index,
        images=index.images.iloc[:count],
        vectors=index.vectors[:count],
        regions=regions,
        region_vectors=index.region_vectors[: len(regions)],
    )
