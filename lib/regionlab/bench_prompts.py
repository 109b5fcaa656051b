"""How soon a prompt is answered: prompt, mask, vector, the best images; step by step."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from regionlab.collection import Collection
from regionlab.datasets import load_collection
from regionlab.embedding import Encoder
from regionlab.encoders import load_encoder
from regionlab.index import Index, build_index
from regionlab.index_regions import add_regions
from regionlab.masking import EmptyMaskError, Region, Segmenter
from regionlab.paths import index_folder
from regionlab.prompts import Prompt
from regionlab.provenance import describe_device
from regionlab.query import Query, part_from_region
from regionlab.region_search import search_regions
from regionlab.regions import DEFAULT_ENCODING
from regionlab.segmenters import load_segmenter
from regionlab.studies import draw_objects, prompt_for_object
from regionlab.timing import summarise_measure

STEPS = ("mask", "vector", "search")
PROMPTS = ("box", "point")
# Images and prompts an image; the first segmenter finds the regions of the index. `vit_b` takes
# seconds to encode an image on a processor, whatever its weights.
LOOPS = {"toysam": (12, 20), "vit_b/untrained": (3, 10)}


def measure_prompt_loop(
    collection: Collection | None = None,
    folder: Path | None = None,
    *,
    encoder: str = "toyclip",
    loops: Mapping[str, tuple[int, int]] = LOOPS,
    k: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the milliseconds from a prompt to the best images, the image being encoded.

    Parameters
    ----------
    collection
        Images with object masks, to search and to prompt; by default Toybox's test split.
    folder
        Where its region index is, or will be built; by default the notebooks' place.
    encoder
        As for `load_encoder`.
    loops
        For each segmenter, as for `load_segmenter`: how many images, and prompts on each.
    k
        Images to find.
    seed
        Draws images, objects and prompts.

    Returns
    -------
    dict
        By segmenter: `milliseconds` of the `whole` loop, by kind of prompt too, of its steps and
        of `embed`, which only the first prompt on an image pays; `share` of each step in all the
        time but `embed`. `ratio_first_vs_next_<segmenter>`: how many times longer the first
        prompt on an image takes than a further one. A measured value is the median, with its
        range over prompts (over images for `embed` and the ratio). And the setting.
    """
    model = load_encoder(encoder)
    segmenters = {name: load_segmenter(name) for name in loops}
    collection = collection or load_collection("toybox", split="test")
    folder = folder or index_folder(collection.name, collection.split, model.name, "regions")
    index = build_index(collection, model, folder)
    index = add_regions(index, next(iter(segmenters.values())), model)
    laps = {
        name: time_prompts(collection, index, segmenter, model, *loops[name], k=k, seed=seed)
        for name, segmenter in segmenters.items()
    }
    ratios = {
        f"ratio_first_vs_next_{name.partition('/')[0]}": summarise_measure(_compare_first(timed))
        for name, timed in laps.items()
    }
    described = {
        name: _describe_laps(timed) | {"precision": segmenters[name].precision}
        for name, timed in laps.items()
    }
    return ratios | described | {
        "gallery": len(index),
        "regions": len(index.regions),
        "k": k,
        "encoder": encoder,
        "encoding": DEFAULT_ENCODING,
        "precision": model.precision,
        "device": describe_device(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def time_prompts(
    collection: Collection,
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    images: int,
    prompts: int,
    *,
    k: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Prompt images as a user would, box and click in turn, and time each step.

    One more image goes before the others to warm up, and is not in the result.

    Returns
    -------
    pd.DataFrame
        One row a prompt: `image_id`, `prompt` ("box" or "point"), `found` (False where the mask
        was empty; the whole image is searched for then), and seconds: `embed` (of the image,
        before its first prompt), `mask`, `vector`, `search`.

    Raises
    ------
    ValueError
        If the collection has too few images with objects.
    """
    rows = []
    for image_id, asked in _draw_prompts(collection, images + 1, prompts, seed):
        image = collection.read(image_id)
        started = time.perf_counter()
        segmenter.embed(image)
        common = {"image_id": image_id, "embed": time.perf_counter() - started}
        for how, prompt in asked:
            timed = _time_prompt(index, segmenter, encoder, image, prompt, k)
            rows.append(common | {"prompt": how} | timed)
    table = pd.DataFrame(rows)
    return table[table["image_id"] != table["image_id"].iloc[0]].reset_index(drop=True)


def _draw_prompts(
    collection: Collection, images: int, prompts: int, seed: int
) -> Iterator[tuple[str, list[tuple[str, Prompt]]]]:
    """Yield images, each with its prompts: kind and prompt."""
    rng = np.random.default_rng(seed)
    objects = draw_objects(collection, len(collection.objects), seed=seed)
    by_image = objects.groupby("image_id")["object_id"]
    fit = objects["image_id"].drop_duplicates()
    if len(fit) < images:
        raise ValueError(f"{images} images with objects are needed, {collection!r} has {len(fit)}")
    for image_id in fit.sample(images, random_state=seed):
        masks = [collection.mask(object_id) for object_id in by_image.get_group(image_id)]
        kinds = [PROMPTS[number % len(PROMPTS)] for number in range(prompts)]
        yield (
            image_id,
            [(how, prompt_for_object(how, masks[rng.integers(len(masks))], rng)) for how in kinds],
        )


def _time_prompt(
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    image: np.ndarray,
    prompt: Prompt,
    k: int,
) -> dict[str, Any]:
    """Return the seconds of each step, and whether there was a mask."""
    times = [time.perf_counter()]
    try:
        region, found = segmenter.segment(image, prompt), True
    except EmptyMaskError:
        region, found = Region(np.ones(image.shape[:2], bool)), False
    times.append(time.perf_counter())
    part = part_from_region(encoder, image, region, encoding=DEFAULT_ENCODING)
    times.append(time.perf_counter())
    search_regions(index, Query([part]), k=k)
    times.append(time.perf_counter())
    return {"found": found, **dict(zip(STEPS, np.diff(times), strict=True))}


def _compare_first(laps: pd.DataFrame) -> np.ndarray:
    """Return, for each image, the seconds of a first prompt over those of a further one."""
    whole = laps[list(STEPS)].sum(axis=1).groupby(laps["image_id"]).median()
    return (1 + laps.groupby("image_id")["embed"].first() / whole).to_numpy()


def _describe_laps(laps: pd.DataFrame) -> dict[str, Any]:
    steps = 1000 * laps[list(STEPS)]
    whole = steps.sum(axis=1)
    embed = 1000 * laps.groupby("image_id")["embed"].first()
    by_prompt = dict(list(whole.groupby(laps["prompt"])))
    timed = {"whole": whole, **by_prompt, **steps, "embed": embed}
    return {
        "milliseconds": {name: summarise_measure(values) for name, values in timed.items()},
        "share": (steps.sum() / whole.sum()).round(3).to_dict(),
        "images": len(embed),
        "prompts": len(laps),
        "found_nothing": int((~laps["found"]).sum()),
    }
