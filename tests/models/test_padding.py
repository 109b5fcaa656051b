"""Padding of long pictures, against the code of S4's authors, and in an encoder."""

import numpy as np
import pytest
from PIL import Image

from regionlab.models.pipeline import SquarePad, TargetPad
from regionlab.models.registry import load_encoder

SIZES = [(100, 60), (60, 100), (101, 60), (33, 100), (125, 100), (126, 100), (1, 50), (7, 300)]


def draw_picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(1, 256, (height, width, 3), dtype=np.uint8))


def pad_with_black(picture, across, along):
    return np.pad(np.asarray(picture), ((along, along), (across, across), (0, 0)))


def target_pad(picture, ratio):
    """As CLIP4Cir's TargetPad, commit dfed9f7."""
    w, h = picture.size
    if max(w, h) / min(w, h) < ratio:
        return np.asarray(picture)
    scaled = max(w, h) / ratio
    hp = max(int((scaled - w) / 2), 0)
    vp = max(int((scaled - h) / 2), 0)
    return pad_with_black(picture, hp, vp)


def square_pad(picture):
    """As CLIP4Cir's SquarePad."""
    w, h = picture.size
    side = max(w, h)
    return pad_with_black(picture, int((side - w) / 2), int((side - h) / 2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [1.25, 1.0, 2.0])
def test_target_pad_is_that_of_the_authors(size, ratio):
    picture = draw_picture(*size)
    np.testing.assert_array_equal(TargetPad(ratio)(picture), target_pad(picture, ratio))


@pytest.mark.parametrize("size", [*SIZES, (64, 64)])
def test_square_pad_is_that_of_the_authors(size):
    picture = draw_picture(*size)
    padded = SquarePad()(picture)
    np.testing.assert_array_equal(padded, square_pad(picture))
    assert max(padded.size) - min(padded.size) <= 1


def test_the_usual_ratio_is_5_to_4():
    assert TargetPad()(draw_picture(200, 100)).size == (200, 160)
    assert TargetPad()(draw_picture(100, 200)).size == (160, 200)


def test_a_picture_below_the_ratio_stays_as_it_is():
    picture = draw_picture(124, 100)
    assert TargetPad()(picture) is picture


@pytest.mark.parametrize("ratio", [0.99, 0, -1, float("nan")])
def test_a_ratio_below_1_is_refused(ratio):
    with pytest.raises(ValueError, match="is 1 or more, not"):
        TargetPad(ratio)


# In an encoder


@pytest.fixture(scope="module")
def padded(encoder_file):
    name = f"toyclip/{encoder_file}"
    return {
        padding: load_encoder(name, device="cpu", precision="fp32", padding=padding)
        for padding in ("target", "square")
    }


def test_without_padding_the_space_is_the_same_as_ever(encoder, encoder_file):
    name = f"toyclip/{encoder_file}"
    plain = load_encoder(name, device="cpu", precision="fp32", padding="none")
    assert plain.fingerprint == encoder.fingerprint
    assert "Pad" not in encoder.fingerprint["preprocess"]


def test_padding_is_part_of_fingerprint_and_space(encoder, padded):
    assert "TargetPad(1.25)" in padded["target"].fingerprint["preprocess"]
    assert "SquarePad()" in padded["square"].fingerprint["preprocess"]
    assert len({e.space for e in (encoder, *padded.values())}) == 3


@pytest.mark.parametrize(
    ("padding", "pad"), [("target", lambda p: target_pad(p, 1.25)), ("square", square_pad)]
)
def test_pictures_are_padded_before_the_square_is_cut_out(encoder, padded, padding, pad):
    picture = draw_picture(90, 260)
    found = padded[padding].encode_images(np.asarray(picture))
    np.testing.assert_allclose(found, encoder.encode_images(pad(picture)), atol=1e-6)
    assert np.abs(found - encoder.encode_images(np.asarray(picture))).max() > 1e-3


def test_square_pictures_have_the_same_vectors_with_padding(encoder, padded):
    image = np.asarray(draw_picture(80, 80))
    for other in padded.values():
        np.testing.assert_array_equal(other.encode_images(image), encoder.encode_images(image))


def test_an_unknown_padding_is_refused(encoder_file):
    with pytest.raises(ValueError, match="unknown padding 'left'; known: none, target, square"):
        load_encoder(f"toyclip/{encoder_file}", device="cpu", padding="left")


# Vectors as long as the model makes them


def test_image_vectors_may_keep_their_length(encoder):
    images = [np.asarray(draw_picture(50, 60, seed)) for seed in range(3)]
    raw, unit = encoder.encode_images(images, unit=False), encoder.encode_images(images)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(raw / lengths, unit, atol=1e-6)
    assert np.abs(lengths - 1).min() > 1e-2
    [batch] = encoder.encode_stream(images, unit=False)
    np.testing.assert_array_equal(batch.vectors, raw)


def test_text_vectors_may_keep_their_length(encoder):
    texts, templates = ["a star", "two rings"], ["{}", "a picture of {}"]
    raw = encoder.encode_texts(texts, templates=templates, unit=False)
    each = [
        encoder.encode_texts([t.replace("{}", x) for x in texts], unit=False) for t in templates
    ]
    np.testing.assert_allclose(raw, np.mean(each, axis=0), atol=1e-6)
    single = encoder.encode_texts(texts, unit=False)
    lengths = np.linalg.norm(single, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 1e-2
    np.testing.assert_allclose(single / lengths, encoder.encode_texts(texts), atol=1e-6)
