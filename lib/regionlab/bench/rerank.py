"""How long the Ranking Optimization Layer and the matching of several parts take."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from regionlab.bench.searching import IMAGE_SIZE, sample_regions
from regionlab.index.index import Index
from regionlab.models.segmenter import Region
from regionlab.runs.record import describe_device
from regionlab.search.gallery import RegionGallery
from regionlab.search.query import Part, Query, QueryVectors, make_query_vectors
from regionlab.search.regions import rerank, search_regions
from regionlab.search.rol import Masks, PackedMasks, Shapes, keep_packed, load_shapes
from regionlab.search.scoring import Rol, choose_regions, match_parts
from regionlab.util.timing import summarise_measure, time_interleaved

BLOCK = 512  # unpacked masks laid over those of a query at a time
LOWEST_IOU = 0.1  # of the pairs whose error counts: nearly all others are right, being 0
SHAPES = 200  # different masks; the regions take turns


def measure_rerank(
    *,
    candidates: int = 1000,
    regions: int = 20,
    grid: int = 32,
    parts: int = 3,
    width: int = 512,
    rounds: int = 21,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure re-ranking the images that a search has found, and matching their regions.

    The images have random vectors and ellipses for regions, all of one size in pixels. Sides
    are measured in turn, round by round, after a run that does not count.

    Parameters
    ----------
    candidates, regions
        Images to re-rank, and regions of each: every one is laid over the query's.
    grid
        As for `Rol`.
    parts
        Of the query whose regions are matched. They are much alike, so that many images have
        one region that answers several of them best.
    width
        Of the vectors.
    rounds
        How often each side is measured.
    seed
        Of masks, vectors and weights.

    Returns
    -------
    dict
        `milliseconds` of the Ranking Optimization Layer for a query, by packed masks that are
        in memory; with `_boxes` by boxes, `_unpacked` by the same cells as bool, `_search` with
        the search before it, `_first` for packing all masks. `ratio_vs_unpacked`, and
        `ratio_vs_coco`: pycocotools' IoU of the encoded masks over all of the re-ranking.
        `iou_error` of the grid against the pixels, mean and 95th percentile over the pairs whose
        IoU is 0.1 or more. `ratio_matching`: the regions of all images matched by an assignment
        each over those matched at once; `shared`, the share of images where there is something
        to match. A ratio is taken within a round, above 1 means that ours is faster. A measured
        value is the median, with its range over the rounds. And the setting.

    Raises
    ------
    RuntimeError
        If two sides differ in their results.
    """
    index, query = draw_index(candidates, regions, width, seed), draw_query(width, seed)
    rol = Rol(1, 1, region="overlap", candidates=candidates, overlap="mask", grid=grid)
    times, errors = _time_reranking(index, query, rol, rounds)
    milliseconds = {name: summarise_measure(1000 * np.array(t)) for name, t in times.items()}
    by_name = {f"milliseconds_{name}": milliseconds[name] for name in times if name != "masks"}
    ratios = {
        f"ratio_vs_{name}": summarise_measure(np.divide(times[name], times["masks"]))
        for name in ("unpacked", "coco")
    }
    matching = _time_matching(draw_similarity(candidates, regions, parts, width, seed), rounds)
    return {"milliseconds": milliseconds["masks"]} | by_name | ratios | matching | {
        "iou_error": {
            "mean": round(float(errors.mean()), 4),
            "p95": round(float(np.quantile(errors, 0.95)), 4),
            "pairs": len(errors),
        },
        "kilobytes_of_masks": candidates * regions * grid * grid // 8 // 1024,
        "candidates": candidates,
        "regions": regions,
        "grid": grid,
        "parts": parts,
        "image_size": [IMAGE_SIZE[1], IMAGE_SIZE[0]],
        "device": describe_device(),
    }  # fmt: skip


# Re-ranking


def _time_reranking(
    index: Index, query: Query, rol: Rol, rounds: int
) -> tuple[dict[str, list[float]], np.ndarray]:
    """Return the seconds of each side, and the errors of the grid's IoU."""
    gallery = RegionGallery(index, with_regions=True)
    probes, none = [make_query_vectors(query, "match")], np.array([-1])
    found = next(gallery.find(probes, none, share=0.0, depth=rol.candidates))
    every, rle = np.arange(len(index.regions)), query.parts[0].rle
    encoded = _list_encoded(index)

    def by(shapes: Shapes) -> Callable[[], dict[str, np.ndarray]]:
        return partial(rerank, found, query, rol, shapes, gallery.offsets)

    packed, unpacked = load_shapes(index, rol), UnpackedMasks(index, rol.grid)
    sides = {
        "masks": by(packed),
        "boxes": by(load_shapes(index, Rol())),
        "unpacked": by(unpacked),
        "coco": lambda: coco_mask.iou(encoded, [rle], [0]),
        "search": lambda: search_regions(index, query, rol=rol),
        "first": lambda: PackedMasks(index, rol.grid).get(every),
    }
    one, other = sides["masks"](), sides["unpacked"]()
    if not all(np.array_equal(one[name], other[name]) for name in one):
        raise RuntimeError("packed and unpacked masks rank differently")
    exact = sides["coco"]()[:, 0]
    errors = packed.overlap_regions(packed.of_parts(query.parts), every)[0] - exact
    time_interleaved(sides, 1)  # warms up
    return time_interleaved(sides, rounds), np.abs(errors[exact >= LOWEST_IOU])


class UnpackedMasks(Masks):
    """The same cells, a byte each: what packing is measured against."""

    def __init__(self, index: Index, grid: int):
        super().__init__(index, grid)
        every = keep_packed(index, grid).get(np.arange(len(index.regions)))
        self._cells = _unpack(every)

    def of_parts(self, parts: list[Part]) -> np.ndarray:
        """Return the masks of (m,) parts of a query, (m, cells) bool."""
        return _unpack(super().of_parts(parts))

    def overlap_regions(self, asked: np.ndarray, regions: np.ndarray) -> np.ndarray:
        """Return the IoU of m masks and (r,) regions, (m, r) float64."""
        blocks = np.array_split(regions, -(-len(regions) // BLOCK))
        return np.hstack([self._lay_over(asked, self._cells[block]) for block in blocks])

    def _lay_over(self, asked: np.ndarray, cells: np.ndarray) -> np.ndarray:
        shared = np.stack([np.count_nonzero(one & cells, axis=1) for one in asked])
        union = np.stack([np.count_nonzero(one | cells, axis=1) for one in asked])
        return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def _unpack(packed: np.ndarray) -> np.ndarray:
    return np.unpackbits(packed.view(np.uint8), axis=1).astype(bool)


def _list_encoded(index: Index) -> list[dict]:
    return [{"size": list(IMAGE_SIZE), "counts": counts} for counts in index.regions["rle"]]


# Matching


def _time_matching(drawn: tuple[np.ndarray, QueryVectors], rounds: int) -> dict[str, Any]:
    similarity, probes = drawn
    counts = np.full(similarity.shape[1], similarity.shape[2])
    sides = {
        "one by one": partial(match_one_by_one, similarity, probes.weights),
        "at once": partial(choose_regions, similarity, counts, probes),
    }
    if not np.array_equal(sides["one by one"](), sides["at once"]()[1]):
        raise RuntimeError("regions are matched differently one by one and at once")
    first = np.sort(similarity.argmax(axis=2), axis=0)
    times = time_interleaved(sides, rounds)
    return {
        "ratio_matching": summarise_measure(np.divide(times["one by one"], times["at once"])),
        "milliseconds_matching": summarise_measure(1000 * np.array(times["at once"])),
        "shared": round(float((first[1:] == first[:-1]).any(axis=0).mean()), 3),
    }


def match_one_by_one(similarity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Match (m, c, r) similarities by one assignment an image, (m, c)."""
    images = range(similarity.shape[1])
    return np.stack([match_parts(similarity[:, image], weights) for image in images], axis=1)


# What is measured


def draw_index(images: int, regions: int, width: int, seed: int) -> Index:
    """Draw an index of random vectors, with ellipses for regions, as many in each image."""
    rng = np.random.default_rng(seed)
    drawn = [Region(mask) for mask in sample_regions(SHAPES, seed)[1] if mask.any()]
    shown = [drawn[i] for i in rng.integers(0, len(drawn), images * regions)]
    names = [f"image {i}" for i in range(images)]
    table = pd.DataFrame([region.box for region in shown], columns=["x0", "y0", "x1", "y1"])
    return Index(
        folder=Path("drawn"),
        manifest={"collection": "drawn", "model": {"model": "none"}},
        root=Path("drawn"),
        images=pd.DataFrame({
            "image_id": names, "path": names, "height": IMAGE_SIZE[0], "width": IMAGE_SIZE[1]
        }),
        vectors=_draw_units(rng, images, width),
        failures=pd.DataFrame(),
        regions=table.assign(
            row=np.repeat(np.arange(images), regions),
            region_id=[f"region {i}" for i in range(len(shown))],
            rle=[region.rle["counts"] for region in shown],
        ),
        region_vectors=_draw_units(rng, images * regions, width),
    )  # fmt: skip


def draw_query(width: int, seed: int) -> Query:
    """Draw a query of one part, with an ellipse in the middle."""
    y, x = np.indices(IMAGE_SIZE) / np.reshape(IMAGE_SIZE, (2, 1, 1)) - 0.5
    region = Region((y / 0.3) ** 2 + (x / 0.2) ** 2 <= 1)
    box = region.box / np.tile(IMAGE_SIZE[::-1], 2)
    vector = _draw_units(np.random.default_rng(seed + 1), width)
    return Query([Part(vector, box, rle=region.rle)])


def draw_similarity(
    images: int, regions: int, parts: int, width: int, seed: int
) -> tuple[np.ndarray, QueryVectors]:
    """Draw (parts, images, regions) float32 cosines of parts that are much alike, and these."""
    rng = np.random.default_rng(seed + 2)
    vectors = _draw_units(rng, parts + 1, width)
    alike = vectors[:1] + vectors[1:]
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    weights = rng.uniform(0.5, 2, parts)
    query = Query([Part(v, weight=w) for v, w in zip(alike, weights, strict=True)])
    similarity = alike @ _draw_units(rng, images * regions, width).T
    return similarity.reshape(parts, images, regions), make_query_vectors(query, "match")


def _draw_units(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
