"""Pixel error and R2 of answers, which S0's table 2 prints without a definition: our readings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from regionlab.collection import Collection
from regionlab.images import read_image
from regionlab.region_search import RegionRanking

SIDE = 64  # pixels of the pictures whose difference is measured


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
    """Return the mean absolute difference of two pictures, in [0, 1].

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
    """Return the picture of an answer, (h, w, 3) uint8: its matched region's box, or all of it."""
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
