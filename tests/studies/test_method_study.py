"""Methods on the same queries, and the measures that the paper leaves undefined, by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from regionlab.data.images import read_image
from regionlab.data.prompts import Box
from regionlab.index.build import add_regions, build_index
from regionlab.metrics.ranking import average_precision, judge_ranking
from regionlab.models.segmenter import EmptyMaskError, MaskGeneratorConfig, Segmenter
from regionlab.search.images import search_image, search_text
from regionlab.search.regions import search_regions
from regionlab.studies.methods import (
    MEASURES,
    Method,
    ObjectQuery,
    ask_by_box,
    ask_by_caption,
    crop_box,
    encode_boxed,
    encode_whole_images,
    encode_words,
    explain_grades,
    find_pixel_errors,
    grade_images,
    measure_method,
    pixel_difference,
    show_answer,
    time_method,
)
from regionlab.studies.sampling import query_regions, segment_objects
from toybox import load_toybox

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)
IMAGES = 6


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return load_toybox(tmp_path_factory.mktemp("toybox"), split="val", count=IMAGES)


@pytest.fixture(scope="module")
def index(collection, segmenter, encoder, tmp_path_factory):
    plain = build_index(collection, encoder, tmp_path_factory.mktemp("index") / "index")
    return add_regions(plain, segmenter, encoder, encoding="crop", everything=FEW)


@pytest.fixture(scope="module")
def objects(collection):
    return collection.objects.iloc[[5, 0, 2]].reset_index(drop=True)


@pytest.fixture(scope="module")
def asked(collection, objects):
    return ask_by_box(collection, objects, seed=3)


@pytest.fixture(scope="module")
def ranking(index, collection, asked, segmenter, encoder):
    """Of SAM-CLIP's kind."""
    encode = partial(encode_boxed, collection=collection, encoder=encoder, segmenter=segmenter,
                     encoding="crop")  # fmt: skip
    method = Method(index, encode, target="regions")
    return method.search(asked, method.encode(asked))


# Queries


def test_boxes_regions_and_answers_are_those_of_the_prompt_study(
    collection, objects, index, segmenter, encoder, ranking
):
    found = segment_objects(collection, objects, "box", segmenter, encoder, seed=3)
    images = objects["image_id"].tolist()
    queries = query_regions(collection, images, [[r] for r in found], encoder, encoding="crop")
    expected = search_regions(index, queries, k=IMAGES, exclude=index.rows_of(images))
    np.testing.assert_array_equal(ranking.rows, expected.rows)
    np.testing.assert_array_equal(ranking.regions, expected.regions)
    np.testing.assert_allclose(ranking.scores, expected.scores, atol=1e-6)


def test_a_box_in_which_nothing_is_found_stands_for_the_whole_image(
    collection, asked, segmenter, encoder, monkeypatch
):
    def find_nothing(*_):
        raise EmptyMaskError("nothing")

    monkeypatch.setattr(Segmenter, "segment", find_nothing)
    (query,) = encode_boxed(asked[:1], collection, encoder, segmenter, encoding="erase")
    whole = encoder.encode_images(collection.read(asked[0].image_id))
    np.testing.assert_allclose(query.vectors, whole, atol=1e-5)


def test_whole_images_are_searched_as_by_search_image(collection, index, asked, encoder):
    method = Method(index, partial(encode_whole_images, collection=collection, encoder=encoder))
    found = method.search(asked, method.encode(asked))
    paths = [collection.image_path(one.image_id) for one in asked]
    expected = search_image(index, paths, encoder, k=IMAGES, exclude_self=True)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert (found.regions == -1).all()


def test_a_crop_is_what_the_box_holds(collection, asked, encoder):
    query = encode_whole_images(asked, collection, encoder, crop=True)[1]
    image, (x0, y0, x1, y1) = collection.read(asked[1].image_id), asked[1].box.xyxy
    cut = image[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
    np.testing.assert_allclose(query.vectors, encoder.encode_images([cut]), atol=1e-5)


def test_words_are_searched_as_by_search_text_and_keep_their_own_image(collection, index, encoder):
    asked = ask_by_caption(collection, 4, seed=0)
    method = Method(index, partial(encode_words, encoder=encoder, templates=["a {}"]))
    found = method.search(asked, method.encode(asked))
    words = [one.words for one in asked]
    expected = search_text(index, words, encoder, k=IMAGES, templates=["a {}"])
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert (found.excluded == -1).all()


def test_each_caption_is_one_of_its_own_image_and_no_image_comes_twice(collection):
    asked = ask_by_caption(collection, 100, seed=1)
    assert len({one.image_id for one in asked}) == len(asked) == IMAGES
    for one in asked:
        assert one.words in collection.captions_of(one.image_id)["caption"].tolist()


def test_a_collection_without_captions_cannot_be_asked_in_words(collection):
    mute = replace(collection, captions=collection.captions.iloc[:0])
    with pytest.raises(ValueError, match="no captions to ask with"):
        ask_by_caption(mute, 3, seed=0)


# Measures


def test_measures_are_those_of_the_papers_table(collection, objects, asked, ranking):
    ids = ranking.index.images["image_id"].tolist()
    grades = grade_images(collection, objects, ids, by=["category", "color", "texture"])
    measured = measure_method(collection, asked, ranking, grades == 1, grades)
    assert tuple(measured) == MEASURES
    judged = judge_ranking(ranking.rows, grades == 1, exclude=ranking.excluded)
    np.testing.assert_array_equal(measured["mAP"], average_precision(judged, divisor="relevant"))
    np.testing.assert_array_equal(measured["r2"], explain_grades(ranking, grades))


def test_measures_of_two_queries_by_hand(collection, objects, asked, ranking):
    holds = np.zeros((len(asked), IMAGES), bool)
    first = ranking.rows[:2]
    holds[0, first[0, [0, 2]]] = True  # found at ranks 1 and 3
    holds[1, first[1, 1]] = True  # found at rank 2
    measured = measure_method(collection, asked, ranking, holds, None)
    by_hand = {
        "hit@1": [1, 0],
        "hit@5": [1, 1],
        "mAP": [(1 + 2 / 3) / 2, 1 / 2],
        "precision@1": [1, 0],
        "precision@5": [2 / 5, 1 / 5],
        "ndcg@5": [(1 + 1 / 2) / (1 + 1 / np.log2(3)), 1 / np.log2(3)],
    }
    for measure, values in by_hand.items():
        np.testing.assert_allclose(measured[measure][:2], values, err_msg=measure)
    np.testing.assert_array_equal(measured["top1_similarity"], ranking.scores[:, 0])


def test_words_have_no_pixels_and_no_grades(collection, index, encoder):
    asked = ask_by_caption(collection, 2, seed=0)
    method = Method(index, partial(encode_words, encoder=encoder))
    found = method.search(asked, method.encode(asked))
    measured = measure_method(collection, asked, found, np.ones((2, IMAGES), bool))
    assert set(MEASURES) - set(measured) == {"mae", "r2"}


def test_every_query_is_timed_but_for_the_first_call(index, encoder):
    calls = []

    def encode(asked):
        calls.append(len(asked))
        return encode_words(asked, encoder)

    asked = [ObjectQuery(index.images["image_id"][0], words=word) for word in ("star", "heart")]
    seconds = time_method(Method(index, encode), asked)
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert calls == [1, 1, 1]


# Pixel error


def test_difference_of_black_and_white_is_one_and_of_itself_none():
    black, white = np.zeros((5, 9, 3), np.uint8), np.full((70, 80, 3), 255, np.uint8)
    assert pixel_difference(black, white) == 1
    assert pixel_difference(white, white) == 0


def test_difference_by_hand():
    # One of three channels differs by 51, that is 0.2, in the left half: 0.2 / 3 / 2.
    a, b = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    b[:, :32, 1] = 51
    assert pixel_difference(a, b) == pytest.approx(0.2 / 6)
    assert pixel_difference(b, a) == pytest.approx(0.2 / 6)


def test_pictures_of_two_sizes_are_compared_in_one():
    wide = np.zeros((64, 256, 3), np.uint8)
    wide[:, 128:] = 255
    square = np.zeros((64, 64, 3), np.uint8)
    square[:, 32:] = 255
    assert pixel_difference(wide, square) < 0.02
    assert pixel_difference(wide, square[:, ::-1]) > 0.98


def test_a_crop_holds_every_pixel_that_the_box_touches():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(crop_box(image, np.array([1.9, 0, 3.1, 2])), image[:2, 1:4])
    np.testing.assert_array_equal(crop_box(image, np.array([-3, 2.5, 99, 99])), image[2:])


def test_a_box_outside_the_image_is_told():
    with pytest.raises(ValueError, match=r"\[6.0, 0.0, 8.0, 2.0\] lies outside .* 6 x 4 pixels"):
        crop_box(np.zeros((4, 6, 3), np.uint8), np.array([6.0, 0.0, 8.0, 2.0]))


def test_error_is_between_the_box_and_the_region_that_answers(collection, asked, ranking):
    small = ranking.index.regions.assign(x0=10.0, y0=20.0, x1=90.0, y1=70.0)
    ranking = replace(ranking, index=replace(ranking.index, regions=small))
    images, boxes = zip(*((one.image_id, one.box.xyxy) for one in asked), strict=True)
    errors = find_pixel_errors(collection, images, boxes, ranking)
    for query, error in enumerate(errors):
        answer = read_image(ranking.index.path(ranking.rows[query, 0]))
        wanted = crop_box(collection.read(images[query]), boxes[query])
        assert error == pixel_difference(wanted, answer[20:70, 10:90])


def test_an_answer_without_region_is_the_whole_image(ranking):
    whole = replace(ranking, regions=np.full_like(ranking.regions, -1))
    image = read_image(ranking.index.path(ranking.rows[1, 2]))
    np.testing.assert_array_equal(show_answer(whole, 1, rank=3), image)


def test_no_answer_has_no_error(collection, asked, ranking):
    images, boxes = zip(*((one.image_id, one.box.xyxy) for one in asked), strict=True)
    rows = ranking.rows.copy()
    rows[1] = -1
    errors = find_pixel_errors(collection, images, boxes, replace(ranking, rows=rows))
    assert np.isnan(errors).tolist() == [False, True, False]


# R2


def test_grade_is_the_share_of_the_best_object(collection):
    objects = collection.objects.iloc[:3].copy()
    objects["image_id"] = collection.images["image_id"].iloc[[0, 0, 1]].to_numpy()
    objects["category"], objects["color"] = ["star", "heart", "star"], ["red", "blue", "blue"]
    small = replace(collection, objects=objects.reset_index(drop=True))
    ids = collection.images["image_id"].tolist()[2::-1]  # the last two, then the first
    grades = grade_images(small, small.objects, ids, by=["category", "color"])
    # Rows: red star, blue heart, blue star; the third image has no objects.
    np.testing.assert_array_equal(grades, [[0, 0.5, 1], [0, 0.5, 1], [0, 1, 0.5]])


def test_crowds_and_images_elsewhere_have_no_grade(collection):
    crowd = collection.objects.assign(iscrowd=True)
    some = collection.objects.iloc[:2]
    ids = collection.images["image_id"].tolist()
    assert not grade_images(replace(collection, objects=crowd), some, ids, by=["category"]).any()
    few = grade_images(collection, some, ids[3:], by=["category"])
    all_ = grade_images(collection, some, ids, by=["category"])
    np.testing.assert_array_equal(few, all_[:, 3:])


def rank(ranking, rows, scores):
    return replace(ranking, rows=np.array([rows]), scores=np.array([scores], np.float32))


def test_explained_share_by_hand(ranking):
    # Around their means scores are .2, 0, -.2 and grades 2/3, -1/3, -1/3:
    # squared 0.2 over 0.08 times 2/3 is 3/4.
    found = rank(ranking, [2, 0, 1], [0.8, 0.6, 0.4])
    assert explain_grades(found, np.array([[0.0, 0, 1]])) == pytest.approx([0.75])


def test_explained_share_is_that_of_a_fitted_line(ranking):
    rng = np.random.default_rng(0)
    grades = rng.random(50)
    scores = np.sort(grades + rng.normal(0, 0.3, 50))[::-1].astype(np.float32)
    rows = np.argsort(-grades + rng.normal(0, 0.3, 50))
    line = LinearRegression().fit(scores[:, None], grades[rows])
    expected = line.score(scores[:, None], grades[rows])
    assert 0.05 < expected < 0.95
    assert explain_grades(rank(ranking, rows, scores), grades[None]) == pytest.approx([expected])


def test_what_is_not_ranked_explains_nothing(ranking):
    grades = np.array([[0.0, 0.5, 1, 0.5]])
    whole = explain_grades(rank(ranking, [2, 1, 0], [3, 2, 1]), grades)
    with_own = explain_grades(rank(ranking, [2, 1, 0, -1], [3, 2, 1, -np.inf]), grades)
    assert whole == with_own == pytest.approx([1.0])


@pytest.mark.parametrize("scores", [[0.1, 0.1, 0.1], [0.9, 0.5, 0.1]])
def test_scores_that_are_equal_or_rank_backwards_explain_nothing(ranking, scores):
    assert explain_grades(rank(ranking, [0, 1, 2], scores), np.array([[0.0, 0.5, 1]])) == [0]


def test_equal_grades_leave_nothing_to_explain(ranking):
    found = explain_grades(rank(ranking, [0, 1, 2], [3, 2, 1]), np.full((1, 3), 0.1))
    assert np.isnan(found).all()


def test_a_box_is_hasty_and_repeatable(collection, objects):
    exact = ask_by_box(collection, objects, seed=0, noise=0)
    boxes = objects[["x0", "y0", "x1", "y1"]].to_numpy()
    assert [one.box for one in exact] == [Box(*box) for box in boxes]
    assert ask_by_box(collection, objects, seed=0) == ask_by_box(collection, objects, seed=0)
    assert ask_by_box(collection, objects, seed=0) != exact


def test_a_box_is_drawn_around_the_objects_own_where_the_mask_cannot_be_used(collection, objects):
    broken = collection.objects.assign(segmentation=None)
    boxes = objects[["x0", "y0", "x1", "y1"]].to_numpy()
    exact = ask_by_box(replace(collection, objects=broken), objects, seed=0, noise=0)
    assert [one.box for one in exact] == [Box(*box) for box in boxes]
