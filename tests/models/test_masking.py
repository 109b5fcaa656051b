"""Regions, the segmenter through the real SAM with random weights, and its weights by name."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from regionlab.data.masks import remove_small_components, rle_to_mask
from regionlab.data.prompts import Box, Points, Text, Whole
from regionlab.models import registry, weights
from regionlab.models import sam as toysam
from regionlab.models.mask_generator import rank_records
from regionlab.models.registry import load_segmenter
from regionlab.models.segmenter import (
    EmptyMaskError,
    MaskGeneratorConfig,
    Region,
    erase_background,
)
from regionlab.models.weights import WeightsError
from regionlab.util.files import hash_file

from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry  # isort: skip

CLICK = Points(((20, 12),))
# The logits of random weights are small, so stability is measured by a small step.
ALL = MaskGeneratorConfig(
    points_per_side=4,
    pred_iou_thresh=0,
    stability_score_thresh=0,
    stability_score_offset=0.005,
    box_nms_thresh=1,
)


def load(name, **options):
    return load_segmenter(name, device="cpu", **({"precision": "fp32", "islands": 0} | options))


def make_image(seed=0, height=48, width=64):
    """Blocks of colour, so that a SAM with random weights sees something."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return blocks[rows][:, columns]


@pytest.fixture(scope="module")
def model():
    return load("toysam/untrained").predictor.model


@pytest.fixture
def segmenter(model):
    """A segmenter that has seen nothing, by the same weights each time."""
    fresh = load("toysam/untrained", cache_size=2)
    fresh.predictor.model.load_state_dict(model.state_dict())
    return fresh


@pytest.fixture
def encoded(segmenter):
    """One entry for each image that goes through the real image encoder."""
    seen = []
    encoder = segmenter.predictor.model.image_encoder
    encoder.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    return seen


def predict(model, image, **prompts):
    """Ask SAM's own predictor."""
    predictor = SamPredictor(model)
    predictor.set_image(image)
    return predictor.predict(**prompts)


# Regions


def test_a_region_knows_its_box_area_and_rle():
    mask = np.zeros((5, 8), bool)
    mask[1:4, 2:7] = True
    mask[2, 3] = False
    region = Region(mask)
    assert region.box.tolist() == [2, 1, 7, 4]
    assert (region.area, type(region.area)) == (14, int)
    np.testing.assert_array_equal(rle_to_mask(region.rle), mask)
    assert (region.quality, region.stability, region.logits, region.prompt) == (1, None, None, None)


def test_a_mask_of_one_pixel_is_a_region():
    region = Region(np.ones((1, 1), bool))
    assert (region.area, region.box.tolist()) == (1, [0, 0, 1, 1])


def test_a_mask_without_pixels_is_no_region():
    with pytest.raises(ValueError, match="the mask has no pixels"):
        Region(np.zeros((5, 8), bool))


@pytest.mark.parametrize(
    "mask", [np.ones((5, 8), np.uint8), np.ones((1, 5, 8), bool), np.ones(5, bool), None, [[True]]]
)
def test_a_mask_of_another_shape_or_dtype_is_no_region(mask):
    with pytest.raises(ValueError, match=r"the mask must be \(H, W\) bool, not "):
        Region(mask)


# Erasing the background


def test_all_outside_of_the_mask_becomes_black():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) + 1
    mask = np.array([[True, False, False, True], [False, True, False, False]])
    before = image.copy()
    erased = erase_background(image, mask)
    np.testing.assert_array_equal(erased, image * mask[..., None])  # S0, equation 3
    assert erased.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_the_background_may_get_a_colour():
    erased = erase_background(
        np.ones((1, 2, 3), np.uint8), np.array([[1, 0]], bool), fill=(9, 8, 7)
    )
    assert erased.tolist() == [[[1, 1, 1], [9, 8, 7]]]


@pytest.mark.parametrize("fill", [(0, 0), 0, (0, 0, 256), (-1, 0, 0), (float("nan"), 0, 0)])
def test_a_fill_that_is_no_colour_is_refused(fill):
    with pytest.raises(ValueError, match=r"fill must be \(red, green, blue\) in \[0, 255\], not"):
        erase_background(make_image(), np.ones((48, 64), bool), fill=fill)


def test_a_mask_of_another_image_is_refused():
    with pytest.raises(ValueError, match=r"the mask has \(5, 8\) pixels, the image \(48, 64\)"):
        erase_background(make_image(), np.ones((5, 8), bool))
    with pytest.raises(ValueError, match="no pixels"):
        erase_background(make_image(), np.zeros((48, 64), bool))


# Prompts to masks


@pytest.mark.parametrize("likeliest", [0, 1, 2])
def test_one_click_gets_the_likeliest_of_three_masks(segmenter, likeliest):
    sam = segmenter.predictor.model
    with torch.no_grad():  # the first of the four masks is for prompts that are not ambiguous
        sam.mask_decoder.iou_prediction_head.layers[-1].bias[1 + likeliest] += 1
    asked = {"point_coords": np.array([[20, 12]]), "point_labels": np.array([1])}
    masks, qualities, low = predict(sam, make_image(), **asked)
    assert len({mask.tobytes() for mask in masks}) == 3
    region = segmenter.segment(make_image(), CLICK)
    np.testing.assert_array_equal(region.mask, masks[likeliest])
    np.testing.assert_array_equal(region.logits, low[likeliest][None])
    assert region.quality == pytest.approx(float(max(qualities)))
    assert region.prompt == CLICK


@pytest.mark.parametrize(
    "prompt, asked",
    [
        (Box(10, 5, 40, 30), {"box": [10, 5, 40, 30]}),
        (Points(((20, 12), (9, 9)), (1, 0)), {"point_coords": [[20, 12], [9, 9]],
                                              "point_labels": [1, 0]}),
        (Points(((20, 12),), box=Box(10, 5, 40, 30)), {"point_coords": [[20, 12]],
                                                       "point_labels": [1],
                                                       "box": [10, 5, 40, 30]}),
        (Points(((20, 12),), (0,), Box(10, 5, 40, 30)), {"point_coords": [[20, 12]],
                                                         "point_labels": [0],
                                                         "box": [10, 5, 40, 30]}),
        (Box(-9, 5, 99, 30), {"box": [0, 5, 64, 30]}),
    ],
    ids=["box", "points", "point in box", "negative point in box", "box over the edge"],
)  # fmt: skip
def test_a_box_or_several_points_get_the_single_mask(segmenter, model, prompt, asked):
    asked = {name: np.array(value) for name, value in asked.items()}
    [mask], [quality], low = predict(model, make_image(), multimask_output=False, **asked)
    region = segmenter.segment(make_image(), prompt)
    np.testing.assert_array_equal(region.mask, mask)
    np.testing.assert_array_equal(region.logits, low)
    assert region.quality == pytest.approx(float(quality))
    assert (region.mask.shape, region.mask.dtype) == ((48, 64), bool)
    assert 0 < region.area < 48 * 64


def test_the_whole_image_needs_no_model(segmenter, encoded):
    region = segmenter.segment(make_image(), Whole())
    assert region.area == 48 * 64
    assert (region.quality, region.prompt) == (1, Whole())
    assert encoded == []


def test_words_are_asked_elsewhere(segmenter):
    with pytest.raises(TypeError, match="Text.*'a star'.* is found by grounding.find_words"):
        segmenter.segment(make_image(), Text("a star"))


def test_what_is_no_prompt_is_refused(segmenter):
    with pytest.raises(TypeError, match=r"\(1, 2\) is no prompt"):
        segmenter.segment(make_image(), (1, 2))


@pytest.mark.parametrize("prompt", [Box(64, 0, 70, 9), Points(((3, 48),))])
def test_a_prompt_outside_the_image_is_refused(segmenter, encoded, prompt):
    with pytest.raises(ValueError, match="outside the image, which is 64 pixels wide and 48 high"):
        segmenter.segment(make_image(), prompt)
    assert encoded == []


def test_an_empty_mask_says_what_to_try(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter.predictor.model, "mask_threshold", 1e9)
    message = r"toysam/untrained finds nothing at Box\(x0=1.*draw a box around it"
    with pytest.raises(EmptyMaskError, match=message):
        segmenter.segment(make_image(), Box(1, 2, 30, 40))
    assert issubclass(EmptyMaskError, ValueError)


# Refinement


def test_a_further_click_starts_from_the_mask_before(segmenter, model):
    first = segmenter.segment(make_image(), CLICK)
    clicks = Points(((20, 12), (50, 40)), (1, 0))
    second = segmenter.segment(make_image(), clicks, previous=first)
    [mask], _, low = predict(
        model,
        make_image(),
        point_coords=np.array(clicks.xy),
        point_labels=np.array(clicks.labels),
        mask_input=first.logits,
        multimask_output=False,
    )
    np.testing.assert_array_equal(second.mask, mask)
    np.testing.assert_array_equal(second.logits, low)
    assert not np.array_equal(second.logits, segmenter.segment(make_image(), clicks).logits)


def test_a_refined_click_is_not_ambiguous_any_more(segmenter, model):
    first = segmenter.segment(make_image(), CLICK)
    [mask], _, low = predict(
        model,
        make_image(),
        point_coords=np.array(CLICK.xy),
        point_labels=np.array([1]),
        mask_input=first.logits,
        multimask_output=False,
    )
    refined = segmenter.segment(make_image(), CLICK, previous=first)
    np.testing.assert_array_equal(refined.logits, low)


def test_only_a_region_of_this_image_and_model_can_be_refined(segmenter):
    first = segmenter.segment(make_image(), CLICK)
    with pytest.raises(ValueError, match=r"is of an image of \(48, 64\).*has \(64, 64\)"):
        segmenter.segment(make_image(height=64), CLICK, previous=first)
    whole = segmenter.segment(make_image(), Whole())
    with pytest.raises(ValueError, match=r"has logits None, toysam/untrained needs \(1, 64, 64\)"):
        segmenter.segment(make_image(), CLICK, previous=whole)
    other = Region(first.mask, logits=np.zeros((1, 256, 256), np.float32))
    with pytest.raises(ValueError, match=r"has logits \(1, 256, 256\)"):
        segmenter.segment(make_image(), CLICK, previous=other)


# Images


@pytest.mark.parametrize(
    "image, told",
    [
        (np.zeros((9, 9), np.uint8), r"\(9, 9\) uint8"),
        (np.zeros((9, 9, 4), np.uint8), r"\(9, 9, 4\) uint8"),
        (np.zeros((9, 9, 3), np.float32), r"\(9, 9, 3\) float32"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\) uint8"),
        (None, r"\(\) NoneType"),
        ("a.png", r"\(\) str"),
    ],
)
def test_what_is_no_image_is_refused(segmenter, image, told):
    for ask in (
        lambda: segmenter.set_image(image),
        lambda: segmenter.segment(image, CLICK),
        lambda: segmenter.segment(image, Whole()),
        lambda: segmenter.segment_everything(image),
        lambda: erase_background(image, np.ones((9, 9), bool)),
    ):
        with pytest.raises(ValueError, match=rf"must be \(H, W, 3\) uint8 RGB, not {told}"):
            ask()


@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (1, 256), (256, 1), (3, 300)])
def test_small_and_long_images_have_masks_of_their_own_size(segmenter, height, width):
    image = make_image(height=height, width=width)
    region = segmenter.segment(image, Box(0, 0, 1, 1))
    assert region.mask.shape == (height, width)
    for found in segmenter.segment_everything(image, settings=ALL):
        assert found.mask.shape == (height, width)


@pytest.mark.parametrize("height, width", [(1, 257), (2000, 3)])
def test_an_image_too_narrow_to_be_seen_is_refused(segmenter, height, width):
    image = make_image(height=height, width=width)
    message = rf"too narrow: {width} x {height} pixels.* longer side becomes 128"
    with pytest.raises(ValueError, match=message):
        segmenter.segment(image, Box(0, 0, 1, 1))
    assert segmenter.segment(image, Whole()).area == height * width


def test_an_image_may_be_a_view(segmenter):
    expected = segmenter.segment(np.ascontiguousarray(make_image()[::-1]), CLICK)
    np.testing.assert_array_equal(segmenter.segment(make_image()[::-1], CLICK).mask, expected.mask)


# The memory of images


def test_an_image_is_encoded_once_for_all_prompts(segmenter, encoded):
    image = make_image()
    segmenter.set_image(image)
    assert len(encoded) == 1
    segmenter.segment(image, CLICK)
    segmenter.segment(image.copy(), Box(1, 2, 30, 40))
    segmenter.segment_everything(image, settings=ALL)
    segmenter.segment(image, Points(((3, 4), (5, 6))))
    assert len(encoded) == 1


def test_a_remembered_image_gives_the_same_mask_after_others(segmenter, encoded):
    tall = make_image(1, height=80, width=30)
    first = segmenter.segment(make_image(), CLICK)
    segmenter.segment(tall, CLICK)
    again = segmenter.segment(make_image(), CLICK)
    assert len(encoded) == 2
    np.testing.assert_array_equal(again.mask, first.mask)


def test_a_changed_image_is_another_image(segmenter, encoded):
    image = make_image()
    segmenter.set_image(image)
    image[0, 0, 0] += 1
    segmenter.set_image(image)
    segmenter.set_image(image.reshape(64, 48, 3))  # the same bytes
    assert len(encoded) == 3


def test_the_image_used_longest_ago_is_forgotten_first(segmenter, encoded):
    a, b, c = (make_image(seed) for seed in range(3))
    for image in (a, b, a, c):  # room for two: b goes
        segmenter.set_image(image)
    assert len(encoded) == 3
    segmenter.set_image(a)
    segmenter.set_image(c)
    assert len(encoded) == 3
    segmenter.set_image(b)
    assert len(encoded) == 4


def test_the_memory_holds_one_image_at_least():
    with pytest.raises(ValueError, match="cache_size must be at least 1, not 0"):
        load("toysam/untrained", cache_size=0)


def test_in_bf16_the_encoder_computes_and_the_decoder_does_not(segmenter):
    low = load("toysam/untrained", precision="bf16")
    image = make_image()
    dtypes = {}
    sam = low.predictor.model
    for name, part in {"encoder": sam.image_encoder.neck[0], "decoder": sam.mask_decoder}.items():
        part.register_forward_hook(
            lambda module, args, output, name=name: dtypes.update(
                {name: (output[0] if isinstance(output, tuple) else output).dtype}
            )
        )
    region, expected = low.segment(image, CLICK), segmenter.segment(image, CLICK)
    assert dtypes == {"encoder": torch.bfloat16, "decoder": torch.float32}
    assert low.precision == low.fingerprint["precision"] == "bf16"
    features, exact = low.predictor.features, segmenter.predictor.features
    assert features.dtype == torch.float32
    assert not torch.equal(features, exact)
    assert torch.cosine_similarity(features.flatten(), exact.flatten(), 0) > 0.999
    assert np.corrcoef(region.logits.ravel(), expected.logits.ravel())[0, 1] > 0.99


# Everything


def slow_everything(model, image, settings):
    """Sort SAM's own records, and compare each mask with every better one."""
    generator = SamAutomaticMaskGenerator(
        model,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
    )
    records = generator.generate(image)
    order = sorted(range(len(records)), key=lambda i: (-records[i]["predicted_iou"], i))
    kept = []
    for record in (records[i] for i in order):
        mask = record["segmentation"]
        if mask.any() and not any(np.array_equal(mask, k["segmentation"]) for k in kept):
            kept.append(record)
    return records, kept


@pytest.mark.parametrize("height, width", [(48, 64), (6, 8)])
def test_everything_is_what_sam_finds_best_first_and_each_mask_once(
    segmenter, model, height, width
):
    image = make_image(height=height, width=width)
    records, kept = slow_everything(model, image, ALL)
    regions = segmenter.segment_everything(image, settings=ALL)
    assert 3 < len(kept) == len(regions)
    assert height > 6 or len(kept) < len(records)  # there were duplicates to remove
    for region, record in zip(regions, kept, strict=True):
        assert (region.mask != record["segmentation"]).mean() < 1e-3
        assert region.quality == pytest.approx(record["predicted_iou"], abs=1e-6)
        assert region.stability == pytest.approx(record["stability_score"], abs=1e-3)
        assert region.prompt == Points(record["point_coords"])
    qualities = [region.quality for region in regions]
    assert qualities == sorted(qualities, reverse=True)


@pytest.mark.parametrize(
    "change",
    [
        {"pred_iou_thresh": 0.09},
        {"stability_score_thresh": 0.65},
        {"stability_score_thresh": 0.2, "stability_score_offset": 0.02},
        {"box_nms_thresh": 0.9},
        {"points_per_side": 2},
    ],
    ids=str,
)
def test_each_setting_reaches_sam(segmenter, model, change):
    settings = replace(ALL, **change)
    records, kept = slow_everything(model, make_image(), settings)
    regions = segmenter.segment_everything(make_image(), settings=settings)
    expected = [record["predicted_iou"] for record in kept]
    assert [region.quality for region in regions] == pytest.approx(expected, abs=1e-6)
    everything = segmenter.segment_everything(make_image(), settings=ALL)
    assert 0 < len(regions) < len(everything)


def test_small_regions_go_and_the_best_stay(segmenter):
    regions = segmenter.segment_everything(make_image(), settings=ALL)
    areas = [region.area for region in regions]
    middle = sorted(areas)[len(areas) // 2]
    large = segmenter.segment_everything(make_image(), settings=replace(ALL, min_area=middle))
    assert [region.area for region in large] == [area for area in areas if area >= middle]
    few = replace(ALL, min_area=middle, max_regions=2)
    best = segmenter.segment_everything(make_image(), settings=few)
    assert [region.quality for region in best] == [region.quality for region in large][:2]


def test_where_nothing_passes_the_thresholds_there_is_nothing(segmenter):
    assert (
        segmenter.segment_everything(make_image(), settings=MaskGeneratorConfig(points_per_side=2))
        == []
    )


def test_records_of_equal_quality_keep_their_order_and_duplicates_their_best():
    left, right = np.array([[True, False]]), np.array([[False, True]])
    records = [
        {"segmentation": mask, "predicted_iou": quality, "n": n}
        for n, (mask, quality) in enumerate([(left, 0.3), (right, 0.5), (left, 0.5), (right, 0.9)])
    ]
    assert [record["n"] for record in rank_records(records)] == [3, 2]
    assert [record["n"] for record in rank_records(records[:3])] == [1, 2]


@pytest.mark.parametrize(
    "field, value",
    [
        ("points_per_side", 0),
        ("points_per_batch", 0),
        ("min_area", 0),
        ("max_regions", 0),
        ("pred_iou_thresh", 1.1),
        ("stability_score_thresh", -0.1),
        ("box_nms_thresh", float("nan")),
        ("stability_score_offset", 0),
        ("stability_score_offset", float("inf")),
    ],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*, not {value}"):
        MaskGeneratorConfig(**{field: value})


def test_sams_own_settings_are_the_default_and_toysam_has_its_own(segmenter):
    own = SamAutomaticMaskGenerator(segmenter.predictor.model)
    for name, value in vars(MaskGeneratorConfig()).items():
        if hasattr(own, name):
            assert value == getattr(own, name), name
    assert len(own.point_grids[0]) == MaskGeneratorConfig().points_per_side ** 2
    assert segmenter.everything.points_per_side < MaskGeneratorConfig().points_per_side


# Names


@pytest.mark.parametrize(
    "name, meant", [("toy-sam", "toysam"), ("ViT-B", "vit_b"), ("vit_hh/untrained", "vit_h")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"unknown segmenter '{name}'.*did you mean.*{meant}"):
        load_segmenter(name)


def test_a_name_like_nothing_lists_the_known_ones():
    with pytest.raises(ValueError, match="'@@@'; known: toysam, vit_b, vit_l, vit_h, each alone"):
        load_segmenter("@@@")


def test_unknown_devices_and_precisions_are_named():
    with pytest.raises(ValueError, match="cannot use device 'abacus'"):
        load_segmenter("toysam/untrained", device="abacus")
    with pytest.raises(ValueError, match="unknown precision 'fp8'"):
        load("toysam/untrained", precision="fp8")


def test_untrained_weights_are_the_same_each_time_and_leave_the_callers_random_numbers(segmenter):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    other = load("toysam/untrained")
    torch.testing.assert_close(torch.rand(2), expected)
    first, second = (s.segment(make_image(), CLICK) for s in (segmenter, other))
    np.testing.assert_array_equal(first.logits, second.logits)
    assert other.fingerprint == {
        "model": "toysam/untrained",
        "weights_sha256": f"untrained: seed 0 of torch {torch.__version__}",
        "precision": "fp32",
    }


# Weights


@pytest.fixture(scope="module")
def toysam_file(tmp_path_factory):
    """Weights of toysam's architecture with random numbers other than the untrained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = toysam.create_toysam().state_dict()
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)
    return path


def publish(monkeypatch, name="vit_b", **changes):
    """Change where or as what SAM's weights are published."""
    model = registry.MODELS[name]
    monkeypatch.setitem(
        registry.MODELS, name, replace(model, weights=replace(model.weights, **changes))
    )


@pytest.fixture
def weights_folder(monkeypatch, tmp_path):
    folder = tmp_path / "weights"
    monkeypatch.setattr(weights, "WEIGHTS", folder)
    return folder


def test_toysam_comes_from_its_file(monkeypatch, toysam_file, tmp_path):
    shutil.copy(toysam_file, tmp_path / "toysam.safetensors")
    monkeypatch.setattr(weights, "TOYBOX", tmp_path)
    segmenter = load("toysam")
    assert segmenter.fingerprint["model"] == "toysam"
    assert segmenter.fingerprint["weights_sha256"] == hash_file(toysam_file)
    expected = load_file(toysam_file)
    for name, tensor in segmenter.predictor.model.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, expected[name].float(), rtol=0, atol=0)


def test_a_missing_toysam_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "TOYBOX", tmp_path)
    with pytest.raises(WeightsError, match="toysam's weights are not at .*run `make train`"):
        load("toysam")


def test_a_file_of_ones_own_is_loaded_in_either_format(toysam_file, tmp_path):
    torch.save(load_file(toysam_file), tmp_path / "mine.pth")
    first, second = load(f"toysam/{toysam_file}"), load(f"toysam/{tmp_path / 'mine.pth'}")
    assert first.fingerprint["model"] == "toysam/random.safetensors"
    assert second.fingerprint["model"] == "toysam/mine.pth"
    assert second.fingerprint["weights_sha256"] == hash_file(tmp_path / "mine.pth")
    a, b = (s.segment(make_image(), CLICK).logits for s in (first, second))
    np.testing.assert_array_equal(a, b)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(WeightsError, match="no weights 'nowhere.pth' for vit_b: .*no such file"):
        load("vit_b/nowhere.pth")


class Gift:
    """What a pickle runs when it is opened."""

    def __reduce__(self):
        return print, ("opened",)


def harmed(kind, good, path):
    state = load_file(good)
    name = next(iter(state))
    if kind == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "cut.safetensors":
        path.write_bytes(good.read_bytes()[:-1000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("404: Not Found")
    else:
        content = {
            "code": {**state, "gift": Gift()},
            "nested": {"first": state, "second": state},
            "a list": list(state.values()),
            "a tensor lost": {key: value for key, value in state.items() if key != name},
            "a tensor more": {**state, "more": torch.zeros(2)},
            "another shape": {**state, name: torch.zeros(2, 3)},
            "not finite": {**state, name: torch.full_like(state[name], float("nan"))},
        }[kind]
        torch.save(content, path)


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("cut", "it may be cut short"),
        ("cut.safetensors", "it may be cut short"),
        ("empty", "it may be cut short"),
        ("text", "it is damaged"),
        ("code", "holds more than tensors, which is not loaded"),
        ("nested", "it holds several state dicts, first, second"),
        ("a list", "it is no state dict"),
        ("a tensor lost", "another architecture than toysam: Missing key(s)"),
        ("a tensor more", "another architecture than toysam"),
        ("another shape", "another architecture than toysam"),
        ("not finite", "holds numbers that are not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_sum(
    toysam_file, tmp_path, capsys, kind, reason
):
    path = tmp_path / ("harmed.safetensors" if kind.endswith("safetensors") else "harmed.pth")
    harmed(kind, toysam_file, path)
    with pytest.raises(WeightsError) as caught:
        load(f"toysam/{path}")
    message = str(caught.value)
    assert message.startswith(f"{path} (SHA-256 {hash_file(path)}) cannot be loaded: ")
    assert reason in message
    assert len(message.partition("loaded: ")[2]) < 300
    assert capsys.readouterr().out == ""  # nothing in the file was run


def test_a_checkpoint_of_the_shape_of_vit_b_loads_by_its_name(monkeypatch, weights_folder):
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in sam_model_registry["vit_b"]().state_dict().items()}
    # All tensors show the same numbers, so that the file is small.
    largest = max(shape.numel() for shape in shapes.values())
    numbers = torch.randn(largest, generator=torch.Generator().manual_seed(0)).mul_(0.02).half()
    state = {name: numbers[: shape.numel()].view(shape) for name, shape in shapes.items()}
    name = "sam_vit_b_01ec64.pth"
    weights_folder.mkdir()
    torch.save(state, weights_folder / name)
    digest = hash_file(weights_folder / name)
    publish(monkeypatch, sha256=digest)
    segmenter = load("vit_b")
    own = registry._find_weights("vit_b", str(weights_folder / name))  # as vit_b/<file>
    assert own == registry._find_weights("vit_b", "")
    expected = {"model": "vit_b", "weights_sha256": digest, "precision": "fp32"}
    assert segmenter.fingerprint == expected
    assert segmenter.everything == MaskGeneratorConfig()
    sam = segmenter.predictor.model
    assert sum(tensor.numel() for tensor in sam.parameters()) > 93_000_000
    for name, tensor in sam.state_dict().items():
        torch.testing.assert_close(tensor, state[name].float(), rtol=0, atol=0)
    sam.image_encoder.blocks = sam.image_encoder.blocks[:1]  # all twelve take too long for a test
    sam.mask_threshold = -float("inf")  # such weights may find nothing
    region = segmenter.segment(make_image(height=30, width=50), Box(3, 3, 40, 25))
    assert region.mask.all()
    assert region.mask.shape == (30, 50)
    assert region.logits.shape == (1, 256, 256)


def test_an_official_file_that_is_another_is_told_from_its_sum(weights_folder):
    weights_folder.mkdir()
    path = weights_folder / "sam_vit_l_0b3195.pth"
    path.write_bytes(b"half of it")
    with pytest.raises(WeightsError, match="is not the published file: its SHA-256 is") as caught:
        load("vit_l")
    assert hash_file(path) in str(caught.value)
    assert registry.MODELS["vit_l"].weights.sha256 in str(caught.value)


def test_without_the_network_the_error_says_what_to_do_at_once(monkeypatch, weights_folder):
    # A port that nothing listens on, so that no test reaches out.
    publish(monkeypatch, "vit_h", url="http://127.0.0.1:9/segment_anything/sam_vit_h_4b8939.pth")
    started = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load("vit_h")
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    assert message.startswith("cannot download vit_h: ")
    assert "Fetch http://127.0.0.1:9/segment_anything/sam_vit_h_4b8939.pth on" in message
    assert f"put the file at {weights_folder / 'sam_vit_h_4b8939.pth'}." in message


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A folder that is published on this machine under the address of SAM's weights."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    publish(monkeypatch, url=f"http://127.0.0.1:{server.server_port}/sam_vit_b_01ec64.pth")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_and_kept(monkeypatch, weights_folder, server):
    (server / "sam_vit_b_01ec64.pth").write_bytes(b"weights")
    digest = hash_file(server / "sam_vit_b_01ec64.pth")
    publish(monkeypatch, sha256=digest)
    found = registry._find_weights("vit_b", "")
    assert found.path == weights_folder / "sam_vit_b_01ec64.pth"
    assert (found.path.read_bytes(), found.sha256) == (b"weights", digest)
    (server / "sam_vit_b_01ec64.pth").unlink()
    assert registry._find_weights("vit_b", "") == found  # not fetched again


def test_a_damaged_download_leaves_nothing(weights_folder, server):
    (server / "sam_vit_b_01ec64.pth").write_bytes(b"half of it")
    with pytest.raises(WeightsError, match="cannot download vit_b: invalid hash value"):
        registry._find_weights("vit_b", "")
    assert list(weights_folder.iterdir()) == []


# Islands


def test_small_islands_go_and_halves_stay():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[12:, 12:] = mask[19, 0] = True
    whole = remove_small_components(mask, 0.1)
    assert whole.sum() == 100 + 64 and not whole[19, 0]
    assert remove_small_components(mask, 0.5).sum() == 100


def test_parts_that_touch_at_a_corner_are_one():
    mask = np.eye(4, dtype=bool)
    assert (remove_small_components(mask, 1) == mask).all()


def test_the_largest_part_stays_however_small_its_share():
    mask = np.zeros((5, 9), bool)
    mask[::2, ::2] = mask[0, 1] = True
    assert remove_small_components(mask, 0.9).sum() == 3


def test_an_answer_has_its_islands_taken_away(model):
    raw = load("toysam/untrained").segment(make_image(), CLICK).mask
    assert (load("toysam/untrained", islands=0.3).segment(make_image(), CLICK).mask
            == remove_small_components(raw, 0.3)).all()  # fmt: skip


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_of_islands_is_between_none_and_all(share):
    with pytest.raises(ValueError, match=str(share)):
        remove_small_components(np.ones((2, 2), bool), share)
