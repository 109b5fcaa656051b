"""All regions of an image against SAM's own generator, and in how much memory."""

import tracemalloc

import numpy as np
import pytest
import torch

from regionlab.models import sam as everything
from regionlab.models.sam import CachedPredictor, create_toysam, generate_masks
from regionlab.models.segmenter import MaskGeneratorConfig

from segment_anything import SamAutomaticMaskGenerator  # isort: skip

ALL = {
    "points_per_side": 3,
    "pred_iou_thresh": 0,
    "stability_score_thresh": 0,
    "stability_score_offset": 0.005,  # the logits of random weights are small
    "box_nms_thresh": 1,
}


@pytest.fixture(scope="module")
def sam():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_toysam()


@pytest.fixture
def predictor(sam):
    return CachedPredictor(sam, "fp32", 2)


def generate(predictor, image, settings):
    predictor.set_image(image)
    return generate_masks(predictor, settings)


def make_image(height=100, width=150):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return blocks[rows][:, columns]


def list_sams_own(sam, image, **settings):
    """Return the records of SAM's generator, best first and each mask once."""
    records = SamAutomaticMaskGenerator(sam, **settings).generate(image)
    kept = []
    for record in sorted(records, key=lambda record: -record["predicted_iou"]):
        masks = [other["segmentation"] for other in kept]
        if not any(np.array_equal(record["segmentation"], mask) for mask in masks):
            kept.append(record)
    return [record for record in kept if record["area"]]


def assert_same_records(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours["segmentation"].unpack(), theirs["segmentation"])
        for key in ("area", "predicted_iou", "stability_score", "point_coords"):
            assert ours[key] == theirs[key]


def sort_qualities(predictor, image):
    """Return the predicted quality of every mask, the best first, as SAM's generator asks."""
    predictor.set_image(image)
    points = everything.build_point_grid(ALL["points_per_side"]) * image.shape[1::-1]
    return everything._decode(predictor, points)[1].flatten().sort(descending=True)[0].tolist()


@pytest.mark.parametrize("good", [1, 2, 3, 4, 5, 6, 7, 27])
def test_any_number_of_good_masks_gives_the_records_of_sams_own_generator(sam, predictor, good):
    image = make_image()
    qualities = sort_qualities(predictor, image)
    assert len(qualities) == 27
    least = (qualities[good - 1] + qualities[good]) / 2 if good < 27 else 0
    settings = ALL | {"pred_iou_thresh": least}
    expected = list_sams_own(sam, image, **settings)
    found = generate(predictor, image, MaskGeneratorConfig(**settings))
    assert len(found) <= good
    assert_same_records(found, expected)


@pytest.mark.parametrize("pixels", [1, 3 * 100 * 150, 7 * 100 * 150])
@pytest.mark.parametrize("stable", [0, 0.6])
def test_masks_enlarged_a_few_at_a_time_are_the_same(sam, predictor, monkeypatch, pixels, stable):
    settings = ALL | {"stability_score_thresh": stable}
    expected = list_sams_own(sam, make_image(), **settings)
    assert 3 < len(expected) < (100 if stable == 0 else 27)
    monkeypatch.setattr(everything, "PIXELS", pixels)
    assert_same_records(
        generate(predictor, make_image(), MaskGeneratorConfig(**settings)), expected
    )


def test_never_are_more_logits_enlarged_than_the_limit_or_three(predictor, monkeypatch):
    counts, enlarge = [], everything._enlarge

    def watch(predictor, low):
        counts.append(len(low))
        return enlarge(predictor, low)

    monkeypatch.setattr(everything, "_enlarge", watch)
    for pixels, most in ((1, 3), (7 * 100 * 150, 6), (10**9, 27)):
        monkeypatch.setattr(everything, "PIXELS", pixels)
        generate(predictor, make_image(), MaskGeneratorConfig(**ALL))
        assert max(counts) == most
        assert sum(counts) == 27
        counts.clear()


def test_the_masks_of_a_large_picture_are_not_in_memory_together(predictor):
    image = make_image(800, 1200)
    generate(predictor, image, MaskGeneratorConfig(**ALL))  # encodes the image
    tracemalloc.start()
    records = generate(predictor, image, MaskGeneratorConfig(**ALL))
    kept, peak = tracemalloc.get_traced_memory()  # of NumPy, not of torch
    tracemalloc.stop()
    assert len(records) > 20
    assert kept < len(records) * 800 * 1200 / 8 / 4
    assert peak < kept + 6 * 800 * 1200
