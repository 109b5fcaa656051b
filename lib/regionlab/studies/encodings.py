"""How should a region be shown to CLIP? All region encodings on the same masks (notebook 05)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.data.images import read_image
from regionlab.index.index import Index
from regionlab.models.encoder import Encoder
from regionlab.models.segmenter import Region
from regionlab.models.spaces import with_space
from regionlab.regions.encodings import encode_regions
from regionlab.search.regions import RegionRanking, search_regions
from regionlab.studies.sampling import query_regions
from regionlab.util.progress import progress


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
