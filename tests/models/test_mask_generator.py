"""All regions of an image against SAM's own generator, and in how much memory."""

import tracemalloc

import numpy as np
import pytest
import torch

from regionlab.models import mask_generator
from regionlab.models.mask_generator import decode_points, generate_masks, rank_records
from regionlab.models.registry import load_segmenter
from regionlab.models.sam import CachedPredictor, create_sams_own_generator, create_toysam
from regionlab.models.segmenter import MaskGeneratorConfig
from toybox.render import render_scene
from toybox.world import sample_scene, scene_rng

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


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def assert_same_records(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert iou(ours["segmentation"].unpack(), theirs["segmentation"]) > 0.999
        assert ours["area"] == ours["segmentation"].area
        assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=1e-5)
        assert ours["stability_score"] == pytest.approx(theirs["stability_score"], abs=1e-3)
        assert ours["point_coords"] == theirs["point_coords"]


def sort_qualities(predictor, image):
    """Return the predicted quality of every mask, the best first, as SAM's generator asks."""
    predictor.set_image(image)
    points = mask_generator.build_point_grid(ALL["points_per_side"]) * image.shape[1::-1]
    return decode_points(predictor, points).quality.sort(descending=True)[0].tolist()


# The decoder


def decode_as_sam_does(predictor, points):
    """Return logits (n, 3, 4g, 4g) and qualities (n, 3) of SAM's own decoder, point by point."""
    found = []
    for point in points:
        xy = torch.from_numpy(predictor.transform.apply_coords(point, predictor.original_size))
        found.append(
            predictor.predict_torch(xy[None, None], torch.ones(1, 1, dtype=torch.int))[2:0:-1]
        )
    logits, quality = (torch.cat(part) for part in zip(*found, strict=True))
    return logits, quality


def sample_points(count, width=150, height=100):
    return np.random.default_rng(1).uniform(0, (width, height), (count, 2))


@pytest.mark.parametrize("numbers", [1, 2 * 256 * 128, 10**9])
@pytest.mark.parametrize("count", [1, 5])
def test_points_are_decoded_as_by_sams_own_decoder(predictor, monkeypatch, numbers, count):
    monkeypatch.setattr(mask_generator, "NUMBERS", {"cpu": numbers})
    predictor.set_image(make_image())
    points = sample_points(count)
    logits, quality = decode_as_sam_does(predictor, points)
    found = decode_points(predictor, points)
    torch.testing.assert_close(found.logits, logits.flatten(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.quality, quality.flatten(), rtol=1e-4, atol=1e-5)
    assert found.rows.tolist() == np.repeat(np.arange(count), 3).tolist()


@pytest.mark.parametrize("good", [0, 1, 4, 14])
def test_only_masks_of_higher_quality_are_drawn(predictor, good):
    predictor.set_image(make_image())
    points = sample_points(5)
    every = decode_points(predictor, points)
    ranked = every.quality.sort(descending=True)[0]
    least = float(ranked[good - 1] + ranked[good]) / 2 if good else float(ranked[0]) + 1
    found = decode_points(predictor, points, least)
    kept = every.quality > least
    assert len(found.quality) == good
    torch.testing.assert_close(found.logits, every.logits[kept], rtol=1e-4, atol=1e-5)
    assert found.rows.tolist() == every.rows[kept].tolist()


# The generator


@pytest.mark.parametrize("height, width", [(256, 256), (128, 256), (256, 96), (150, 256)])
def test_trained_weights_give_the_masks_of_sams_own_generator(height, width):
    segmenter = load_segmenter("toysam", precision="fp32", device="cpu")
    predictor, settings = segmenter.predictor, segmenter.everything
    own = create_sams_own_generator(segmenter, settings)
    nearest = []
    for number in range(16):
        rng = scene_rng(0, "val", number)
        image = np.ascontiguousarray(render_scene(sample_scene(rng), rng)[0][:height, :width])
        predictor.set_image(image)
        found = [r["segmentation"].unpack() for r in generate_masks(predictor, settings)]
        expected = [record["segmentation"] for record in rank_records(own.generate(image))]
        assert len(found) == len(expected)
        nearest += [max(iou(mask, other) for other in found) for mask in expected]
    assert len(nearest) > 30
    assert np.mean(np.array(nearest) >= 0.99) >= 0.99
    assert min(nearest) > 0.95


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
    monkeypatch.setattr(mask_generator, "PIXELS", pixels)
    assert_same_records(
        generate(predictor, make_image(), MaskGeneratorConfig(**settings)), expected
    )


def test_never_are_more_logits_enlarged_than_the_limit_or_three(predictor, monkeypatch):
    counts, enlarge = [], mask_generator._enlarge

    def watch(predictor, low):
        counts.append(len(low))
        return enlarge(predictor, low)

    monkeypatch.setattr(mask_generator, "_enlarge", watch)
    for pixels, most in ((1, 3), (7 * 100 * 150, 6), (10**9, 27)):
        monkeypatch.setattr(mask_generator, "PIXELS", pixels)
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
