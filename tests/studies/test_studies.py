"""Studies of region search: objects drawn, prompts simulated, masks and queries measured."""

import numpy as np
import pytest

from regionlab.data.collection import Collection, make_table
from regionlab.data.images import write_image
from regionlab.data.masks import mask_to_rle
from regionlab.data.prompts import Box, Points, Text
from regionlab.models.segmenter import MaskGeneratorConfig, Region
from regionlab.regions.encodings import encode_regions
from regionlab.regions.grounding import find_words
from regionlab.studies.sampling import (
    describe_object,
    jitter_box,
    mask_iou,
    measure_masks,
    prompt_for_object,
    query_regions,
    sample_inside_point,
    sample_objects,
    sample_pairs,
    segment_objects,
)

SIZES = {"a": (48, 64), "b": (40, 40), "c": (30, 50), "d": (32, 32)}  # height, width


def make_mask(image, x0, y0, x1, y1):
    mask = np.zeros(SIZES[image], bool)
    mask[y0:y1, x0:x1] = True
    return mask


def make_collection(root, things):
    """Objects 0, 1, ... given as (image, category, mask or None) and what else is to be said."""
    things = [(*thing, {})[:4] for thing in things]
    masks = [mask for _, _, mask, _ in things]
    columns = {
        "object_id": [str(row) for row in range(len(things))],
        "image_id": [image for image, *_ in things],
        "category": [category for _, category, *_ in things],
        "x0": [0] * len(things), "y0": [0] * len(things),
        "x1": [1] * len(things), "y1": [1] * len(things),
        "area": [0 if mask is None else mask.sum() for mask in masks],
        "iscrowd": [more.get("crowd", False) for *_, more in things],
        "segmentation": [None if mask is None else mask_to_rle(mask) for mask in masks],
        "color": [more.get("color", "red") for *_, more in things],
    }  # fmt: skip
    images = {"image_id": list(SIZES), "path": [f"{image}.png" for image in SIZES],
              "height": [height for height, _ in SIZES.values()],
              "width": [width for _, width in SIZES.values()]}  # fmt: skip
    return Collection(root, make_table("images", images), make_table("objects", columns))


SMALL = {image: make_mask(image, 2, 3, 8, 9) for image in SIZES}


@pytest.fixture
def world(tmp_path):
    """Four pictures of noise, an object or two in each."""
    rng = np.random.default_rng(0)
    for image, (height, width) in SIZES.items():
        blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        write_image(tmp_path / f"{image}.png", blocks[rows][:, columns])
    return make_collection(
        tmp_path,
        [
            ("a", "star", make_mask("a", 4, 5, 30, 25)),
            ("a", "ring", make_mask("a", 40, 20, 60, 44)),
            ("b", "star", make_mask("b", 10, 10, 30, 30)),
            ("c", "ring", make_mask("c", 0, 0, 25, 28)),
        ],
    )


# Objects


def test_objects_drawn_have_a_mask_and_are_no_crowds(tmp_path):
    nothing = np.zeros(SIZES["a"], bool)
    collection = make_collection(
        tmp_path,
        [
            ("a", "star", SMALL["a"]),
            ("a", "star", None),
            ("a", "star", nothing),
            ("a", "star", SMALL["a"], {"crowd": True}),
            ("b", "star", SMALL["b"]),
        ],
    )
    assert sample_objects(collection, 9, seed=0)["object_id"].tolist() == ["0", "4"]


def test_objects_thinner_than_a_pixel_are_not_asked_for(tmp_path):
    thin = {"size": list(SIZES["b"]), "counts": mask_to_rle(np.zeros(SIZES["b"], bool))["counts"]}
    things = [(image, "star", SMALL[image]) for image in ("a", "b", "c")]
    collection = make_collection(tmp_path, things)
    collection.objects.at[1, "segmentation"] = thin
    with pytest.warns(UserWarning, match="1 objects were passed over"):
        assert sample_objects(collection, 9, seed=0)["object_id"].tolist() == ["0", "2"]
    assert len(sample_objects(collection, 1, seed=1)) == 1


BROKEN = {"size": [1, 1], "counts": "zzzz"}
passed_over = pytest.mark.filterwarnings("ignore:.*objects were passed over")


def break_masks(collection, *rows):
    for row in rows:
        collection.objects.at[row, "segmentation"] = BROKEN
    return collection


def test_objects_whose_mask_cannot_be_decoded_are_passed_over_and_counted(tmp_path):
    things = [(image, "star", SMALL[image]) for image in ("a", "b", "c")]
    collection = break_masks(make_collection(tmp_path, things), 0, 2)
    with pytest.warns(UserWarning, match="2 objects were passed over, .*; the first: '[02]'"):
        drawn = sample_objects(collection, 9, seed=0)
    assert drawn["object_id"].tolist() == ["1"]


@passed_over
def test_objects_of_which_none_has_a_mask_that_can_be_used_are_refused(tmp_path):
    things = [(image, "star", SMALL[image]) for image in ("a", "b")]
    collection = break_masks(make_collection(tmp_path, things), 0, 1)
    with pytest.raises(ValueError, match="no object with a mask"):
        sample_objects(collection, 9, seed=0)


def test_a_kind_is_shared_with_an_object_without_a_mask_too(tmp_path):
    collection = make_collection(tmp_path, [("a", "star", SMALL["a"]), ("b", "star", None)])
    assert sample_objects(collection, 9, seed=0)["object_id"].tolist() == ["0"]


def test_objects_drawn_are_of_a_kind_that_another_image_holds(tmp_path):
    collection = make_collection(
        tmp_path,
        [
            ("a", "star", SMALL["a"]),
            ("b", "star", SMALL["b"], {"color": "blue"}),
            ("a", "ring", SMALL["a"]),
            ("a", "ring", SMALL["a"]),
            ("c", "star", SMALL["c"], {"color": "blue"}),
        ],
    )
    assert sample_objects(collection, 9, seed=0)["object_id"].tolist() == ["0", "1", "4"]
    kinds = sample_objects(collection, 9, seed=0, by=["category", "color"])
    assert kinds["object_id"].tolist() == ["1", "4"]


def test_objects_drawn_depend_on_the_seed_and_come_in_the_collections_order(tmp_path):
    images = [list(SIZES)[row % 4] for row in range(40)]
    collection = make_collection(tmp_path, [(image, "star", SMALL[image]) for image in images])
    first, again, other = (
        sample_objects(collection, 9, seed=seed)["object_id"].astype(int).tolist()
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first == sorted(set(first))
    assert len(first) == 9
    assert sample_objects(collection, 9, seed=0).index.tolist() == list(range(9))


def test_a_collection_without_such_objects_is_refused(tmp_path):
    collection = make_collection(tmp_path, [("a", "star", SMALL["a"]), ("b", "ring", SMALL["b"])])
    with pytest.raises(ValueError, match="no object with a mask and a kind that others share"):
        sample_objects(collection, 9, seed=0)


# Pairs


def test_a_pair_is_two_kinds_in_one_image(tmp_path):
    collection = make_collection(
        tmp_path,
        [
            ("a", "star", SMALL["a"]),
            ("b", "star", SMALL["b"]),
            ("b", "star", SMALL["b"]),
            ("c", "star", SMALL["c"]),
            ("c", "ring", SMALL["c"]),
            ("d", "ring", SMALL["d"]),
            ("d", "ring", SMALL["d"], {"color": "blue"}),
        ],
    )
    assert [set(pair) for pair in sample_pairs(collection, 9, seed=0)] == [{"3", "4"}]
    pairs = sample_pairs(collection, 9, seed=0, by=["category", "color"])
    assert sorted(map(sorted, pairs)) == [["3", "4"], ["5", "6"]]


def test_every_pair_of_an_image_may_be_drawn_and_no_image_twice(tmp_path):
    things = [(image, kind, SMALL[image]) for image in SIZES for kind in ("star", "ring", "bolt")]
    collection = make_collection(tmp_path, things)
    drawn = [sample_pairs(collection, 9, seed=seed) for seed in range(30)]
    assert all(sorted(int(a) // 3 for a, _ in pairs) == [0, 1, 2, 3] for pairs in drawn)
    of_first = {frozenset(pair) for pairs in drawn for pair in pairs if int(pair[0]) < 3}
    assert of_first == {frozenset("01"), frozenset("02"), frozenset("12")}
    assert drawn[0] == sample_pairs(collection, 9, seed=0)
    assert sample_pairs(collection, 2, seed=0) == drawn[0][:2]


def test_a_pair_needs_masks_and_kinds_and_no_crowds(tmp_path):
    others = [
        ("a", "ring", None),
        ("b", "ring", np.zeros(SIZES["b"], bool)),
        ("c", "ring", SMALL["c"], {"crowd": True}),
        ("d", "ring", SMALL["d"], {"color": None}),
    ]
    stars = [(image, "star", SMALL[image]) for image in SIZES]
    with pytest.raises(ValueError, match="no image with two kinds of object"):
        sample_pairs(make_collection(tmp_path, stars + others), 9, seed=0, by=["category", "color"])


def test_a_pair_is_made_of_objects_whose_masks_can_be_used(tmp_path):
    nothing = np.zeros(SIZES["a"], bool)
    things = [
        ("a", "star", SMALL["a"]),
        ("a", "ring", SMALL["a"]),
        ("a", "bolt", nothing),
        ("a", "disk", SMALL["a"]),
        ("b", "star", SMALL["b"]),
        ("b", "ring", SMALL["b"]),
    ]
    collection = break_masks(make_collection(tmp_path, things), 1, 5)
    collection.objects.loc[2, "area"] = 1
    for seed in range(5):
        with pytest.warns(UserWarning, match="passed over"):
            assert set(sample_pairs(collection, 9, seed=seed)[0]) == {"0", "3"}


# Prompts


def test_an_object_is_described_by_its_columns_but_not_as_plain(world):
    row = world.objects.iloc[0].copy()
    row["texture"] = "striped"
    assert describe_object(row) == "star"
    assert describe_object(row, ["color", "texture", "category"]) == "red striped star"
    row["texture"] = "plain"
    assert describe_object(row, ["color", "texture", "category"]) == "red star"


def test_prompts_are_those_of_the_simulated_user():
    mask = make_mask("a", 4, 5, 30, 25)
    rngs = [np.random.default_rng(3) for _ in range(4)]
    box = prompt_for_object("box", mask, rngs[0], noise=0.2)
    assert box == Box(*jitter_box(np.array([4, 5, 30, 25]), mask.shape, rngs[1], noise=0.2))
    assert prompt_for_object("box", mask, rngs[0], noise=0) == Box(4, 5, 30, 25)
    point = prompt_for_object("point", mask, rngs[2])
    assert point == Points((tuple(sample_inside_point(mask, rngs[3])),))
    assert prompt_for_object("text", mask, rngs[0], words="a star") == Text("a star")


def test_an_unknown_prompt_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown prompt 'scribble'; known: box, point, text"):
        prompt_for_object("scribble", SMALL["a"], np.random.default_rng(0))


# Regions


@pytest.mark.parametrize("how", ["box", "point"])
def test_each_object_is_asked_for_in_its_own_image(world, segmenter, encoder, how):
    objects = world.objects.iloc[[3, 0, 2]]
    found = segment_objects(world, objects, how, segmenter, encoder, seed=5, noise=0.3)
    rng = np.random.default_rng(5)
    for (_, row), region in zip(objects.iterrows(), found, strict=True):
        prompt = prompt_for_object(how, world.mask(row["object_id"]), rng, noise=0.3)
        expected = segmenter.segment(world.read(row["image_id"]), prompt)
        assert region.prompt == prompt
        np.testing.assert_array_equal(region.mask, expected.mask)


def test_words_describe_the_object_and_options_are_for_finding_them(world, segmenter, encoder):
    options = {"threshold": 0, "everything": MaskGeneratorConfig(2, 64, 0, 0, 0.005, 1)}
    found = segment_objects(
        world, world.objects, "text", segmenter, encoder,
        seed=0, words=["color", "category"], **options,
    )  # fmt: skip
    said = ["red star", "red ring", "red star", "red ring"]
    assert [region.prompt for region in found] == [Text(words) for words in said]
    for image, words, region in zip("aabc", said, found, strict=True):
        (expected,) = find_words(world.read(image), words, segmenter, encoder, **options)
        np.testing.assert_array_equal(region.mask, expected.mask)


def test_words_that_find_nothing_keep_their_place(world, segmenter, encoder):
    everything = MaskGeneratorConfig(1, pred_iou_thresh=1)
    found = segment_objects(
        world, world.objects, "text", segmenter, encoder, seed=0, everything=everything
    )
    assert found == [None] * 4


def test_an_empty_mask_is_nothing_found(world, segmenter, encoder, monkeypatch):
    monkeypatch.setattr(segmenter.predictor.model, "mask_threshold", 1e9)
    assert segment_objects(world, world.objects, "box", segmenter, encoder, seed=0) == [None] * 4


def test_an_object_without_a_usable_mask_keeps_its_place_and_is_not_measured(
    world, segmenter, encoder
):
    break_masks(world, 1)
    with pytest.warns(UserWarning, match="1 objects were passed over, .*: '1'"):
        found = segment_objects(world, world.objects, "box", segmenter, encoder, seed=0)
    assert [region is None for region in found] == [False, True, False, False]
    ious = measure_masks(world, world.objects, found)
    assert np.isnan(ious).tolist() == [False, True, False, False]
    by_words = measure_masks(world, world.objects, found, by=["category"])
    assert np.isnan(by_words).tolist() == [False, True, False, False]


def test_words_need_no_mask(world, segmenter, encoder):
    break_masks(world, 0)
    options = {"threshold": 0, "everything": MaskGeneratorConfig(2, 64, 0, 0, 0.005, 1)}
    found = segment_objects(world, world.objects, "text", segmenter, encoder, seed=0, **options)
    assert all(found)


# Measures


def test_iou_is_the_share_of_pixels_in_both():
    a, b = make_mask("a", 0, 0, 4, 3), make_mask("a", 2, 0, 6, 3)
    assert mask_iou(a, b) == 6 / 18
    assert mask_iou(a, a) == 1
    assert mask_iou(a, np.zeros_like(a)) == mask_iou(a & False, a & False) == 0


@pytest.fixture
def twins(tmp_path):
    """Two red stars, a blue one and a ring side by side, 4 x 4 pixels each."""
    things = [
        ("a", "star", make_mask("a", 0, 0, 4, 4)),
        ("a", "star", make_mask("a", 8, 0, 12, 4)),
        ("a", "star", make_mask("a", 16, 0, 20, 4), {"color": "blue"}),
        ("a", "ring", make_mask("a", 24, 0, 28, 4)),
        ("a", "star", None),
        ("b", "star", make_mask("b", 8, 0, 12, 4)),
    ]
    return make_collection(tmp_path, things)


def test_a_region_is_measured_by_the_object_asked_for(twins):
    asked = twins.objects.iloc[[0, 1, 5]]
    half = [Region(make_mask(image, 8, 0, 12, 2)) for image in "aab"]
    assert measure_masks(twins, asked, half).tolist() == [0, 0.5, 0.5]


def test_what_words_cannot_tell_apart_is_all_right(twins):
    asked = twins.objects.iloc[[0, 0, 0, 0]]
    left = [0, 8, 16, 24]
    regions = [Region(make_mask("a", x, 0, x + 4, 2)) for x in left]
    assert measure_masks(twins, asked, regions, by=["category"]).tolist() == [0.5, 0.5, 0.5, 0]
    by_color = measure_masks(twins, asked, regions, by=["color", "category"])
    assert by_color.tolist() == [0.5, 0.5, 0, 0]


def test_nothing_found_counts_as_no_overlap(twins):
    found = [None, Region(make_mask("a", 8, 0, 12, 4))]
    assert measure_masks(twins, twins.objects.iloc[[0, 1]], found).tolist() == [0, 1]


def test_masks_that_cannot_be_used_are_left_out_of_what_words_cannot_tell_apart(twins):
    break_masks(twins, 0)
    region = Region(make_mask("a", 8, 0, 12, 2))
    assert measure_masks(twins, twins.objects.iloc[[0]], [region], by=["category"]) == [0.5]


def test_every_object_needs_an_answer(twins):
    with pytest.raises(ValueError, match="shorter"):
        measure_masks(twins, twins.objects.iloc[[0, 1]], [None])


# Queries


def test_a_query_has_a_part_for_each_region(world, encoder):
    regions = [Region(make_mask("c", 5, 3, 30, 18)), Region(make_mask("c", 0, 0, 50, 30))]
    (query,) = query_regions(world, ["c"], [regions], encoder, encoding="blur")
    vectors = encode_regions(encoder, world.read("c"), [r.mask for r in regions], encoding="blur")
    np.testing.assert_allclose(query.vectors, vectors, atol=1e-6)
    np.testing.assert_allclose(query.parts[0].box, [5 / 50, 3 / 30, 30 / 50, 18 / 30])
    np.testing.assert_array_equal(query.parts[1].box, [0, 0, 1, 1])
    assert query.weights.tolist() == [1, 1]


def test_the_whole_image_stands_in_for_a_region_not_found(world, encoder):
    (query,) = query_regions(world, ["b"], [[None]], encoder, encoding="erase")
    whole = np.ones(SIZES["b"], bool)
    expected = encode_regions(encoder, world.read("b"), [whole], encoding="erase")
    np.testing.assert_allclose(query.vectors, expected, atol=1e-6)
    np.testing.assert_array_equal(query.parts[0].box, [0, 0, 1, 1])


def test_queries_can_be_ranked_by_overlap_in_pixels(world, encoder):
    queries = query_regions(world, ["c", "a"], [[None], [None]], encoder, encoding="erase")
    sizes = [tuple(query.parts[0].rle["size"]) for query in queries]
    assert sizes == [SIZES["c"], SIZES["a"]]
