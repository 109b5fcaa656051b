"""Preprocessing in two halves gives the pixels of the whole; large JPEGs may be decoded smaller."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from regionlab.models.pipeline import MARGIN, Preprocessing, pad_first
from regionlab.models.registry import load_encoder
from regionlab.studies.labels import rescale_twice

CPU = torch.device("cpu")
SHAPES = [(128, 128), (256, 256), (60, 200), (201, 133), (1, 30), (480, 640)]


def make_pictures(seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in SHAPES]


def in_halves(preprocess, pictures, dtype=torch.float32):
    steps = Preprocessing(preprocess, CPU, dtype)
    return steps.stack([steps.shape(picture) for picture in pictures])


@pytest.mark.parametrize("padding", ["none", "target", "square"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_halves_give_the_pixels_of_the_whole(encoder, padding, dtype):
    preprocess = pad_first(encoder.preprocess, padding)
    pictures = make_pictures()
    expected = torch.stack([preprocess(picture) for picture in pictures]).to(dtype)
    assert torch.equal(in_halves(preprocess, pictures, dtype), expected)


def test_pictures_wait_as_bytes(encoder):
    shaped = Preprocessing(encoder.preprocess, CPU, torch.float32).shape(make_pictures()[-1])
    assert shaped.dtype == np.uint8 and shaped.shape == (128, 128, 3)


def test_steps_that_are_not_known_stay_together(encoder):
    strange = rescale_twice(encoder).preprocess
    pictures = make_pictures()
    for preprocess in (strange, lambda picture: encoder.preprocess(picture) + 1):
        expected = torch.stack([preprocess(picture) for picture in pictures])
        assert torch.equal(in_halves(preprocess, pictures), expected)


# --- JPEGs decoded at reduced scale -----------------------------------------------------


def smallest(preprocess):
    return Preprocessing(preprocess, CPU, torch.float32).least_side


def test_pictures_keep_a_multiple_of_the_side_they_are_resized_to(encoder):
    assert smallest(encoder.preprocess) == MARGIN * 128
    encoder.preprocess.transforms[0].size, before = (96, 112), encoder.preprocess.transforms[0].size
    try:
        assert smallest(encoder.preprocess) == MARGIN * 112
    finally:
        encoder.preprocess.transforms[0].size = before


def test_where_resizing_does_not_come_first_pictures_are_read_in_full(encoder):
    assert smallest(pad_first(encoder.preprocess, "square")) is None
    assert smallest(lambda picture: encoder.preprocess(picture)) is None


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A JPEG so large that it may be decoded at half its size, with detail at all scales."""
    rng = np.random.default_rng(3)
    noise = np.fft.rfft2(rng.standard_normal((1024, 1280, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1280))
    frequency[0, 0] = 1
    image = np.fft.irfft2(noise / frequency[..., None], axes=(0, 1))
    image = 128 + 40 * image / image.std()
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def full(encoder_file):
    name = f"toyclip/{encoder_file}"
    return load_encoder(name, device="cpu", precision="fp32", fast_decode=False)


def test_a_reduced_jpeg_has_nearly_the_same_vector(encoder, full, large):
    reduced, whole = encoder.encode_images(large)[0], full.encode_images(large)[0]
    assert 0.999 < reduced @ whole
    assert not np.array_equal(reduced, whole)  # it was reduced at all


def test_size_and_digest_are_of_the_whole_file(encoder, large):
    [batch] = encoder.encode_stream([large])
    assert batch.sizes.tolist() == [[1280, 1024]]
    assert batch.digests == [hashlib.sha256(large.read_bytes()).hexdigest()]


def test_pictures_that_are_not_large_keep_every_bit(encoder, full, large, tmp_path):
    with Image.open(large) as picture:
        picture.resize((1278, 1022)).save(tmp_path / "small.jpg")
        picture.save(tmp_path / "large.png")
    paths = [tmp_path / "small.jpg", tmp_path / "large.png"]
    np.testing.assert_array_equal(encoder.encode_images(paths), full.encode_images(paths))


def test_decoding_is_part_of_the_fingerprint_but_not_of_the_space(encoder, full):
    assert encoder.fast_decode and not full.fast_decode
    assert full.fingerprint["decode"] == "full"
    assert encoder.fingerprint["decode"] == "JPEG reduced to 4 times the size or more"
    assert encoder.space == full.space
