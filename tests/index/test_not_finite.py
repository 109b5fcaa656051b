"""A model that overflows on one picture or region costs that one, by name and reason."""

import numpy as np
import pytest
import torch
from PIL import Image

from regionlab.data.collection import load_folder
from regionlab.data.images import ImageError
from regionlab.index.build import add_regions, build_index
from regionlab.index.verify import verify_index
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.regions.encodings import encode_regions

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)
REASON = "the model gave a vector that is not finite, or zero"


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 30 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return load_folder(tmp_path / "photos")


@pytest.fixture(params=["fp32", "bf16"])
def low(encoder_file, request):
    return load_encoder(f"toyclip/{encoder_file}", device="cpu", precision=request.param)


def overflow(monkeypatch, encoder, choose, value=float("nan")):
    """Let the vectors whose number, counted over all, is chosen be no numbers."""
    real, seen = encoder.model.encode_image, [0]

    def encode(pixels, **options):
        vectors = real(pixels, **options).clone()
        for row in range(len(vectors)):
            if choose(seen[0]):
                vectors[row, 0 if value else slice(None)] = value
            seen[0] += 1
        return vectors

    monkeypatch.setattr(encoder.model, "encode_image", encode)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_one_picture_without_a_vector_is_a_failure(photos, low, tmp_path, monkeypatch, value):
    whole = build_index(photos, low, tmp_path / "whole", batch_size=4)
    overflow(monkeypatch, low, lambda number: number == 2, value)
    with pytest.warns(UserWarning, match=f"1 files .*the first: 2.png: {REASON}"):
        index = build_index(photos, low, tmp_path / "index", batch_size=4)
    assert index.images["path"].tolist() == ["0.png", "1.png", "3.png"]
    np.testing.assert_array_equal(index.vectors, whole.vectors[[0, 1, 3]])
    assert index.failures["reason"].tolist() == [REASON]
    assert verify_index(index.folder) == []


def test_only_if_all_fail_the_build_stops(photos, encoder, tmp_path, monkeypatch):
    overflow(monkeypatch, encoder, lambda number: True)
    with pytest.raises(ValueError, match=f"not one of the 4 images .*0.png: {REASON}"):
        build_index(photos, encoder, tmp_path / "index")


def test_encoding_names_the_picture(photos, encoder, monkeypatch):
    files = [photos.root / path for path in photos.images["path"]]
    overflow(monkeypatch, encoder, lambda number: number in (1, 5))
    with pytest.raises(ImageError, match=f"1.png: {REASON}"):
        encoder.encode_images(files)
    with pytest.raises(ImageError, match=f"image 1: {REASON}"):
        encoder.encode_images([np.zeros((9, 9, 3), np.uint8)] * 3)


def test_encoding_pixels_is_strict_unless_told_otherwise(encoder, monkeypatch):
    pixels = torch.rand(3, *encoder.blank_pixels(1).shape[1:])
    whole = encoder.encode_pixels(pixels)
    overflow(monkeypatch, encoder, lambda number: number % 3 == 1)
    with pytest.raises(FloatingPointError, match=REASON):
        encoder.encode_pixels(pixels)
    vectors = encoder.encode_pixels(pixels, strict=False)
    assert np.isnan(vectors[1]).all()
    np.testing.assert_array_equal(vectors[[0, 2]], whole[[0, 2]])


def test_one_region_without_a_vector_is_left_out_by_name(photos, encoder, tmp_path, monkeypatch):
    segmenter = load_segmenter("toysam/untrained", device="cpu", precision="fp32")
    index = build_index(photos, encoder, tmp_path / "index")
    whole = add_regions(index, segmenter, encoder, everything=FEW)
    count = len(whole.regions)
    gone = whole.regions_of(1).start
    assert whole.regions_of(1).stop - gone > 1
    with monkeypatch.context() as patch:
        overflow(patch, encoder, lambda number: number == gone)
        with pytest.warns(UserWarning, match="1.png: 1 of its 3 regions left out: the model gave"):
            index = add_regions(index, segmenter, encoder, everything=FEW, fresh=True)
    assert index.region_failures["path"].tolist() == ["1.png"]
    assert len(index.regions) == count - 1
    assert index.manifest["regions"]["images_without"] == 0
    kept = np.arange(count) != gone
    np.testing.assert_array_equal(index.region_vectors, whole.region_vectors[kept])
    assert verify_index(index.folder) == []


@pytest.mark.parametrize("encoding", ["crop_erase", "tokens"])
def test_a_query_by_a_region_without_a_vector_is_refused(encoding, encoder, monkeypatch):
    image, masks = np.zeros((24, 30, 3), np.uint8), np.ones((2, 24, 30), bool)
    masks[1, :12] = False
    patches = np.ones((4, 4, encoder.dim), np.float32)
    patches[0] = np.inf  # only the first mask covers these
    monkeypatch.setattr("regionlab.regions.patch_tokens.encode_patches", lambda *_, **__: patches)
    overflow(monkeypatch, encoder, lambda number: number in (0, 2))
    with pytest.raises(FloatingPointError, match=REASON):
        encode_regions(encoder, image, masks, encoding=encoding)
    vectors = encode_regions(encoder, image, masks, encoding=encoding, strict=False)
    assert np.isfinite(vectors).all(axis=1).tolist() == [False, True]
