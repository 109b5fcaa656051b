"""The benchmark of re-ranking and matching: both sides of each ratio do the same work."""

import numpy as np
import pytest

from regionlab.bench import rerank as bench_rerank
from regionlab.bench.rerank import (
    UnpackedMasks,
    draw_index,
    draw_query,
    draw_similarity,
    match_one_by_one,
    measure_rerank,
)
from regionlab.bench.searching import IMAGE_SIZE
from regionlab.data.masks import rle_to_mask
from regionlab.search.regions import search_regions
from regionlab.search.rol import Masks
from regionlab.search.scoring import Rol

SMALL = {"candidates": 6, "regions": 3, "width": 8}


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    monkeypatch.setattr(bench_rerank, "SHAPES", 8)


def check_measure(measure, n):
    low, high = measure["range"]
    assert 0 < low <= measure["value"] <= high
    assert measure["n"] == n


def test_every_side_is_measured():
    measured = measure_rerank(**SMALL, grid=16, parts=2, rounds=3)
    timed = [name for name in measured if name.startswith(("milliseconds", "ratio_"))]
    assert set(timed) == {
        "milliseconds", "milliseconds_boxes", "milliseconds_unpacked", "milliseconds_coco",
        "milliseconds_search", "milliseconds_first", "milliseconds_matching",
        "ratio_vs_unpacked", "ratio_vs_coco", "ratio_matching",
    }  # fmt: skip
    for name in timed:
        check_measure(measured[name], 3)
    assert measured["iou_error"]["pairs"] > 0
    assert 0 < measured["iou_error"]["mean"] <= measured["iou_error"]["p95"] < 0.5
    assert (measured["candidates"], measured["regions"], measured["grid"]) == (6, 3, 16)
    assert 0 <= measured["shared"] <= 1
    assert measured["device"]


def test_above_1_ours_is_faster(monkeypatch):
    def time_interleaved(sides, rounds):
        seconds = {"masks": 0.002, "at once": 0.001, "one by one": 0.005, "unpacked": 0.03}
        return {name: [seconds.get(name, 0.1)] * rounds for name in sides}

    monkeypatch.setattr(bench_rerank, "time_interleaved", time_interleaved)
    measured = measure_rerank(**SMALL, rounds=2)
    assert measured["milliseconds"] == {"value": 2, "range": [2, 2], "n": 2}
    assert measured["milliseconds_unpacked"]["value"] == 30
    assert measured["ratio_vs_unpacked"]["value"] == 15
    assert measured["ratio_vs_coco"]["value"] == 50
    assert measured["ratio_matching"]["value"] == 5


def test_the_error_is_that_against_the_pixels():
    measured = measure_rerank(**SMALL, grid=16, rounds=1, seed=2)
    index, query = draw_index(6, 3, 8, 2), draw_query(8, 2)
    asked = rle_to_mask(query.parts[0].rle)
    masks = [index.region_mask(i) for i in range(18)]
    exact = np.array([(asked & mask).sum() / (asked | mask).sum() for mask in masks])
    ours = Masks(index, 16)
    found = ours.overlap_regions(ours.of_parts(query.parts), np.arange(18))[0]
    errors = np.abs(found - exact)[exact >= 0.1]
    assert measured["iou_error"]["pairs"] == len(errors)
    assert measured["iou_error"]["mean"] == pytest.approx(errors.mean(), abs=1e-4)


def test_unpacked_masks_overlap_as_packed_ones(monkeypatch):
    monkeypatch.setattr(bench_rerank, "BLOCK", 5)
    index, query = draw_index(6, 3, 8, 0), draw_query(8, 0)
    packed, unpacked = Masks(index, 16), UnpackedMasks(index, 16)
    regions = np.array([3, 17, 0, 3, 9, 12, 1])
    found = [
        side.overlap_regions(side.of_parts(query.parts), regions) for side in (packed, unpacked)
    ]
    np.testing.assert_array_equal(*found)
    assert found[0].max() > 0


def test_sides_that_differ_are_no_benchmark(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(UnpackedMasks, "_lay_over", lambda self, a, b: np.ones((len(a), len(b))))
        with pytest.raises(RuntimeError, match="packed and unpacked masks rank differently"):
            measure_rerank(**SMALL, rounds=1)
    wrong = lambda similarity, weights: np.zeros(similarity.shape[:2], int)  # noqa: E731
    monkeypatch.setattr(bench_rerank, "match_one_by_one", wrong)
    with pytest.raises(RuntimeError, match="matched differently one by one and at once"):
        measure_rerank(**SMALL, rounds=1)


def test_the_parts_often_share_their_best_region():
    similarity, probes = draw_similarity(200, 20, 3, 64, 0)
    assert similarity.shape == (3, 200, 20) and similarity.dtype == np.float32
    matched = match_one_by_one(similarity, probes.weights)
    best = similarity.argmax(axis=2)
    assert 0.2 < (matched != best).any(axis=0).mean() < 0.9
    assert all(len(set(regions)) == 3 for regions in matched.T)


def test_what_is_drawn_can_be_searched_and_is_of_the_seed():
    index, query = draw_index(6, 3, 8, 0), draw_query(8, 0)
    ranking = search_regions(index, query, k=6, rol=Rol(1, 1, overlap="mask"))
    assert sorted(ranking.rows[0]) == list(range(6))
    assert index.region_mask(4).shape == IMAGE_SIZE
    again, other = draw_index(6, 3, 8, 0), draw_index(6, 3, 8, 1)
    np.testing.assert_array_equal(index.region_vectors, again.region_vectors)
    assert index.regions.equals(again.regions)
    assert (index.region_vectors != other.region_vectors).any()
