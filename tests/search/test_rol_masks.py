"""The Ranking Optimization Layer by masks, against masks drawn in full."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.data.masks import mask_to_rle
from regionlab.index.index import Index
from regionlab.index.tables import IndexFolderError
from regionlab.models.segmenter import Region
from regionlab.search.query import Part, Query, part_from_region
from regionlab.search.regions import search_regions
from regionlab.search.scoring import Rol


def draw_mask(rng, height, width):
    """A blob of an ellipse, or noise, or a few pixels."""
    y, x = np.indices((height, width))
    (cy, ry), (cx, rx) = rng.uniform(0, 1, (2, 2)) * np.array([[height], [width]])
    mask = ((y - cy) / (ry / 2 + 1)) ** 2 + ((x - cx) / (rx / 2 + 1)) ** 2 <= 1
    kind = rng.integers(3)
    if kind:
        mask = rng.random((height, width)) < (0.5 if kind == 1 else 2 / (height * width))
    mask.flat[rng.integers(mask.size)] = True
    return mask


def resize_slowly(mask, size):
    """A mask in another size, pixel by pixel."""
    resized = np.zeros(size, bool)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (i + 0.5) * mask.shape[0] / size[0], (j + 0.5) * mask.shape[1] / size[1]
            resized[i, j] = mask[int(y), int(x)]
    return resized


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_index(masks, seed=0, d=4):
    """An index of images, each with a list of masks of its size, and random vectors."""
    rng = np.random.default_rng(seed)
    sizes = [one[0].shape if one else (20, 30) for one in masks]
    rows = np.repeat(np.arange(len(masks)), [len(one) for one in masks])
    names = [f"image {i}" for i in range(len(masks))]
    regions = [Region(mask) for one in masks for mask in one]
    table = pd.DataFrame([r.box for r in regions], columns=["x0", "y0", "x1", "y1"])
    return Index(
        Path("index"),
        {"collection": "hand-made", "model": {"model": "none"}},
        Path("photos"),
        pd.DataFrame(sizes, columns=["height", "width"]).assign(image_id=names, path=names),
        unit(rng, len(masks), d),
        pd.DataFrame(),
        table.assign(
            row=rows,
            region_id=[f"region {i}" for i in range(len(rows))],
            rle=[region.rle["counts"] for region in regions],
        ),
        unit(rng, len(rows), d),
    )


@pytest.fixture
def index():
    rng = np.random.default_rng(4)
    sizes = rng.integers(10, 60, (12, 2))
    return make_index([[draw_mask(rng, *size) for _ in range(rng.integers(5))] for size in sizes])


def overlap_slowly(index, query, row, matched, rol):
    value = total = 0
    for part, region in zip(query.parts, matched, strict=False):
        if part.weight < 0 or part.box is None:
            continue
        of_row = range(len(index.regions))[index.regions_of(row)]
        regions = {"similar": [region] if region >= 0 else [], "overlap": of_row}
        asked = part.mask
        if rol.region == "whole":
            cells = [np.ones_like(asked)]
        else:
            cells = [resize_slowly(index.region_mask(i), asked.shape) for i in regions[rol.region]]
        ious = [(asked & one).sum() / (asked | one).sum() for one in cells]
        value += part.weight * max(ious, default=0)
        total += part.weight
    return value / total


class MaskedPart(Part):
    """A part that remembers its mask, for the slow way."""

    def __init__(self, mask, vector, weight, box=(0, 0, 1, 1)):
        super().__init__(vector, box, weight, rle=mask_to_rle(mask))
        object.__setattr__(self, "mask", mask)


def draw_blob(rng, height, width):
    """A mask that holds a cell's centre."""
    y0, x0 = rng.integers(0, (height // 2, width // 2))
    mask = np.zeros((height, width), bool)
    mask[y0 : y0 + height // 2, x0 : x0 + width // 3] = True
    return mask


def worlds(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 60, (14, 2))
    masks = [[draw_blob(rng, *size) for _ in range(rng.integers(5))] for size in sizes]
    parts = [
        MaskedPart(draw_blob(rng, 30 + i, 40), unit(rng, 4), weight)
        for i, weight in enumerate((1, 3, -1, 2))
    ]
    parts.append(MaskedPart(np.ones((3, 3), bool), unit(rng, 4), 5, box=None))
    return make_index(masks, seed), [Query(parts[:1]), Query(parts[1:]), Query(parts)]


@pytest.mark.parametrize("region", ["similar", "overlap", "whole"])
@pytest.mark.parametrize("seed", range(2))
def test_rol_by_masks_is_that_of_brute_force(region, seed):
    index, queries = worlds(seed)
    rol = Rol(0.7, 0.4, region=region, candidates=8, overlap="mask")
    plain = search_regions(index, queries, k=14)
    ranking = search_regions(index, queries, k=14, rol=rol)
    for i, query in enumerate(queries):
        overlaps = [
            overlap_slowly(index, query, row, plain.regions[i, j], rol) if j < 8 else 0
            for j, row in enumerate(plain.rows[i])
        ]
        scores = 0.7 * plain.scores[i] + 0.4 * np.array(overlaps)
        order = np.argsort(-scores.round(6), kind="stable")
        assert ranking.rows[i].tolist() == plain.rows[i][order].tolist()
        np.testing.assert_allclose(ranking.scores[i], scores[order], atol=1e-6)
        np.testing.assert_allclose(ranking.terms["iou"][i], 0.4 * np.array(overlaps)[order])
    assert len(set(ranking.terms["iou"].ravel())) > 3


def test_masks_tell_regions_apart_that_fill_the_same_box():
    triangle = np.tri(40, dtype=bool)
    index = make_index([[triangle[::-1].copy()], [triangle]])
    index = replace(index, region_vectors=np.tile(unit(np.random.default_rng(0), 4), (2, 1)))
    query = Query([Part(index.region_vectors[0], (0, 0, 1, 1), rle=mask_to_rle(triangle))])
    by_box = search_regions(index, query, rol=Rol(1, 1))
    assert by_box.terms["iou"].tolist() == [[1, 1]]
    by_mask = search_regions(index, query, rol=Rol(1, 1, overlap="mask"))
    assert by_mask.rows.tolist() == [[1, 0]]
    shared, either = (triangle & triangle[::-1]).sum(), (triangle | triangle[::-1]).sum()
    np.testing.assert_allclose(by_mask.terms["iou"][0], [1, shared / either])


def test_parts_of_pictures_bring_their_masks(encoder):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), draw_blob(rng, 30, 40)
    part = part_from_region(encoder, image, Region(mask), encoding="erase")
    assert part.rle == mask_to_rle(mask)
    index = make_index([[mask], [~mask]], d=len(part.vector))
    ranking = search_regions(index, Query([part]), rol=Rol(0, 1, overlap="mask"))
    assert ranking.rows.tolist() == [[0, 1]]
    assert ranking.scores.tolist() == [[1, 0]]


def test_a_part_of_no_mask_is_named(index):
    query = Query([Part(unit(np.random.default_rng(0), 4), (0, 0, 1, 1))], "lamp")
    with pytest.raises(ValueError, match="query lamp has a box without `rle`.*part_from_region"):
        search_regions(index, query, rol=Rol(1, 1, overlap="mask"))


def test_masks_of_regions_need_regions(index):
    query = Query([Part(index.vectors[0], (0, 0, 1, 1), rle=mask_to_rle(np.ones((2, 2), bool)))])
    with pytest.raises(IndexFolderError, match="has no regions: add them"):
        search_regions(replace(index, regions=None), query, rol=Rol(1, 1, overlap="mask"))


def test_whole_images_need_no_regions(index):
    bare = replace(index, regions=None, region_vectors=None)
    mask = np.zeros((16, 16), bool)
    mask[:4] = True
    query = Query([Part(index.vectors[0], (0, 0, 1, 0.25), rle=mask_to_rle(mask))])
    rol = Rol(1, 1, overlap="mask", region="whole")
    ranking = search_regions(bare, query, target="images", rol=rol, k=12)
    np.testing.assert_allclose(ranking.terms["iou"], 1 / 4)
