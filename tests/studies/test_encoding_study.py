"""The trial of a region encoding: the gallery's masks encoded anew, and searched."""

from dataclasses import replace

import numpy as np
import pytest

from regionlab.data.images import read_image
from regionlab.index.build import add_regions, build_index
from regionlab.index.tables import IndexFolderError
from regionlab.models.registry import load_segmenter
from regionlab.models.segmenter import MaskGeneratorConfig, Region
from regionlab.regions.encodings import encode_regions
from regionlab.search.regions import search_regions
from regionlab.studies.methods import encode_gallery, take_images, try_encoding
from regionlab.studies.sampling import query_regions
from toybox import load_toybox

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return load_toybox(tmp_path_factory.mktemp("toybox"), split="val", count=4)


@pytest.fixture(scope="module")
def plain(collection, encoder, tmp_path_factory):
    """The index without regions."""
    return build_index(collection, encoder, tmp_path_factory.mktemp("index") / "index")


@pytest.fixture(scope="module")
def index(plain, encoder):
    segmenter = load_segmenter("toysam/untrained", device="cpu", precision="fp32")
    return add_regions(plain, segmenter, encoder, encoding="crop", everything=FEW)


@pytest.fixture(scope="module")
def asked(collection):
    """Three objects and their true masks, the last one not found."""
    objects = collection.objects.iloc[[5, 0, 2]].reset_index(drop=True)
    masks = [collection.mask(object_id) for object_id in objects["object_id"]]
    return objects, [Region(masks[0]), Region(masks[1]), None]


def without_regions(index, row):
    """The index with the regions of an image taken away."""
    kept = (index.regions["row"] != row).to_numpy()
    regions = index.regions[kept].reset_index(drop=True)
    return replace(index, regions=regions, region_vectors=index.region_vectors[kept])


# The gallery


def test_the_encoding_of_the_index_gives_its_own_vectors_again(index, encoder):
    vectors, seconds = encode_gallery(index, encoder, "crop")
    np.testing.assert_allclose(vectors, index.region_vectors, atol=1e-5)
    assert vectors.dtype == np.float32
    assert seconds > 0


def test_another_encoding_is_of_the_same_masks(index, encoder):
    vectors, _ = encode_gallery(index, encoder, "erase")
    assert len(vectors) == len(index.regions)
    for region, row in enumerate(index.regions["row"]):
        image, mask = read_image(index.path(row)), index.region_mask(region)
        (expected,) = encode_regions(encoder, image, [mask], encoding="erase")
        np.testing.assert_allclose(vectors[region], expected, atol=1e-5)


def test_images_without_regions_are_passed_over(index, encoder):
    fewer = without_regions(index, 1)
    vectors, _ = encode_gallery(fewer, encoder, "crop")
    np.testing.assert_allclose(vectors, fewer.region_vectors, atol=1e-5)


def test_a_gallery_without_any_region_has_no_vectors(index, encoder):
    nothing = index
    for row in range(len(index)):
        nothing = without_regions(nothing, row)
    vectors, _ = encode_gallery(nothing, encoder, "crop")
    assert (vectors.shape, vectors.dtype) == ((0, encoder.dim), np.float32)


# The trial


@pytest.mark.parametrize("encoding", ["crop", "erase"])
def test_queries_and_gallery_are_encoded_alike(collection, index, asked, encoder, encoding):
    objects, regions = asked
    trial = try_encoding(collection, index, objects, regions, encoder, encoding=encoding)
    images = objects["image_id"].tolist()
    queries = query_regions(
        collection, images, [[region] for region in regions], encoder, encoding=encoding
    )
    gallery = replace(index, region_vectors=encode_gallery(index, encoder, encoding)[0])
    expected = search_regions(gallery, queries, k=4, exclude=index.rows_of(images))
    np.testing.assert_array_equal(trial.ranking.rows, expected.rows)
    np.testing.assert_allclose(trial.ranking.scores, expected.scores, atol=1e-5)
    assert trial.encoding == encoding
    assert trial.milliseconds > 0


def test_the_whole_gallery_is_ranked_but_for_the_querys_own_image(
    collection, index, asked, encoder
):
    objects, regions = asked
    ranking = try_encoding(collection, index, objects, regions, encoder, encoding="crop").ranking
    own = index.rows_of(objects["image_id"])
    assert ranking.excluded.tolist() == own.tolist()
    for rows, row in zip(ranking.rows, own, strict=True):
        assert sorted(rows) == [-1, *sorted(set(range(4)) - {row})]


def test_the_vectors_of_the_index_do_not_count(collection, index, asked, encoder):
    objects, regions = asked
    turned = replace(index, region_vectors=-np.asarray(index.region_vectors))
    scores = [
        try_encoding(collection, one, objects, regions, encoder, encoding="crop").ranking.scores
        for one in (index, turned)
    ]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_an_index_without_regions_is_refused(collection, plain, asked, encoder):
    objects, regions = asked
    with pytest.raises(IndexFolderError, match="has no regions: add them with"):
        try_encoding(collection, plain, objects, regions, encoder, encoding="crop")
    with pytest.raises(IndexFolderError, match="has no regions: add them with"):
        take_images(plain, 2)


# Fewer images


def test_the_first_images_keep_their_regions_and_their_vectors(index):
    few = take_images(index, 2)
    assert few.images["image_id"].tolist() == index.images["image_id"].tolist()[:2]
    assert (few.vectors.shape[0], set(few.regions["row"])) == (2, {0, 1})
    count = index.regions_of(1).stop
    assert few.regions["region_id"].tolist() == index.regions["region_id"].tolist()[:count]
    np.testing.assert_array_equal(few.region_vectors, index.region_vectors[:count])
    np.testing.assert_array_equal(few.region_mask(count - 1), index.region_mask(count - 1))


def test_more_images_than_there_are_is_all_of_them(index):
    every = take_images(index, 99)
    assert (len(every), len(every.regions)) == (4, len(index.regions))
