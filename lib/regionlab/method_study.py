"""Does region search beat other methods? All of them on the same queries (notebook 06).

A method turns what is asked into queries and looks for them in an index of its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regionlab.collection import Collection
from regionlab.embedding import DEFAULT_TEMPLATES, Encoder
from regionlab.evaluation import measure_ranking
from regionlab.index import Index
from regionlab.masking import EmptyMaskError, Segmenter
from regionlab.method_measures import crop_box, explain_grades, find_pixel_errors
from regionlab.prompts import Box
from regionlab.query import Part, Query
from regionlab.region_search import RegionRanking, search_regions
from regionlab.regions import encode_regions
from regionlab.simulation import jitter_box
from regionlab.studies import find_mask, prompt_for_object

MEASURES = (
    "hit@1", "hit@5", "mAP", "precision@1", "precision@5", "ndcg@5", "top1_similarity", "mae", "r2"
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
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
) -> list[Asked]:
    """Draw a box around each object, as hastily as `studies.segment_objects` does.

    It is drawn around the mask, and around the object's own box where the mask cannot be used.

    Parameters
    ----------
    objects
        (q,) from `studies.draw_objects`.
    noise
        Of the boxes, see `simulation.jitter_box`.
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
        asked.append(Asked(row["image_id"], box))
    return asked


def ask_by_caption(collection: Collection, count: int, *, seed: int) -> list[Asked]:
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
    return [Asked(image_id, words=caption) for image_id, caption in pairs]


# From what is asked to queries


def encode_pictures(
    asked: Sequence[Asked], collection: Collection, encoder: Encoder, *, crop: bool = False
) -> list[Query]:
    """Make queries of whole images, or with `crop` of what is inside the boxes."""
    pictures = [collection.read(one.image_id) for one in asked]
    if crop:
        pictures = [crop_box(p, one.box.xyxy) for p, one in zip(pictures, asked, strict=True)]
    return [Query([Part(vector)]) for vector in encoder.encode_images(pictures)]


def encode_boxed(
    asked: Sequence[Asked],
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
    asked: Sequence[Asked], encoder: Encoder, *, templates: Sequence[str] = DEFAULT_TEMPLATES
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
    against
        "images" or "regions", see `region_search.search_regions`.
    """

    index: Index
    encode: Callable[[Sequence[Asked]], list[Query]]
    against: str = "images"

    def search(
        self, asked: Sequence[Asked], queries: Sequence[Query], *, k: int | None = None
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
        return search_regions(self.index, queries, k=k, against=self.against, exclude=exclude)


# How good the answers are


def measure_method(
    collection: Collection,
    asked: Sequence[Asked],
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
        (q, n) float, from `method_measures.grade_images`, for `r2`; None leaves it out.

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


def time_method(method: Method, asked: Sequence[Asked], *, k: int = 5) -> list[float]:
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
