"""Words choose a region: against slow loops, and with the trained models of Toybox."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from regionlab.data.prompts import Box, Points, Text, Whole
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.regions.encodings import DEFAULT_ENCODING, encode_regions
from regionlab.regions.grounding import (
    BACKGROUND_WORDS,
    NothingFoundError,
    find_regions,
    find_words,
    score_words,
)
from regionlab.studies.sampling import mask_iou
from toybox import load_toybox
from toybox.world import SHAPES

WORDS = "a blue arrow"  # the scene's own, beside a star, a ring and a diamond
NAMES = [f"a {shape}" for shape in SHAPES]
NOTHING = MaskGeneratorConfig(1, pred_iou_thresh=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return load_toybox(tmp_path_factory.mktemp("toybox"), split="test", count=8)


@pytest.fixture(scope="module")
def image(scenes):
    return scenes.read(scenes.images["image_id"].iloc[-1])


@pytest.fixture(scope="module")
def segmenter():
    segmenter = load_segmenter("toysam", device="cpu", precision="fp32")
    segmenter.everything = replace(segmenter.everything, points_per_side=5)  # quicker
    return segmenter


@pytest.fixture(scope="module")
def encoder():
    """The trained one: to random weights all regions look much the same."""
    return load_encoder("toyclip", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def regions(image, segmenter):
    return segmenter.segment_everything(image)


@pytest.fixture(scope="module")
def scores(image, regions, encoder):
    """Each region's cosine and probability, by slow loops."""

    @cache
    def encode(encoding):
        masks = [region.mask for region in regions]
        return [encode_regions(encoder, image, [m], encoding=encoding)[0] for m in masks]

    @cache
    def encode_text(text):
        return encoder.encode_texts(text)[0]

    def score(words, encoding=DEFAULT_ENCODING):
        texts = [encode_text(text) for text in (words, *BACKGROUND_WORDS)]
        return score_slowly(encoder, encode(encoding), texts)

    return score


def score_slowly(encoder, vectors, asked):
    scale = math.exp(float(encoder.model.logit_scale.detach()))
    cosines = [[float(np.dot(vector, text)) for text in asked] for vector in vectors]
    odds = [[math.exp(scale * cosine) for cosine in row] for row in cosines]
    return np.array([row[0] for row in cosines]), np.array([row[0] / sum(row) for row in odds])


def masks_of(regions):
    return [region.mask.tobytes() for region in regions]


# Scores


def test_scores_are_the_cosine_and_its_share_of_the_softmax(regions, scores, image, encoder):
    vectors = encode_regions(encoder, image, [region.mask for region in regions])
    similarity, probability = score_words(encoder, vectors, WORDS)
    np.testing.assert_allclose(similarity, scores(WORDS)[0], atol=1e-4)
    np.testing.assert_allclose(probability, scores(WORDS)[1], atol=1e-3)
    assert similarity.dtype == probability.dtype == np.float32


def test_two_words_share_the_probability(encoder):
    vectors = encoder.encode_texts(["a dog", "a red star"])
    _, first = score_words(encoder, vectors, "a dog", contrast=["a red star"])
    _, second = score_words(encoder, vectors, "a red star", contrast=["a dog"])
    np.testing.assert_allclose(first + second, 1, atol=1e-6)
    assert first[0] > 0.5 > first[1]


def test_without_contrast_all_is_probable(encoder):
    vectors = encoder.encode_texts(["a dog", "a cat"])
    assert score_words(encoder, vectors, "a red star", contrast=())[1].tolist() == [1, 1]


def test_words_are_no_rival_of_themselves(encoder):
    vectors = encoder.encode_texts(["a dog"])
    probabilities = [
        score_words(encoder, vectors, "water", contrast=contrast)[1]
        for contrast in (["water", "sand"], ["sand"])
    ]
    np.testing.assert_array_equal(*probabilities)


def test_one_contrast_may_stand_alone(encoder):
    vectors = encoder.encode_texts(["a dog"])
    for a, b in zip(
        score_words(encoder, vectors, "water", contrast="sand"),
        score_words(encoder, vectors, "water", contrast=["sand"]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_templates_word_the_contrast_too(encoder):
    vectors = encoder.encode_texts(["a dog"])
    worded = score_words(encoder, vectors, "star", contrast=["sand"], templates="a photo of {}")
    plain = score_words(encoder, vectors, "a photo of star", contrast=["a photo of sand"])
    np.testing.assert_array_equal(worded, plain)


def test_scores_stay_finite_where_clip_is_very_sure(encoder, monkeypatch):
    scale = torch.tensor(math.log(1000))
    monkeypatch.setattr(encoder.model.logit_scale, "data", scale)
    _, probability = score_words(encoder, encoder.encode_texts(["sand", WORDS]), WORDS)
    assert probability.tolist() == pytest.approx([0, 1])


# Regions


def test_the_region_most_like_the_words_is_found(regions, scores, image, segmenter, encoder):
    best = regions[scores(WORDS)[0].argmax()]
    (found,) = find_words(image, WORDS, segmenter, encoder)
    assert masks_of([found]) == masks_of([best])
    assert (found.prompt, found.quality) == (Text(WORDS), best.quality)


def test_every_region_above_the_threshold_is_found_most_alike_first(
    regions, scores, image, segmenter, encoder
):
    cosines, probabilities = scores(WORDS)
    threshold = np.sort(probabilities)[-4:-2].mean()  # three reach it
    rows = [row for row in np.argsort(-cosines) if probabilities[row] >= threshold]
    assert 2 < len(rows) < len(regions)
    every = Text(WORDS, every=True)
    found = find_words(image, every, segmenter, encoder, threshold=threshold)
    assert masks_of(found) == masks_of(regions[row] for row in rows)
    assert {region.prompt for region in found} == {every}


def test_the_most_alike_of_those_above_the_threshold_is_found(
    regions, scores, image, segmenter, encoder
):
    # The region most like the words may be still more like the background.
    words = next(w for w in NAMES if scores(w)[0].argmax() != scores(w)[1].argmax())
    cosines, probabilities = scores(words)
    threshold = np.sort(probabilities)[-2:].mean()  # one reaches it
    (found,) = find_words(image, words, segmenter, encoder, threshold=threshold)
    assert masks_of([found]) == masks_of([regions[probabilities.argmax()]])
    (found,) = find_words(image, words, segmenter, encoder, contrast=())
    assert masks_of([found]) == masks_of([regions[cosines.argmax()]])


def test_the_encoding_is_the_one_asked_for(regions, scores, image, segmenter, encoder):
    best = {w: [scores(w, e)[0].argmax() for e in ("erase", "crop")] for w in NAMES}
    words = next(w for w, (erase, crop) in best.items() if erase != crop)
    for encoding, row in zip(("erase", "crop"), best[words], strict=True):
        (found,) = find_words(image, words, segmenter, encoder, encoding=encoding, threshold=0)
        assert masks_of([found]) == masks_of([regions[row]])


def test_words_that_match_nothing_say_how_near_the_best_region_came(
    regions, scores, image, segmenter, encoder
):
    best = scores("a dog")[1].max()
    message = (
        f"no region looks like 'a dog': of {len(regions)} regions the best has "
        f"probability {best:.2f}, below the threshold of"
    )
    with pytest.raises(NothingFoundError, match=message):
        find_words(image, "a dog", segmenter, encoder, threshold=best + 0.004)
    assert issubclass(NothingFoundError, ValueError)


def test_an_image_in_which_the_segmenter_finds_nothing_holds_no_words(image, segmenter, encoder):
    with pytest.raises(NothingFoundError, match="toysam finds no region in the image at all"):
        find_words(image, WORDS, segmenter, encoder, everything=NOTHING)


def test_an_image_of_one_pixel_may_be_what_words_mean(segmenter, encoder):
    pixel = np.full((1, 1, 3), 200, np.uint8)
    all_masks = MaskGeneratorConfig(1, pred_iou_thresh=0, stability_score_thresh=0)
    (found,) = find_words(pixel, WORDS, segmenter, encoder, threshold=0, everything=all_masks)
    assert found.mask.tolist() == [[True]]


def test_the_thing_named_is_the_thing_found(scenes, image, segmenter, encoder):
    things = scenes.objects_of(scenes.images["image_id"].iloc[-1]).set_index("category")
    for words, category in {"a blue dotted arrow": "arrow", "a purple diamond": "diamond"}.items():
        (found,) = find_words(image, words, segmenter, encoder)
        assert mask_iou(found.mask, scenes.mask(things.loc[category, "object_id"])) > 0.8


# Prompts of any kind


def test_prompts_of_all_kinds_become_regions_in_their_order(image, segmenter, encoder):
    prompts = [Box(3, 4, 30, 40), Text(WORDS), Whole(), Points(((20, 12),))]
    found = find_regions(image, prompts, segmenter, encoder)
    assert [region.prompt for region in found] == prompts
    expected = [
        segmenter.segment(image, prompts[0]),
        *find_words(image, WORDS, segmenter, encoder),
        segmenter.segment(image, prompts[2]),
        segmenter.segment(image, prompts[3]),
    ]
    assert masks_of(found) == masks_of(expected)


def test_options_are_for_the_words_which_may_become_several_regions(
    regions, image, segmenter, encoder
):
    every = Text(WORDS, every=True)
    found = find_regions(image, every, segmenter, encoder, threshold=0)
    assert sorted(masks_of(found)) == sorted(masks_of(regions))


def test_words_need_an_encoder_and_other_prompts_do_not(image, segmenter):
    (region,) = find_regions(image, Box(3, 4, 30, 40), segmenter)
    assert region.area > 0
    with pytest.raises(ValueError, match="Text.*'a blue arrow'.* needs an encoder"):
        find_regions(image, Text(WORDS), segmenter)
