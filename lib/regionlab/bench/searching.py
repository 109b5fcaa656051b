"""How soon a search is answered: vectors ranked, regions encoded, prompts step by step."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from regionlab.data.collection import Collection
from regionlab.data.prompts import Prompt
from regionlab.data.registry import load_collection
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import Index
from regionlab.models.encoder import Encoder
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import EmptyMaskError, Region, Segmenter
from regionlab.models.spaces import to_unit
from regionlab.regions.encodings import DEFAULT_ENCODING, encode_regions
from regionlab.runs.record import describe_device
from regionlab.search.engine import ExactEngine
from regionlab.search.engines import build_engine, recommend
from regionlab.search.query import Query, part_from_region
from regionlab.search.regions import search_regions
from regionlab.studies.sampling import prompt_for_object, sample_objects
from regionlab.studies.scale import grow_vectors, sample_clusters
from regionlab.util.paths import DATA, FIGURES, index_folder
from regionlab.util.progress import summarise_measure, time_interleaved

FACTORIES = ("IVF2048,Flat", "IVF2048,SQ8")
CLUSTERS = 1000
SPREAD = 1.0  # noise as long as a centre
KINDS = {"image": SPREAD, "text": 2 * SPREAD}  # queries: as the gallery, and farther away

POOLED = "tokens"
QUALITY = FIGURES / "05_compare_region_encodings.json"
IMAGE_SIZE = (480, 640)  # height and width in pixels of most images in COCO

STEPS = ("mask", "vector", "search")
PROMPTS = ("box", "point")
# Images and prompts an image; the first segmenter finds the regions of the index. `vit_b` takes
# seconds to encode an image on a processor, whatever its weights.
LOOPS = {"toysam": (12, 20), "vit_b/untrained": (3, 10)}


def measure_search(
    *,
    n: int = 500_000,
    d: int = 512,
    queries: int = 100,
    batch: int = 64,
    recall: float = 0.99,
    k: int = 10,
    factories: Sequence[str] = FACTORIES,
    rounds: int = 5,
    seed: int = 0,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure search among n clustered unit vectors of d dimensions.

    Parameters
    ----------
    queries
        Of each kind, not in the gallery: drawn as it is, and twice as far from the centres,
        as words lie away from images. As many again choose the engine.
    batch
        Queries that exact search and FAISS Flat answer at once, besides one alone.
    recall, k, factories
        What the recommended engine has to reach, and the FAISS factory strings tried.
    folder
        Where indexes are built; they are thrown away.

    Returns
    -------
    dict
        `ratio_vs_sklearn`: seconds of S3's way, scikit-learn's `cosine_similarity` and
        `argsort`, by those of the recommended engine, one query each; `recall_at_10` of the
        worst kind of query (at `k`); `exact_vs_faiss_flat`: seconds by seconds, "one" query and
        a "batch"; `milliseconds` of all.
    """
    gallery = sample_clusters(n, d, clusters=CLUSTERS, spread=SPREAD, seed=seed)
    asked = {kind: _sample_queries(gallery.shape[1], 2 * queries, spread, seed)
             for kind, spread in KINDS.items()}  # fmt: skip
    chosen_on = {kind: vectors[:queries] for kind, vectors in asked.items()}
    measured_on = {kind: vectors[queries:] for kind, vectors in asked.items()}
    (folder or DATA).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder or DATA) as place:
        kept = {"folder": place, "identity": "bench"}
        found = recommend(
            gallery, chosen_on, recall=recall, k=k, factories=factories, **kept
        )  # fmt: skip
        engine = build_engine(found.name, gallery, **kept)
        flat = build_engine("faiss:Flat", gallery, **kept)
        exact = ExactEngine(gallery)
        recalls = {kind: _measure_recall(engine, exact, v, k) for kind, v in measured_on.items()}
        every = np.concatenate(list(measured_on.values()))
        times = _time(gallery, engine, exact, flat, every, k=k, batch=batch, rounds=rounds)
    ratio = {name: np.divide(times[f"exact_{name}"], times[f"flat_{name}"])
             for name in ("one", "batch")}  # fmt: skip
    return {
        "ratio_vs_sklearn": summarise_measure(np.divide(times["sklearn"], times["engine"])),
        "recall_at_10": min(recalls.values()),
        "recall_by_query": recalls,
        "recommended": found.name,
        "reached": found.reached,
        "exact_vs_faiss_flat": {name: summarise_measure(r) for name, r in ratio.items()},
        "milliseconds": {name: summarise_measure(1000 * np.array(t)) for name, t in times.items()},
        "n": n, "d": d, "k": k, "batch": batch,
    }  # fmt: skip


def _sample_queries(d: int, count: int, spread: float, seed: int) -> np.ndarray:
    """Sample queries around the gallery's own centres."""
    centres = to_unit(np.random.default_rng(seed).normal(size=(CLUSTERS, d))).astype(np.float32)
    return grow_vectors(centres, count, spread=spread, seed=seed + 2)


def _measure_recall(engine, exact, queries: np.ndarray, k: int) -> float:
    """Return the share of the k nearest that an engine finds."""
    found, truth = (side.search(queries, k)[0] for side in (engine, exact))
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))


def _time(gallery, engine, exact, flat, queries, *, k: int, batch: int, rounds: int):
    """Return the seconds of each side a round; a query's, but for the batches'."""
    from sklearn.metrics.pairwise import cosine_similarity

    some = iter(range(10**9))

    def one(search) -> None:
        search(queries[next(some) % len(queries)][None])

    def as_s3(query: np.ndarray) -> np.ndarray:
        return np.argsort(cosine_similarity(query, gallery)[0])[::-1][:k]

    def many(search) -> None:
        for query in queries:
            search(query[None])

    sides = {
        "sklearn": lambda: one(as_s3),
        "engine": lambda: many(lambda q: engine.search(q, k)),
        "exact_one": lambda: one(lambda q: exact.search(q, k)),
        "flat_one": lambda: one(lambda q: flat.index.search(q, k)),
        "exact_batch": lambda: exact.search(queries[:batch], k),
        "flat_batch": lambda: flat.index.search(queries[:batch], k),
    }
    time_interleaved(sides, 1)  # warm
    times = time_interleaved(sides, rounds)
    return times | {"engine": [seconds / len(queries) for seconds in times["engine"]]}


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

    The passes are a single batch. Both sides go from image and masks to vectors, in turn.

    Parameters
    ----------
    count
        Regions: ellipses of many sizes, on an image of noise.
    encoding
        The side with a pass for each region, a name in `REGION_ENCODINGS`.
    quality
        Results of notebook 05, which has measured how well both retrieve.

    Returns
    -------
    dict
        `ratio_vs_passes_<architecture>` of rates within a round, above 1 where pooled tokens are
        faster; `milliseconds` of both sides for all regions, by encoder; `map` of both sides and
        `map_from`, see `read_quality`; and the setting.
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
    """Sample an image of noise, (H, W, 3) uint8, and ellipses on it, (H, W) bool each.

    Their half axes are 3 to 30 percent of the image's sides, as generated masks have them.
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


def measure_prompt_loop(
    collection: Collection | None = None,
    folder: Path | None = None,
    *,
    encoder: str = "toyclip",
    loops: Mapping[str, tuple[int, int]] = LOOPS,
    k: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the milliseconds from a prompt to the k best images, the image being encoded.

    Parameters
    ----------
    collection
        Images with object masks, to search and to prompt; by default Toybox's test split.
    folder
        Where its region index is, or will be built; by default the notebooks' place.
    loops
        Segmenter to how many images, and prompts on each.

    Returns
    -------
    dict
        By segmenter: `milliseconds` of the `whole` loop, by kind of prompt too, of its steps and
        of `embed`, which only the first prompt on an image pays; `share` of each step in all the
        time but `embed`. `ratio_first_vs_next_<segmenter>`: how many times longer the first
        prompt on an image takes than a further one. And the setting.
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
        was empty: the whole image is searched for), and seconds: `embed` (of the image, before
        its first prompt), `mask`, `vector`, `search`. ValueError if there are too few images.
    """
    rows = []
    for image_id, asked in _sample_prompts(collection, images + 1, prompts, seed):
        image = collection.read(image_id)
        started = time.perf_counter()
        segmenter.set_image(image)
        common = {"image_id": image_id, "embed": time.perf_counter() - started}
        for how, prompt in asked:
            timed = _time_prompt(index, segmenter, encoder, image, prompt, k)
            rows.append(common | {"prompt": how} | timed)
    table = pd.DataFrame(rows)
    return table[table["image_id"] != table["image_id"].iloc[0]].reset_index(drop=True)


def _sample_prompts(
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
    index: Index, segmenter: Segmenter, encoder: Encoder, image: np.ndarray, prompt: Prompt, k: int
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
