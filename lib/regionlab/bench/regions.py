"""How soon a prompt is answered: prompt, mask, vector, the best images; step by step."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from regionlab.data.collection import Collection
from regionlab.data.prompts import Prompt
from regionlab.data.registry import load_collection
from regionlab.index.build import build_index
from regionlab.index.index import Index
from regionlab.index.regions import add_regions
from regionlab.models.encoder import Encoder
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import EmptyMaskError, Region, Segmenter
from regionlab.regions.encodings import DEFAULT_ENCODING, encode_regions
from regionlab.runs.record import describe_device
from regionlab.search.query import Query, part_from_region
from regionlab.search.regions import search_regions
from regionlab.studies.sampling import prompt_for_object, sample_objects
from regionlab.util.paths import FIGURES, index_folder
from regionlab.util.timing import summarise_measure, time_interleaved

POOLED = "tokens"
QUALITY = FIGURES / "05_compare_region_encodings.json"
IMAGE_SIZE = (480, 640)  # height and width in pixels of most pictures in COCO


def measure_region_encoding(
    encoders: Sequence[str] = ("toyclip", "ViT-B-32/untrained"),
    *,
    count: int = 32,
    rounds: int = 7,
    encoding: str = DEFAULT_ENCODING,
    quality: Path = QUALITY,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the regions of one image by pooled tokens against a forward pass for each.

    The passes are a single batch. Both sides include everything from image and masks to
    vectors, and are measured in turn, round by round, after a run that does not count.

    Parameters
    ----------
    encoders
        As for `load_encoder`; precision "auto".
    count
        Regions: ellipses of many sizes, on an image of noise.
    rounds
        How often each side is measured.
    encoding
        The side with a pass for each region, a name in `regions.REGION_ENCODINGS`.
    quality
        Results of notebook 05, which has measured how well both retrieve.
    seed
        Of image and regions.

    Returns
    -------
    dict
        `ratio_vs_passes_<architecture>` of rates, taken within a round: above 1 means that
        pooled tokens are the faster side. `milliseconds` of both sides for all regions, by
        encoder. A measured value is the median, with its range over the rounds. `map` of both
        sides as the notebook has measured it, and `map_from`: the file, or a word where the
        file is missing and so the values are None. And the setting.
    """
    image, masks = sample_regions(count, seed)
    ratios, milliseconds, precisions = {}, {}, {}
    for name in encoders:
        encoder = load_encoder(name)
        times = _time_encodings(encoder, image, masks, (POOLED, encoding), rounds)
        ratio = np.divide(times[encoding], times[POOLED])
        ratios[f"ratio_vs_passes_{name.partition('/')[0]}"] = summarise_measure(ratio)
        milliseconds[name] = {
            side: summarise_measure(1000 * np.array(seconds)) for side, seconds in times.items()
        }
        precisions[name] = encoder.precision
    return ratios | {
        "milliseconds": milliseconds,
        **read_quality(quality, (POOLED, encoding)),
        "encoding": encoding,
        "regions": count,
        "image_size": [IMAGE_SIZE[1], IMAGE_SIZE[0]],
        "precision": precisions,
        "device": describe_device(),
        "threads": torch.get_num_threads(),
    }


def _time_encodings(
    encoder: Encoder,
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    encodings: Sequence[str],
    rounds: int,
) -> dict[str, list[float]]:
    def encode(name: str) -> None:
        encode_regions(encoder, image, masks, encoding=name, batch_size=len(masks))

    sides = {name: partial(encode, name) for name in encodings}
    time_interleaved(sides, 1)  # warms up
    return time_interleaved(sides, rounds)


def sample_regions(count: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw an image of noise, (H, W, 3) uint8, and ellipses on it, (H, W) bool each.

    Their half axes are 3 to 30 percent of the image's sides, as everything-masks have them.
    """
    rng = np.random.default_rng(seed)
    sides = np.array(IMAGE_SIZE)
    y, x = np.indices(IMAGE_SIZE)
    masks = []
    for _ in range(count):
        (cy, cx), (ry, rx) = rng.uniform(0, 1, 2) * sides, rng.uniform(0.03, 0.3, 2) * sides
        masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
    return rng.integers(0, 256, (*IMAGE_SIZE, 3), dtype=np.uint8), masks


def read_quality(file: Path, encodings: Sequence[str]) -> dict[str, Any]:
    """Return `map` by encoding from the results of notebook 05, and `map_from`.

    The values are None, and a word says so, where there is no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"map": dict.fromkeys(encodings), "map_from": f"missing: no {file.name}"}
    measured = content["results"]["encodings"]
    return {
        "map": {name: measured.get(name, {}).get("mAP") for name in encodings},
        "map_from": file.name,
    }


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
        segmenter.set_image(image)
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
    objects = sample_objects(collection, len(collection.objects), seed=seed)
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
