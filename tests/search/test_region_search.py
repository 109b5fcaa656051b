"""Images found by their regions, target brute force and numbers worked by hand."""

import tracemalloc
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.index.index import Index
from regionlab.index.tables import IndexFolderError
from regionlab.metrics.ranking import measure_ranking
from regionlab.models.segmenter import Region
from regionlab.regions.encodings import encode_regions
from regionlab.search import regions as region_gallery
from regionlab.search.exact import ROUNDING
from regionlab.search.query import (
    Part,
    Query,
    make_query_vectors,
    part_from_region,
    part_from_words,
)
from regionlab.search.regions import RegionGallery, search_regions
from regionlab.search.scoring import UNMATCHED, Rol, box_iou

WAYS = list(product(["regions", "images", "both"], ["match", "mean"]))
RT2 = np.sqrt(2)
ROOM = [0, 0, 1, 1]
CHAIR, TABLE = (1, 0), (0, 1)


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_index(regions, *, images=None, boxes=None, sizes=None):
    """An index of images, each with a list of region vectors, and of boxes in pixels."""
    n, d = len(regions), max(np.shape(one)[-1] for one in regions if len(one))
    counts = [len(one) for one in regions]
    rows = np.repeat(np.arange(n), counts)
    boxes = [ROOM] * len(rows) if boxes is None else [box for one in boxes for box in one]
    sizes = [(10, 20)] * n if sizes is None else sizes
    names = [f"image {i}" for i in range(n)]
    return Index(
        Path("index"),
        {"collection": "hand-made", "model": {"model": "none"}},
        Path("photos"),
        pd.DataFrame({
            "image_id": names,
            "path": [f"{name}.png" for name in names],
            "height": [height for height, _ in sizes],
            "width": [width for _, width in sizes],
        }),
        np.tile(np.eye(1, d, dtype=np.float32), (n, 1)) if images is None else np.float32(images),
        pd.DataFrame(),
        pd.DataFrame(np.reshape(boxes, (-1, 4)), columns=["x0", "y0", "x1", "y1"]).assign(
            region_id=[f"region {i}" for i in range(len(rows))], row=rows
        ),
        np.concatenate([np.reshape(one, (-1, d)) for one in regions]).astype(np.float32),
    )  # fmt: skip


def world(seed, n=16, d=5):
    """An index of random images and regions, some without any, and queries of 1 to 5 parts."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, n)
    corners = [np.sort(rng.uniform(0, 10, (c, 2, 2)), axis=1).reshape(-1, 4) for c in counts]
    sizes = rng.integers(10, 30, (n, 2))
    regions = [unit(rng, c, d) for c in counts]
    index = make_index(regions, images=unit(rng, n, d), boxes=corners, sizes=sizes)
    queries = [random_query(rng, wanted=1 + i % 3, unwanted=i % 2 + i // 3 % 2, d=d)
               for i in range(6)]  # fmt: skip
    return index, queries


def random_query(rng, *, wanted, unwanted, d):
    weights = [*rng.uniform(0.2, 2, wanted), *-rng.uniform(0.2, 2, unwanted)]
    corners = np.sort(rng.uniform(0, 1, (len(weights), 2, 2)), axis=1).reshape(-1, 4)
    rng.integers(10, 30, 2)
    order = rng.permutation(len(weights))
    vectors = unit(rng, len(weights), d)
    return Query([Part(vectors[i], corners[i], weights[i]) for i in order])


# Brute force: every image by itself, every assignment of regions to parts


def score_slowly(index, query, row, target, aggregation, image_weight):
    vectors = np.float64(index.region_vectors)[index.regions_of(row)]
    whole = np.float64(index.vectors[row])
    wanted = [(p.vector.astype(float), p.weight) for p in query.parts if p.weight > 0]
    total = sum(weight for _, weight in wanted)
    without = 0.0
    share = {"images": 1, "regions": 0, "both": image_weight}[target]
    for part in query.parts:
        if part.weight < 0:
            best = max((v @ part.vector for v in vectors), default=1)
            value = share * (whole @ part.vector) + (1 - share) * best
            without -= abs(part.weight) / total * value
    if aggregation == "mean":
        mean = sum(weight * vector for vector, weight in wanted)
        wanted, total = [(mean / np.linalg.norm(mean), 1)], 1
    of_whole = sum(weight * (whole @ vector) for vector, weight in wanted) / total
    places = [*range(len(vectors)), *[None] * len(wanted)]
    of_regions = max(
        sum(weight * (UNMATCHED if place is None else vectors[place] @ vector)
            for (vector, weight), place in zip(wanted, way, strict=True)) / total
        for way in permutations(places, len(wanted))
    )  # fmt: skip
    return share * of_whole + (1 - share) * of_regions, without


@pytest.mark.parametrize(("target", "aggregation"), WAYS)
@pytest.mark.parametrize("seed", range(2))
def test_scores_and_order_are_those_of_brute_force(target, aggregation, seed):
    index, queries = world(seed)
    options = {"target": target, "aggregation": aggregation, "image_weight": 0.3}
    every = search_regions(index, queries, k=len(index), **options)
    for i, query in enumerate(queries):
        terms = np.array([
            score_slowly(index, query, row, target, aggregation, 0.3) for row in range(len(index))
        ])  # fmt: skip
        expected = terms.sum(axis=1)
        assert every.rows[i].tolist() == np.argsort(-expected.round(6), kind="stable").tolist()
        np.testing.assert_allclose(every.scores[i], expected[every.rows[i]], atol=1e-6)
        np.testing.assert_allclose(every.terms["similarity"][i], terms[every.rows[i], 0], atol=1e-6)
        np.testing.assert_allclose(every.terms["negative"][i], terms[every.rows[i], 1], atol=1e-6)
    for k in (1, 4):
        some = search_regions(index, queries, k=k, **options)
        np.testing.assert_array_equal(some.rows, every.rows[:, :k])
        np.testing.assert_array_equal(some.scores, every.scores[:, :k])
        np.testing.assert_array_equal(some.regions, every.regions[:, :k])


@pytest.mark.parametrize("seed", range(3))
def test_the_evidence_explains_the_score(seed):
    index, queries = world(seed)
    ranking = search_regions(index, queries, k=10)
    for i, j in product(range(len(queries)), range(10)):
        query, regions = queries[i], ranking.regions[i, j]
        assert (regions[len(query) :] == -1).all()
        own = [r for r, w in zip(regions, query.weights, strict=False) if w > 0 and r >= 0]
        assert len(set(own)) == len(own)
        total, value = query.weights[query.weights > 0].sum(), 0
        for part, region in zip(query.parts, regions, strict=False):
            worst = UNMATCHED if part.weight > 0 else 1
            cosine = worst if region < 0 else index.region_vectors[region] @ part.vector
            assert region < 0 or index.regions["row"][region] == ranking.rows[i, j]
            value += part.weight * cosine / total
        np.testing.assert_allclose(ranking.scores[i, j], value, atol=1e-6)


# Several objects, by hand


CHAIRS = [(24 / 25, 7 / 25), (4 / 5, 3 / 5)]
TWO = Query([Part(CHAIR, label="chair"), Part(TABLE, label="table")])


def test_two_chairs_answer_the_mean_of_a_chair_and_a_table_but_not_matching():
    index = make_index([CHAIRS, [TABLE, CHAIR]])
    mean = search_regions(index, TWO, aggregation="mean")
    assert mean.rows.tolist() == [[0, 1]]
    np.testing.assert_allclose(mean.scores, [[7 / 5 / RT2, 1 / RT2]], atol=1e-6)
    assert mean.regions.tolist() == [[[1, 1], [2, 2]]]
    match = search_regions(index, TWO, aggregation="match")
    assert match.rows.tolist() == [[1, 0]]
    np.testing.assert_allclose(match.scores, [[1, (24 / 25 + 3 / 5) / 2]], atol=1e-6)
    assert match.regions.tolist() == [[[3, 2], [0, 1]]]


def test_one_region_cannot_be_both_objects():
    index = make_index([[(4 / 5, 3 / 5)], [CHAIR, (0, -1)]])
    ranking = search_regions(index, TWO)
    assert ranking.rows.tolist() == [[1, 0]]
    np.testing.assert_allclose(ranking.scores, [[(1 - 1) / 2, (4 / 5 - 1) / 2]], atol=1e-6)
    assert ranking.regions.tolist() == [[[1, 2], [0, -1]]]


def test_a_further_region_never_makes_an_image_worse():
    rng = np.random.default_rng(5)
    regions = unit(rng, 6, 4)
    index = make_index([regions[:count] for count in range(7)])
    query = Query([Part(vector) for vector in unit(rng, 3, 4)])
    for target in ("regions", "both"):
        ranking = search_regions(index, query, target=target, k=7)
        by_count = ranking.scores[0][np.argsort(ranking.rows[0])]
        assert (np.diff(by_count) >= -1e-6).all()
        assert by_count[0] < by_count[-1]


def test_with_whole_images_mean_and_matching_rank_alike():
    index, queries = world(3)
    wanted = [Query([p for p in query.parts if p.weight > 0]) for query in queries]
    found = [
        search_regions(index, wanted, target="images", aggregation=s) for s in ("match", "mean")
    ]
    np.testing.assert_array_equal(found[0].rows, found[1].rows)


def test_both_is_between_regions_and_images():
    index, queries = world(4)
    for weight, target in ((0.0, "regions"), (1.0, "images")):
        both = search_regions(index, queries, target="both", image_weight=weight)
        one = search_regions(index, queries, target=target)
        np.testing.assert_array_equal(both.rows, one.rows)
        np.testing.assert_array_equal(both.scores, one.scores)


# Without that


def test_what_is_unwanted_is_taken_away_by_its_share():
    index = make_index([[CHAIR, TABLE], [CHAIR], [(4 / 5, 3 / 5)]])
    query = Query([Part(CHAIR, weight=2), Part(TABLE, weight=-1)])
    ranking = search_regions(index, query)
    assert ranking.rows.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(ranking.terms["similarity"], [[1, 1, 4 / 5]], atol=1e-6)
    np.testing.assert_allclose(ranking.terms["negative"], [[0, -1 / 2, -3 / 10]], atol=1e-6)
    assert ranking.regions.tolist() == [[[2, 2], [0, 1], [3, 3]]]


def test_an_image_without_regions_comes_last_even_when_something_is_unwanted():
    index = make_index([[], [TABLE], []])
    query = Query([Part(CHAIR), Part(TABLE, weight=-2)])
    ranking = search_regions(index, query)
    assert ranking.rows.tolist() == [[1, 0, 2]]
    assert ranking.scores.tolist() == [[-2, -3, -3]]
    assert ranking.regions.tolist() == [[[0, 0], [-1, -1], [-1, -1]]]


# Order, cut-off, own images


@pytest.mark.parametrize(("target", "aggregation"), WAYS)
def test_equal_images_come_in_the_order_of_the_index(target, aggregation):
    rng = np.random.default_rng(6)
    regions, image = unit(rng, 3, 37), unit(rng, 37)
    index = make_index([regions[[i % 3, (i + 1) % 3, i // 3 % 3]] for i in range(2)] * 30,
                       images=[image] * 60)  # fmt: skip
    query = Query([Part(vector) for vector in unit(rng, 2, 37)])
    ranking = search_regions(index, query, k=60, target=target, aggregation=aggregation)
    assert len(set(ranking.scores[0])) <= 2
    for score in set(ranking.scores[0]):
        assert (np.diff(ranking.rows[0][ranking.scores[0] == score]) > 0).all()


@pytest.mark.parametrize("rol", [None, Rol(1, 1, region="whole")])
def test_images_whose_scores_differ_by_less_than_is_shown_count_as_equal(rol):
    x = np.float32(0.6) + np.spacing(np.float32(0.6)) * np.random.default_rng(0).integers(0, 9, 40)
    index = make_index([CHAIRS] * 40, images=np.stack([x, np.full(40, 0.8)], axis=1))
    query = Query([Part(CHAIR, ROOM), Part(TABLE, ROOM, 20)])
    ranking = search_regions(index, query, k=40, target="images", rol=rol)
    assert len(set(ranking.scores[0])) < len(set(x))
    for score in set(ranking.scores[0]):
        assert (np.diff(ranking.rows[0][ranking.scores[0] == score]) > 0).all()


def test_a_query_scores_the_same_alone_and_among_others():
    index, queries = world(7)
    together = search_regions(index, queries)
    for i, query in enumerate(queries):
        alone = search_regions(index, query)
        np.testing.assert_array_equal(alone.rows[0], together.rows[i])
        np.testing.assert_array_equal(alone.scores[0], together.scores[i])
        np.testing.assert_array_equal(alone.regions[0], together.regions[i, :, : len(query)])


@pytest.mark.parametrize(("target", "aggregation"), WAYS)
def test_the_querys_own_image_is_left_out_on_request(target, aggregation):
    index, queries = world(8)
    options = {"target": target, "aggregation": aggregation, "k": 100}
    every = search_regions(index, queries[:2], **options)
    own = [every.rows[0, 0], -1]
    ranking = search_regions(index, queries[:2], **options, exclude=own)
    assert ranking.excluded.tolist() == own
    assert ranking.rows[0].tolist() == [*every.rows[0, 1:], -1]
    assert ranking.rows[1].tolist() == every.rows[1].tolist()
    assert ranking.scores[0, -1] == -np.inf
    assert (ranking.regions[0, -1] == -1).all()
    np.testing.assert_allclose(sum(ranking.terms.values()), ranking.scores, atol=1e-6)
    assert len(ranking.table()) == len(index) - 1


def test_the_whole_ranking_can_be_measured():
    index, queries = world(9)
    exclude = np.arange(len(queries))
    relevance = np.random.default_rng(0).random((len(queries), len(index))) < 0.3
    for rol in (None, Rol(0.3, 0.7, candidates=6)):
        ranking = search_regions(index, queries, k=len(index), exclude=exclude, rol=rol)
        measured = measure_ranking(ranking, relevance)
        assert np.isfinite(measured["mAP"]).all()
        np.testing.assert_array_equal(measured["top1_similarity"], ranking.scores[:, 0])


# The Ranking Optimization Layer


LEFT, RIGHT = (0, 0, 10, 10), (10, 0, 20, 10)
PLACES = {"images": [(3 / 5, 4 / 5), (4 / 5, 3 / 5), CHAIR],
          "boxes": [[LEFT, RIGHT], [LEFT], [RIGHT]]}  # fmt: skip
IN_PLACES = [[CHAIR, TABLE], [(24 / 25, 7 / 25)], [(4 / 5, 3 / 5)]]
CHAIR_ON_THE_RIGHT = Query([Part(CHAIR, (0.5, 0, 1, 1))])


def search_places(**options):
    return search_regions(make_index(IN_PLACES, **PLACES), CHAIR_ON_THE_RIGHT, **options)


@pytest.mark.parametrize(
    ("region", "overlaps"),
    [("similar", [0, 0, 1]), ("overlap", [1, 0, 1]), ("whole", [1 / 2, 1 / 2, 1 / 2])],
)
def test_rol_adds_the_overlap_with_the_region_that_stands_for_the_image(region, overlaps):
    ranking = search_places(rol=Rol(1, 1 / 2, region=region))
    expected = np.array([1, 24 / 25, 4 / 5]) + np.array(overlaps) / 2
    order = np.argsort(-expected, kind="stable")
    assert ranking.rows[0].tolist() == order.tolist()
    np.testing.assert_allclose(ranking.scores[0], expected[order], atol=1e-6)
    np.testing.assert_allclose(ranking.terms["iou"][0], np.array(overlaps)[order] / 2)


@pytest.mark.parametrize(
    ("region", "rows", "overlaps", "matched"),
    [
        ("similar", [2, 1, 0], [1, 0, 0], [3, 2, 0]),
        ("overlap", [2, 0, 1], [1, 1, 0], [3, 0, 2]),
        ("whole", [2, 1, 0], [1 / 2] * 3, [-1] * 3),
    ],
)
def test_rol_goes_with_the_papers_search_of_whole_images(region, rows, overlaps, matched):
    ranking = search_places(target="images", rol=Rol(1 / 2, 1 / 2, region=region))
    assert ranking.rows[0].tolist() == rows
    np.testing.assert_allclose(
        ranking.terms["similarity"][0], np.array([3 / 5, 4 / 5, 1])[rows] / 2, atol=1e-6
    )
    np.testing.assert_allclose(ranking.terms["iou"][0], np.array(overlaps) / 2)
    assert ranking.regions[0, :, 0].tolist() == matched


def test_images_of_different_sizes_are_stretched_to_the_same_frame():
    index = make_index([[CHAIR], [CHAIR]], boxes=[[(0, 0, 10, 10)], [(0, 0, 20, 20)]],
                       sizes=[(10, 20), (40, 40)])  # fmt: skip
    query = Query([Part(CHAIR, (0, 0, 0.5, 1))])  # its left half
    for region, overlaps in {"similar": [1, 1 / 2], "whole": [1 / 2, 1 / 2]}.items():
        ranking = search_regions(index, query, rol=Rol(1, 1, region=region))
        found = ranking.terms["iou"][0][np.argsort(ranking.rows[0])]
        np.testing.assert_allclose(found, overlaps, err_msg=region)


def test_several_parts_overlap_each_with_its_own_region_by_weight():
    index = make_index([[CHAIR, TABLE, TABLE]], boxes=[[LEFT, RIGHT, LEFT]])
    left, right = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
    parts = [Part(CHAIR, left, 1), Part(TABLE, (0.5, 0, 1, 0.5), 2), Part(TABLE, None, 5),
             Part(TABLE, right, -1)]  # fmt: skip
    ranking = search_regions(index, Query(parts), rol=Rol(1, 1))
    # The part of no place takes a region, but no part in the IoU; nor does the unwanted one.
    assert sorted(ranking.regions[0, 0, :3]) == [0, 1, 2]
    table = index.regions["x0"][ranking.regions[0, 0, 1]]
    expected = (1 * 1 + 2 * (1 / 2 if table == 10 else 0)) / 3
    np.testing.assert_allclose(ranking.terms["iou"], [[expected]], atol=1e-6)
    mean = search_regions(index, Query(parts[:2]), aggregation="mean", rol=Rol(1, 1))
    assert mean.regions[0, 0].tolist() == [1, 1]
    np.testing.assert_allclose(mean.terms["iou"], [[(1 * 0 + 2 * 1 / 2) / 3]], atol=1e-6)


def test_a_part_that_is_not_matched_overlaps_with_nothing():
    index = make_index([[CHAIR], []], boxes=[[LEFT], []])
    query = Query([Part(CHAIR, (0, 0, 0.5, 1)), Part(TABLE, (0, 0, 0.5, 1))])
    for region, overlaps in (("similar", [1 / 2, 0]), ("overlap", [1, 0])):
        ranking = search_regions(index, query, rol=Rol(1, 1, region=region))
        assert ranking.terms["iou"].tolist() == [overlaps]


@pytest.mark.parametrize(("target", "aggregation"), WAYS)
@pytest.mark.parametrize("region", ["similar", "overlap", "whole"])
def test_rol_is_that_of_brute_force(target, aggregation, region):
    index, queries = world(10)
    options = {"target": target, "aggregation": aggregation}
    plain = search_regions(index, queries, k=16, **options)
    evidence = search_regions(index, queries, k=16, aggregation=aggregation)
    rol = Rol(0.7, 0.4, region=region, candidates=8)
    ranking = search_regions(index, queries, k=12, **options, rol=rol)
    for i, query in enumerate(queries):
        matched = dict(zip(evidence.rows[i], evidence.regions[i], strict=True))
        scores = [
            0.7 * score + (0.4 * iou_slowly(index, query, row, matched[row], rol) if j < 8 else 0)
            for j, (row, score) in enumerate(zip(plain.rows[i], plain.scores[i], strict=True))
        ]
        order = [*np.argsort(-np.round(scores[:8], 6), kind="stable"), *range(8, 12)]
        assert ranking.rows[i].tolist() == plain.rows[i][order].tolist()
        np.testing.assert_allclose(ranking.scores[i], np.array(scores)[order], atol=1e-6)
        assert (np.diff(ranking.scores[i]) <= 0).all()
    np.testing.assert_allclose(sum(ranking.terms.values()), ranking.scores, atol=1e-6)


def iou_slowly(index, query, row, matched, rol):
    boxes = index.regions[["x0", "y0", "x1", "y1"]].to_numpy()
    width, height = index.images["width"][row], index.images["height"][row]
    total = value = 0
    for part, region in zip(query.parts, matched, strict=False):
        if part.weight < 0:
            continue
        stands_for = {
            "similar": boxes[region : region + 1] if region >= 0 else boxes[:0],
            "overlap": boxes[index.regions_of(row)],
            "whole": np.array([[0, 0, width, height]]),
        }[rol.region]
        shares = stands_for / np.array([width, height, width, height])
        value += part.weight * box_iou([part.box], shares).max(initial=0)
        total += part.weight
    return value / total


def test_rol_of_nothing_changes_nothing():
    index, queries = world(11)
    plain = search_regions(index, queries, k=16)
    same = search_regions(index, queries, k=16, rol=Rol())
    np.testing.assert_array_equal(same.rows, plain.rows)
    np.testing.assert_array_equal(same.scores, plain.scores)
    halved = search_regions(index, queries, k=16, rol=Rol(0.5))
    np.testing.assert_array_equal(halved.rows, plain.rows)
    np.testing.assert_allclose(halved.scores, plain.scores / 2, atol=1e-7)


def test_rol_by_overlap_alone_keeps_the_searchs_order_among_equals():
    ranking = search_places(rol=Rol(0, 1), exclude=[0])
    assert ranking.rows.tolist() == [[2, 1, -1]]
    assert ranking.scores.tolist() == [[1, 0, -np.inf]]
    ranking = search_places(rol=Rol(0, 1, candidates=1))
    assert ranking.rows.tolist() == [[0, 1, 2]]
    assert ranking.scores.tolist() == [[0, 0, 0]]


def test_more_candidates_than_results_are_looked_at():
    assert search_places(k=1, rol=Rol(1, 1, candidates=2)).rows.tolist() == [[0]]
    assert search_places(k=1, rol=Rol(1, 1, candidates=3)).rows.tolist() == [[2]]


# The result


def test_the_table_shows_the_evidence():
    index = make_index([CHAIRS, [TABLE, CHAIR], []])
    table = search_regions(index, [TWO, Query([Part(TABLE)])]).table(0)
    assert table["image_id"].tolist() == ["image 1", "image 0", "image 2"]
    assert table["regions"].tolist() == [("region 3", "region 2"), ("region 0", "region 1"), ()]
    assert table["score"].tolist() == table["similarity"].tolist()
    assert table["negative"].tolist() == table["iou"].tolist() == [0, 0, 0]


def test_each_query_has_a_table_of_its_own():
    index = make_index([CHAIRS, [TABLE, CHAIR], []])
    table = search_regions(index, [TWO, Query([Part(CHAIR)])], exclude=[-1, 1]).table(1)
    assert table["image_id"].tolist() == ["image 0", "image 2"]
    assert table["regions"].tolist() == [("region 0",), ()]
    np.testing.assert_allclose(table["similarity"], [24 / 25, UNMATCHED], atol=1e-6)


def test_queries_are_named_by_their_labels_or_numbers():
    index = make_index([CHAIRS])
    ranking = search_regions(index, [TWO, Query([Part(CHAIR)])])
    assert ranking.queries == ["chair + table", "1"]
    assert ranking.regions.shape == (2, 1, 2)
    assert ranking.regions[1].tolist() == [[0, -1]]
    assert repr(ranking) == "<Ranking: 2 queries x 1 of 1 images>"


# Many images: bounds for all, exact scores for few


def large_world(seed, n=400, d=8, distinct=None):
    """As `world`, with many images; of few distinct vectors, many are equal."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, n)
    pool = unit(rng, distinct or counts.sum() + n, d)
    drawn = rng.integers(0, distinct, counts.sum() + n) if distinct else np.arange(len(pool))
    regions = np.split(pool[drawn[n:]], np.cumsum(counts)[:-1])
    queries = [random_query(rng, wanted=1 + i % 4, unwanted=i % 2, d=d) for i in range(8)]
    return make_index(regions, images=pool[drawn[:n]]), queries


@pytest.mark.parametrize("distinct", [None, 6])
@pytest.mark.parametrize(("target", "aggregation"), WAYS)
def test_the_best_of_many_are_the_first_of_the_whole_ranking(
    target, aggregation, distinct, monkeypatch
):
    monkeypatch.setattr(region_gallery, "SCORES", 500)  # as for a gallery of many blocks
    index, queries = large_world(0, distinct=distinct)
    options = {"target": target, "aggregation": aggregation, "exclude": np.arange(8) * 50 - 1}
    every = search_regions(index, queries, k=len(index), **options)
    monkeypatch.setattr(region_gallery, "LOOKED_AT", 7)
    monkeypatch.setattr(region_gallery, "BOUNDS", 3 * 400 * 4)
    some = search_regions(index, queries, k=9, **options)
    np.testing.assert_array_equal(some.rows, every.rows[:, :9])
    np.testing.assert_array_equal(some.scores, every.scores[:, :9])
    np.testing.assert_array_equal(some.regions, every.regions[:, :9])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_no_score_is_above_its_bound(share):
    index, queries = large_world(1)
    gallery = RegionGallery(index, with_regions=True)
    vectors = [make_query_vectors(query, "match") for query in queries]
    for one, bound in zip(vectors, gallery.bound(vectors, share), strict=True):
        scores = gallery.look(one, share, np.arange(len(index)))["scores"]
        slack = 2 * ROUNDING * np.abs(one.weights).sum()
        assert (scores <= bound).all()
        if (one.weights > 0).sum() == 1 or share == 1:
            np.testing.assert_allclose(scores, bound, atol=slack)


@pytest.mark.parametrize("target", ["regions", "images", "both"])
def test_few_of_many_images_are_compared_exactly(target, monkeypatch):
    looked_at, original = [], RegionGallery.look

    def watch(self, vectors, image_weight, rows):
        looked_at.append(len(rows))
        return original(self, vectors, image_weight, rows)

    monkeypatch.setattr(RegionGallery, "look", watch)
    index, queries = large_world(2, n=2000)
    search_regions(index, queries, k=5, target=target)
    assert sum(looked_at) < len(queries) * 2000 / 4


def test_vectors_are_read_from_the_file_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(region_gallery, "ROWS", 2**10)
    rng = np.random.default_rng(3)
    np.save(tmp_path / "vectors.npy", unit(rng, 40_000, 64))
    regions = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = make_index([regions[i : i + 20] for i in range(0, 40_000, 20)])
    index = replace(index, region_vectors=regions)
    query = random_query(rng, wanted=2, unwanted=1, d=64)
    search_regions(index, query)
    tracemalloc.start()
    try:
        search_regions(index, query)
        assert tracemalloc.get_traced_memory()[1] < regions.nbytes / 4
    finally:
        tracemalloc.stop()


# What is refused


def test_an_index_without_regions_answers_only_for_whole_images():
    index = replace(make_index([CHAIRS, [TABLE]]), regions=None, region_vectors=None)
    boxed = Query([Part(CHAIR, ROOM)])
    for options in ({}, {"target": "both"}, {"target": "images", "rol": Rol(1, 1)}):
        with pytest.raises(IndexFolderError, match="has no regions: add them"):
            search_regions(index, boxed, **options)
    for rol in (None, Rol(1, 1, region="whole"), Rol(1, 0)):
        ranking = search_regions(index, boxed, target="images", rol=rol)
        assert ranking.rows.tolist() == [[0, 1]]
        assert (ranking.regions == -1).all()
        assert ranking.table()["regions"].tolist() == [(), ()]


def test_an_index_in_which_no_image_has_a_region_still_answers():
    index = make_index([CHAIRS, [TABLE]])
    empty = replace(index, regions=index.regions[:0], region_vectors=index.region_vectors[:0])
    query = Query([Part(CHAIR, ROOM), Part(TABLE)])
    for region in ("similar", "overlap", "whole"):
        ranking = search_regions(empty, query, rol=Rol(1, 1, region=region))
        assert ranking.rows.tolist() == [[0, 1]]
        assert ranking.terms["similarity"].tolist() == [[-1, -1]]


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("k must be a whole number of at least 1, got 0", {"k": 0}),
        ("k must be a whole number of at least 1, got True", {"k": True}),
        ("target must be one of 'regions', 'images', 'both', got 'parts'", {"target": "parts"}),
        ("aggregation must be one of 'match', 'mean', got 'sum'", {"aggregation": "sum"}),
        (r"image_weight must be in \[0, 1\], got 1.5", {"image_weight": 1.5}),
        (r"image_weight must be in \[0, 1\], got nan", {"image_weight": np.nan}),
        (r"exclude must be \(1,\) rows in \[-1, 2\), got \[2\]", {"exclude": [2]}),
        (r"exclude must be \(1,\) rows .*, got \[0 1\]", {"exclude": [0, 1]}),
        (r"exclude must be \(1,\) rows .*, got \[0.5\]", {"exclude": [0.5]}),
        ("query chair [+] table has no box on a wanted part", {"rol": Rol(1, 1)}),
    ],
)
def test_what_makes_no_sense_is_refused(message, options):
    with pytest.raises(ValueError, match=message):
        search_regions(make_index([CHAIRS, [TABLE]]), TWO, **options)


def test_bare_vectors_are_no_queries():
    with pytest.raises(TypeError, match="query 0 is a ndarray, not a Query of parts"):
        search_regions(make_index([CHAIRS]), np.eye(2, dtype=np.float32))


def test_queries_that_do_not_fit_the_index_are_named():
    index = make_index([CHAIRS])
    other = Query([Part((1, 0, 0))])
    with pytest.raises(ValueError, match="query 1 has vectors of length 3, the index of 2"):
        search_regions(index, [TWO, other])
    with pytest.raises(ValueError, match="there is no query"):
        search_regions(index, [])
    unwanted_box = Query([Part(CHAIR), Part(TABLE, ROOM, -1)])
    with pytest.raises(ValueError, match="query 0 has no box on a wanted part"):
        search_regions(index, unwanted_box, rol=Rol(1, 1))


def test_a_filter_leaves_the_images_that_match():
    index, queries = large_world(5)
    index = replace(index, images=index.images.assign(odd=np.arange(len(index)) % 2 == 1))
    every = search_regions(index, queries, k=len(index))
    for where in ("odd", "odd == True", lambda table: table["odd"], index.images["odd"].to_numpy()):
        some = search_regions(index, queries, k=6, where=where)
        for i in range(len(queries)):
            kept = every.rows[i] % 2 == 1
            assert some.rows[i].tolist() == every.rows[i][kept][:6].tolist()
            assert some.scores[i].tolist() == every.scores[i][kept][:6].tolist()
    few = search_regions(index, queries[0], k=4, where='image_id == "image 7"')
    assert few.rows.tolist() == [[7, -1, -1, -1]]
    assert few.terms["similarity"][0, 1:].tolist() == [-np.inf] * 3
    with pytest.raises(ValueError, match="no column 'colour' to filter by; known: image_id, "):
        search_regions(index, queries, where="colour == 'red'")


# From pictures and words


def test_a_region_of_a_picture_becomes_a_part(encoder):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[6:15, 10:30] = True
    part = part_from_region(encoder, image, Region(mask), encoding="erase", weight=2, label="it")
    expected = encode_regions(encoder, image, [mask], encoding="erase")[0]
    np.testing.assert_array_equal(part.vector, expected)
    np.testing.assert_allclose(part.box, [10 / 40, 6 / 30, 30 / 40, 15 / 30])
    assert (part.weight, part.label, part.rle["size"]) == (2, "it", [30, 40])


def test_a_mask_of_another_size_makes_no_part(encoder):
    image = np.zeros((30, 40, 3), np.uint8)
    with pytest.raises(ValueError):
        part_from_region(encoder, image, Region(np.ones((40, 30), bool)), encoding="erase")


def test_words_become_a_part_without_a_place(encoder):
    part = part_from_words(encoder, "a red chair", weight=-0.5)
    np.testing.assert_array_equal(part.vector, encoder.encode_texts(["a red chair"])[0])
    assert (part.box, part.weight, part.label) == (None, -0.5, "a red chair")
    with pytest.raises(ValueError, match="at least one word"):
        part_from_words(encoder, " ")
