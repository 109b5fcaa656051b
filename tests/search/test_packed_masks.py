"""Masks as bits, against the masks drawn in full; and the Ranking Optimization Layer by them."""

import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.bench.searching import sample_regions
from regionlab.data.masks import _decode_runs, decode_runs, mask_to_rle
from regionlab.index.index import Index
from regionlab.index.tables import IndexFolderError
from regionlab.models.segmenter import Region
from regionlab.search import rol as packed_masks
from regionlab.search.query import Part, Query, part_from_region
from regionlab.search.regions import search_regions
from regionlab.search.rol import PackedMasks, keep_packed, pack_mask, pack_rles, packed_iou
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


def encode(masks):
    heights, widths = np.array([mask.shape for mask in masks]).T
    return [mask_to_rle(mask)["counts"] for mask in masks], heights, widths


def resize_slowly(mask, grid):
    """Which cells have their centre inside, (grid, grid) bool in rows."""
    height, width = mask.shape
    cells = np.zeros((grid, grid), bool)
    for i in range(grid):
        for j in range(grid):
            cells[i, j] = mask[int((i + 0.5) * height / grid), int((j + 0.5) * width / grid)]
    return cells


def unpack(words, grid):
    return np.unpackbits(words.view(np.uint8)).reshape(grid, grid).T.astype(bool)


# Runs


def test_runs_are_those_read_one_by_one():
    rng = np.random.default_rng(0)
    counts, *_ = encode([draw_mask(rng, *rng.integers(1, 40, 2)) for _ in range(60)])
    counts += ["", counts[0], "0", ""]
    runs, lengths = decode_runs(counts)
    expected = [_decode_runs(text) for text in counts]
    assert lengths.tolist() == list(map(len, expected))
    assert runs.tolist() == sum(expected, [])
    assert [part.tolist() for part in decode_runs([])] == [[], []]


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        ("no letter of the code", ["04", "0 4"]),
        ("no letter of the code", ["04", "0\u00e9"]),
        ("no letter of the code", ["04", "0\x7f"]),
        ("end in the middle of a number", ["04", "0o", "04"]),
        ("a number of 13 letters", ["04", "o" * 12 + "0"]),
        ("must be a whole number of pixels, not -1", ["04", "O"]),
    ],
)
def test_what_are_no_runs_is_refused(message, counts):
    with pytest.raises(ValueError, match=message):
        decode_runs(counts)


# Packing


@pytest.mark.parametrize("grid", [8, 16, 32])
def test_a_packed_mask_is_the_mask_at_the_centres_of_the_cells(grid):
    rng = np.random.default_rng(grid)
    masks = [draw_mask(rng, *rng.integers(1, 90, 2)) for _ in range(150)]
    packed = pack_rles(*encode(masks), grid)
    for words, mask in zip(packed, masks, strict=True):
        np.testing.assert_array_equal(words, pack_mask(mask, grid))
        cells = resize_slowly(mask, grid)
        if cells.any():
            np.testing.assert_array_equal(unpack(words, grid), cells)
        else:
            assert unpack(words, grid).sum() == 1


def test_a_mask_between_the_centres_gets_the_cell_of_its_middle_pixel():
    mask = np.zeros((80, 160), bool)
    mask[70, 30:35] = True  # cells of 10 x 20 pixels, centres at (5, 10)
    for words in (pack_mask(mask, 8), pack_rles(*encode([mask]), 8)[0]):
        assert np.argwhere(unpack(words, 8)).tolist() == [[7, 32 // 20]]


def test_masks_are_packed_alike_whatever_the_chunk(monkeypatch):
    rng = np.random.default_rng(1)
    masks = [draw_mask(rng, 40, 50) for _ in range(23)]
    at_once = pack_rles(*encode(masks), 16)
    monkeypatch.setattr(packed_masks, "CHUNK", 5)
    np.testing.assert_array_equal(pack_rles(*encode(masks), 16), at_once)
    assert pack_rles([], np.array([], int), np.array([], int), 16).shape == (0, 4)


def test_runs_that_do_not_fill_their_image_are_refused():
    counts, heights, widths = encode([np.ones((5, 6), bool)] * 2)
    for bad in ("08", ""):
        with pytest.raises(ValueError, match="RLE runs cover (8|0) pixels, not 5 x 6"):
            pack_rles([counts[0], bad], heights, widths, 8)


# Overlap


def test_iou_is_that_of_the_cells():
    rng = np.random.default_rng(2)
    masks = [draw_mask(rng, 60, 70) for _ in range(30)]
    packed = pack_rles(*encode(masks), 16)
    cells = np.stack([unpack(words, 16) for words in packed]).reshape(30, -1)
    shared = (cells[:4, None] & cells).sum(axis=2)
    expected = shared / (cells[:4, None] | cells).sum(axis=2)
    np.testing.assert_allclose(packed_iou(packed[:4], packed), expected)
    np.testing.assert_array_equal(packed_iou(packed, packed).diagonal(), 1)


def test_nothing_overlaps_with_nothing():
    empty, full = np.zeros((1, 16), np.uint64), ~np.zeros((1, 16), np.uint64)
    assert packed_iou(empty, np.vstack([empty, full])).tolist() == [[0, 0]]
    assert packed_iou(full, np.vstack([empty, full])).tolist() == [[0, 1]]


@pytest.mark.parametrize(("grid", "typical", "largest"), [(32, 0.035, 0.15), (64, 0.015, 0.08)])
def test_iou_is_near_that_of_the_pixels(grid, typical, largest):
    # Ellipses of 3 to 30 percent of the image's sides, each with a shifted one.
    _, masks = sample_regions(60, 3)
    shifted = [np.roll(mask, (mask.any(axis=1).sum() // 5, 3), (0, 1)) for mask in masks]
    exact = [(a & b).sum() / (a | b).sum() for a, b in zip(masks, shifted, strict=True)]
    found = packed_iou(pack_rles(*encode(masks), grid), pack_rles(*encode(shifted), grid))
    error = np.abs(found.diagonal() - exact)
    assert 0 < error.mean() < typical and error.max() < largest


# The masks of an index


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


@pytest.fixture
def packings(monkeypatch):
    """How many masks were packed at each time."""
    sizes, original = [], packed_masks.pack_rles

    def watch(counts, *args):
        sizes.append(len(counts))
        return original(counts, *args)

    monkeypatch.setattr(packed_masks, "pack_rles", watch)
    return sizes


def pack_all(index, grid):
    return np.stack([pack_mask(index.region_mask(i), grid) for i in range(len(index.regions))])


def test_masks_are_packed_when_asked_for_and_once(index, packings):
    packed, expected = PackedMasks(index, 16), pack_all(index, 16)
    rows = np.array([3, 1, 3, 8])
    np.testing.assert_array_equal(packed.get(rows), expected[rows])
    assert packings == [3]
    rows = np.array([8, 0, 1])
    np.testing.assert_array_equal(packed.get(rows), expected[rows])
    assert packings == [3, 1]
    every = np.arange(len(expected))
    np.testing.assert_array_equal(packed.get(every), expected)
    np.testing.assert_array_equal(packed.get(every), expected)
    assert sum(packings) == len(expected)


def test_no_region_has_an_empty_mask(index, packings):
    packed = PackedMasks(index, 16)
    found = packed.get(np.array([-1, 2, -1]))
    np.testing.assert_array_equal(found[1], pack_all(index, 16)[2])
    assert not found[[0, 2]].any()
    assert packings == [1]
    assert packed.get(np.array([], int)).shape == (0, 4)


@pytest.mark.parametrize("masks", [0, 1, 5])
def test_no_more_masks_are_kept_than_the_limit_allows(index, packings, masks):
    bytes_of_one = 16 * 16 // 8
    packed, expected = PackedMasks(index, 16, limit=masks * bytes_of_one), pack_all(index, 16)
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = rng.integers(-1, len(expected), rng.integers(0, 9))
        found = packed.get(rows)
        np.testing.assert_array_equal(found[rows >= 0], expected[rows[rows >= 0]])
        assert not found[rows < 0].any()
    assert packed._kept.nbytes <= (max(masks, 1) + 1) * bytes_of_one
    assert max(packings) <= max(masks, 1)


def test_an_index_keeps_its_masks_as_long_as_it_is_in_use(index):
    assert keep_packed(index, 16) is keep_packed(index, 16)
    assert keep_packed(index, 16) is not keep_packed(index, 8)
    other = replace(index)
    assert keep_packed(other, 16) is not keep_packed(index, 16)
    gone = weakref.ref(keep_packed(other, 16))
    del other
    gc.collect()
    assert gone() is None


def test_several_threads_may_ask_at_once(index):
    packed, expected = PackedMasks(index, 16, limit=6 * 32), pack_all(index, 16)
    wrong = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(100):
            rows = rng.integers(0, len(expected), 5)
            if (packed.get(rows) != expected[rows]).any():
                wrong.append(rows)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_without_regions_has_no_masks(index):
    with pytest.raises(IndexFolderError, match="has no regions: add them"):
        PackedMasks(replace(index, regions=None), 16)


# The Ranking Optimization Layer


def overlap_slowly(index, query, row, matched, rol):
    value = total = 0
    for part, region in zip(query.parts, matched, strict=False):
        if part.weight < 0 or part.box is None:
            continue
        of_row = range(len(index.regions))[index.regions_of(row)]
        regions = {"similar": [region] if region >= 0 else [], "overlap": of_row}
        asked = resize_slowly(part.mask, rol.grid)
        if rol.region == "whole":
            cells = [np.ones_like(asked)]
        else:
            cells = [resize_slowly(index.region_mask(i), rol.grid) for i in regions[rol.region]]
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
    rol = Rol(0.7, 0.4, region=region, candidates=8, overlap="mask", grid=16)
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
    np.testing.assert_allclose(by_mask.terms["iou"][0], [1, 1 / 3], atol=0.03)


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


def test_whole_images_need_no_regions(index):
    bare = replace(index, regions=None, region_vectors=None)
    mask = np.zeros((16, 16), bool)
    mask[:4] = True
    query = Query([Part(index.vectors[0], (0, 0, 1, 0.25), rle=mask_to_rle(mask))])
    rol = Rol(1, 1, overlap="mask", region="whole")
    ranking = search_regions(bare, query, against="images", rol=rol, k=12)
    np.testing.assert_allclose(ranking.terms["iou"], 1 / 4)
