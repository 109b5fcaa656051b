"""Sample objects, prompts and background triplets from a collection, and ask for them as users do.

A prompt is simulated from the true mask of an object or from its words; the answers are judged by
the objects that images hold.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.data.masks import mask_to_box, mask_to_rle
from regionlab.data.prompts import Box, Points, Prompt, Text
from regionlab.models.encoder import Encoder
from regionlab.models.segmenter import EmptyMaskError, Region, Segmenter
from regionlab.regions.encodings import encode_regions
from regionlab.regions.grounding import NothingFoundError, find_regions
from regionlab.search.images import Ranking
from regionlab.search.query import Part, Query
from regionlab.util.progress import progress


def jitter_box(
    box: np.ndarray, size: tuple[int, int], rng: np.random.Generator, *, noise: float = 0.1
) -> np.ndarray:
    """Move each side of a box as a hasty hand would.

    The noise is normal, with a deviation of `noise` times the side's length and at most 20
    pixels: what SAM was trained with (Kirillov et al. 2023, appendix A).

    Parameters
    ----------
    box
        (4,) XYXY in pixels.
    size
        Height and width of the image, which the box stays in.

    Returns
    -------
    np.ndarray
        (4,) float64 XYXY, at least one pixel wide and high.
    """
    x0, y0, x1, y1 = box
    deviation = noise * np.array([x1 - x0, y1 - y0] * 2)
    moved = np.array(box, dtype=float) + np.clip(rng.normal(0, deviation), -20, 20)
    limit = np.array([size[1], size[0]], dtype=float)
    low = np.clip(np.minimum(moved[:2], moved[2:]), 0, limit - 1)
    high = np.minimum(np.maximum(np.maximum(moved[:2], moved[2:]), low + 1), limit)
    return np.concatenate([low, high])


def sample_inside_point(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Click on a pixel of the mask, any with the same chance.

    Returns
    -------
    np.ndarray
        (2,) float64 (x, y), the pixel's centre.

    Raises
    ------
    ValueError
        If the mask has no pixels.
    """
    inside = np.flatnonzero(mask)
    if not len(inside):
        raise ValueError("the mask has no pixels to click on")
    y, x = divmod(int(inside[rng.integers(len(inside))]), mask.shape[1])
    return np.array([x + 0.5, y + 0.5])


def sample_background_triplets(
    collection: Collection,
    objects: pd.DataFrame,
    *,
    seed: int,
    by: Sequence[str] = ("category",),
    ground: str = "ground",
) -> pd.DataFrame:
    """Draw for each object S1's figure-4 triple: its right and its wrong rival.

    The right image holds an object of the same kind on another ground; the wrong one has the
    query's ground and no object of the kind.

    Parameters
    ----------
    objects
        From `sample_objects`.
    ground
        Column of `collection.images`.

    Returns
    -------
    pd.DataFrame
        `object_id`, `image_id`, and the image ids `right` and `wrong`. Objects for which there
        is no such image are left out.

    Raises
    ------
    ValueError
        If the images have no such column.
    """
    if ground not in collection.images:
        raise ValueError(f"the images of {collection!r} have no column {ground!r}")
    rng = np.random.default_rng(seed)
    grounds = collection.images.set_index("image_id")[ground]
    holders = collection.objects.groupby(list(by))["image_id"].agg(set)
    triples = []
    for _, row in objects.iterrows():
        kind = tuple(row[column] for column in by)
        same = grounds.index.isin(holders.loc[kind if len(by) > 1 else kind[0]])
        alike = (grounds == grounds[row["image_id"]]).to_numpy()
        other = ~alike & grounds.notna().to_numpy()
        rivals = [grounds.index[same & other], grounds.index[~same & alike]]
        if all(len(ids) for ids in rivals):
            right, wrong = (ids[int(rng.integers(len(ids)))] for ids in rivals)
            triples.append((row["object_id"], row["image_id"], right, wrong))
    return pd.DataFrame(triples, columns=["object_id", "image_id", "right", "wrong"])


def find_ranks(ranking: Ranking, queries: Sequence[int], image_ids: Sequence[str]) -> np.ndarray:
    """Return the rank of an image in the ranking of a query, for several of both.

    Parameters
    ----------
    ranking
        Of the whole gallery (k = n).
    queries
        (t,) which query of the ranking.
    image_ids
        (t,) which image.

    Returns
    -------
    np.ndarray
        (t,) int64, from 1 on.

    Raises
    ------
    ValueError
        If an image is not ranked.
    """
    rows = ranking.index.rows_of(image_ids)
    is_it = ranking.rows[np.asarray(queries, int)] == rows[:, None]
    if not is_it.any(axis=1).all():
        missing = list(image_ids)[int((~is_it.any(axis=1)).argmax())]
        raise ValueError(f"image {missing!r} is not among the {ranking.rows.shape[1]} ranked")
    return is_it.argmax(axis=1) + 1


def drop_images(ranking: Ranking, dropped: np.ndarray) -> Ranking:
    """Return a ranking as it would be without some images, which differ from query to query.

    Parameters
    ----------
    ranking
        Of any kind; evidence of regions is left behind.
    dropped
        (q, n) bool, over the rows of the index.
    """
    gone = np.take_along_axis(np.pad(dropped, ((0, 0), (0, 1))), ranking.rows, axis=1)
    order = np.argsort(gone, axis=1, kind="stable")  # those that stay come first, as they were
    gone, rows, scores = (
        np.take_along_axis(array, order, axis=1) for array in (gone, ranking.rows, ranking.scores)
    )
    return Ranking(
        ranking.index,
        ranking.queries,
        np.where(gone, -1, rows),
        np.where(gone, -np.inf, scores).astype(np.float32),
        ranking.excluded,
    )


PROMPTS = ("box", "point", "text")


def sample_objects(
    collection: Collection, count: int, *, seed: int, by: Sequence[str] = ("category",)
) -> pd.DataFrame:
    """Draw objects to ask about: with a mask, no crowds, and of a kind that others share.

    Objects whose mask cannot be decoded are passed over, with one warning that counts them.

    Parameters
    ----------
    collection
        Where from.
    count
        How many; all there are, if fewer.
    seed
        Of the draw.
    by
        Columns of `objects` that make a kind; another image has to hold the same kind, with a
        mask or without.

    Returns
    -------
    pd.DataFrame
        Rows of `collection.objects`, in the collection's order.

    Raises
    ------
    ValueError
        If there is no such object.
    """
    objects = collection.objects[~collection.objects["iscrowd"]]
    shared = objects.groupby(list(by))["image_id"].transform("nunique") > 1
    fit = objects[shared & _may_be_asked_for(objects)]
    drawn, unseen = [], []
    for row, object_id in fit["object_id"].sample(frac=1, random_state=seed).items():
        if len(drawn) == count:
            break
        # Polygons thinner than a pixel have an area, but no pixels that a user could ask for.
        if find_mask(collection, object_id) is None:
            unseen.append(object_id)
        else:
            drawn.append(row)
    _warn_of(unseen)
    if not drawn:
        raise ValueError(f"{collection!r} has no object with a mask and a kind that others share")
    return fit.loc[sorted(drawn)].reset_index(drop=True)


def sample_pairs(
    collection: Collection, count: int, *, seed: int, by: Sequence[str] = ("category",)
) -> list[tuple[str, str]]:
    """Draw two objects of different kinds from one image, at most one pair an image.

    Returns
    -------
    list of tuple of str
        Ids of the objects.

    Raises
    ------
    ValueError
        If no image holds two kinds of object with masks.
    """
    objects = collection.objects
    objects = objects[_may_be_asked_for(objects)].dropna(subset=list(by))
    shuffled = objects.sample(frac=1, random_state=seed)
    pairs, unseen = [], []
    for _, held in shuffled.groupby("image_id", sort=False):
        if len(pairs) == count:
            break
        if pair := _take_pair(collection, held, by, unseen):
            pairs.append(pair)
    _warn_of(unseen)
    if not pairs:
        raise ValueError(f"{collection!r} has no image with two kinds of object")
    return pairs


def _take_pair(
    collection: Collection, held: pd.DataFrame, by: Sequence[str], unseen: list[str]
) -> tuple[str, str] | None:
    """Return the first two objects of different kinds whose masks can be used."""
    kinds = held[list(by)].apply(tuple, axis=1)
    if kinds.nunique() < 2:
        return None
    first = None
    for row, object_id in held["object_id"].items():
        if first is not None and kinds[row] == kinds[first]:
            continue
        if find_mask(collection, object_id) is None:
            unseen.append(object_id)
        elif first is None:
            first = row
        else:
            return held["object_id"][first], object_id
    return None


def find_mask(collection: Collection, object_id: str) -> np.ndarray | None:
    """Return the mask of an object, (H, W) bool; None if it is empty or cannot be decoded."""
    try:
        mask = collection.mask(object_id)
    except ValueError:
        return None
    return mask if mask.any() else None


def _may_be_asked_for(objects: pd.DataFrame) -> pd.Series:
    """Tell which objects have a mask and are no crowds, by what the tables say."""
    masked = objects["segmentation"].notna() & objects["area"].ne(0)
    return masked & ~objects["iscrowd"]


def _warn_of(unseen: Sequence[str], stacklevel: int = 3) -> None:
    if unseen:
        warnings.warn(
            f"{len(unseen):,} objects were passed over, as their masks are empty or cannot be "
            f"decoded; the first: {unseen[0]!r}",
            stacklevel=stacklevel,
        )


def describe_object(row: pd.Series, words: Sequence[str] = ("category",)) -> str:
    """Return an object in words, such as "red striped star": values of columns, "plain" unsaid."""
    return " ".join(str(row[column]) for column in words if str(row[column]) != "plain")


def prompt_for_object(
    how: str,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    words: str = "",
    noise: float = 0.1,
) -> Prompt:
    """Ask for an object as a user would: a hasty box, a click anywhere on it, or its words.

    Parameters
    ----------
    how
        One of `PROMPTS`.
    mask
        (H, W) bool, the true mask.
    words
        For "text".
    noise
        Of the box, see `jitter_box`.

    Raises
    ------
    ValueError
        If `how` is unknown.
    """
    if how == "box":
        return Box(*jitter_box(mask_to_box(mask), mask.shape, rng, noise=noise))
    if how == "point":
        return Points((tuple(sample_inside_point(mask, rng)),))
    if how == "text":
        return Text(words)
    raise ValueError(f"unknown prompt {how!r}; known: {', '.join(PROMPTS)}")


def segment_objects(
    collection: Collection,
    objects: pd.DataFrame,
    how: str,
    segmenter: Segmenter,
    encoder: Encoder,
    *,
    seed: int,
    words: Sequence[str] = ("category",),
    noise: float = 0.1,
    **options,
) -> list[Region | None]:
    """Ask for each object by a simulated prompt and return the regions found.

    Parameters
    ----------
    objects
        From `sample_objects`.
    how, noise
        As for `prompt_for_object`.
    words
        Columns that describe an object, see `describe_object`.
    options
        For `grounding.find_words`.

    Returns
    -------
    list of Region or None
        None where the prompt found nothing; this counts as a miss and is for the caller to
        tell. None too, with one warning that counts them, where there is no mask to draw a box
        or a click from; `measure_masks` measures nothing there.
    """
    rng = np.random.default_rng(seed)
    found: list[Region | None] = []
    unseen = []
    for _, row in progress(objects.iterrows(), desc=f"segment by {how}", total=len(objects)):
        mask, image = find_mask(collection, row["object_id"]), collection.read(row["image_id"])
        if how != "text" and (mask is None or mask.shape != image.shape[:2]):
            unseen.append(row["object_id"])
            found.append(None)
            continue
        said = describe_object(row, words)
        prompt = prompt_for_object(how, mask, rng, words=said, noise=noise)
        try:
            found += find_regions(image, prompt, segmenter, encoder, **options)[:1]
        except (EmptyMaskError, NothingFoundError):
            found.append(None)
    _warn_of(unseen)
    return found


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the pixels in both (H, W) bool masks over those in either; 0 if both are empty."""
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 0.0


def measure_masks(
    collection: Collection,
    objects: pd.DataFrame,
    regions: Sequence[Region | None],
    *,
    by: Sequence[str] = (),
) -> np.ndarray:
    """Return the IoU of each region with the object that was asked for, (q,) float.

    NaN where no mask of what was asked for can be used.

    Parameters
    ----------
    by
        Columns that words can tell: then any object of the image that agrees in them is right,
        and the best counts. None for the very object.
    """
    ious = []
    for (_, row), region in zip(objects.iterrows(), regions, strict=True):
        held = collection.objects_of(row["image_id"]).dropna(subset="segmentation")
        same = (held[list(by)] == row[list(by)]).all(axis=1)
        meant = held["object_id"][same] if by else [row["object_id"]]
        masks = [mask for each in meant if (mask := find_mask(collection, each)) is not None]
        if region is not None:
            masks = [mask for mask in masks if mask.shape == region.mask.shape]
        found = [0.0 if region is None else mask_iou(region.mask, mask) for mask in masks]
        ious.append(max(found, default=np.nan))
    return np.array(ious, float)


def query_regions(
    collection: Collection,
    image_ids: Sequence[str],
    regions: Sequence[Sequence[Region | None]],
    encoder: Encoder,
    *,
    encoding: str,
) -> list[Query]:
    """Make a query of each image's regions; the whole image stands in where none was found.

    Parameters
    ----------
    image_ids
        (q,) the image of each query.
    regions
        (q,) its regions, a part each.
    encoding
        How regions become vectors, the one of the index.
    """
    queries = []
    items = list(zip(image_ids, regions, strict=True))
    for image_id, parts in progress(items, desc="encode queries", total=len(items)):
        image = collection.read(image_id)
        height, width = image.shape[:2]
        masks = [np.ones((height, width), bool) if r is None else r.mask for r in parts]
        vectors = encode_regions(encoder, image, masks, encoding=encoding)
        boxes = [mask_to_box(mask) / (width, height, width, height) for mask in masks]
        rles = map(mask_to_rle, masks)
        made = zip(vectors, boxes, rles, strict=True)
        queries.append(Query([Part(vector, box, rle=rle) for vector, box, rle in made]))
    return queries
