"""What CLIP is shown of a region, and the vectors that come of it."""

import numpy as np
import pytest
import torch

from regionlab.models.encoder import Encoder
from regionlab.models.registry import load_encoder
from regionlab.regions.encodings import (
    BLUR,
    DEFAULT_ENCODING,
    LINE,
    MEAN_COLOR,
    REGION_ENCODINGS,
    encode_regions,
    find_encoding,
    find_mean_color,
    render_region,
)

import open_clip  # isort: skip

PICTURES = [name for name, encoding in REGION_ENCODINGS.items() if encoding.is_image]
SIZES = [(1, 1), (1, 7), (9, 1), (5, 8), (33, 20)]


@pytest.fixture(scope="module")
def toyclip():
    """Trained: with random weights the vectors of any two pictures are all but the same."""
    return load_encoder("toyclip", device="cpu", precision="fp32")


def make_image(height=48, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box_mask(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def disc_mask(size, y, x, radius):
    rows, columns = np.indices(size)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def change(image, where):
    return np.where(where[..., None], 255 - image, image)


# The registry


def test_the_encodings_and_their_cost():
    assert list(REGION_ENCODINGS) == [
        "erase", "erase_mean", "crop", "crop_context", "crop_erase", "blur", "red_circle", "tokens"
    ]  # fmt: skip
    assert DEFAULT_ENCODING in REGION_ENCODINGS
    assert all(name == encoding.name for name, encoding in REGION_ENCODINGS.items())
    assert all(encoding.summary and encoding.source for encoding in REGION_ENCODINGS.values())
    costs = {name: encoding.passes for name, encoding in REGION_ENCODINGS.items()}
    assert costs.pop("tokens") == "one per image"
    assert set(costs.values()) == {"one per region"}


def test_an_unknown_encoding_is_answered_with_the_known_ones(encoder):
    image, mask = make_image(), np.ones((48, 48), bool)
    for call in (
        lambda: find_encoding("crops"),
        lambda: render_region(image, mask, "crops"),
        lambda: encode_regions(encoder, image, [mask], encoding="crops"),
    ):
        with pytest.raises(ValueError, match="unknown region encoding 'crops'; known: erase, "):
            call()


# What is shown


def test_erase_is_the_papers_product_on_a_square_image():
    image, mask = make_image(), disc_mask((48, 48), 10, 30, 8)
    shown = render_region(image, mask, "erase")
    np.testing.assert_array_equal(shown, image * mask[..., None])
    shown = render_region(image, mask, "erase_mean")
    np.testing.assert_array_equal(shown[mask], image[mask])
    assert (shown[~mask] == MEAN_COLOR).all()


@pytest.mark.parametrize("encoding", ["erase", "erase_mean", "blur", "red_circle"])
@pytest.mark.parametrize("size", [(10, 24), (24, 11)])
def test_whole_images_are_padded_to_a_square_so_that_nothing_is_cut_off(encoding, size):
    image, mask = make_image(*size), np.ones(size, bool)
    top, left = ((24 - n + 1) // 2 for n in size)
    shown = render_region(image, mask, encoding)
    assert shown.shape == (24, 24, 3)
    inside = shown[top : top + size[0], left : left + size[1]]
    same = (inside == image).all(2)
    assert same.mean() > 0.7 if encoding == "red_circle" else same.all()
    fill = (0, 0, 0) if encoding == "erase" else MEAN_COLOR
    padding = np.ones((24, 24), bool)
    padding[top : top + size[0], left : left + size[1]] = False
    assert (shown[padding] == fill).all()


def test_crop_is_the_tight_box_in_a_square_of_the_mean_colour():
    image, mask = make_image(), box_mask((48, 48), 5, 10, 7, 14)
    mask[5, 10] = False  # the box stays, and so does this pixel
    shown = render_region(image, mask, "crop")
    assert shown.shape == (4, 4, 3)
    np.testing.assert_array_equal(shown[1:3], image[5:7, 10:14])
    assert (shown[[0, 3]] == MEAN_COLOR).all()


def test_crop_erase_leaves_only_the_region_of_the_crop():
    image, mask = make_image(), box_mask((48, 48), 5, 10, 7, 14)
    mask[5, 10] = False
    shown = render_region(image, mask, "crop_erase")
    assert (shown[1, 0] == MEAN_COLOR).all()
    np.testing.assert_array_equal(shown[1, 1:], image[5, 11:14])
    np.testing.assert_array_equal(shown[2], image[6, 10:14])
    assert (shown[[0, 3]] == MEAN_COLOR).all()


def test_crop_context_shows_what_is_around_and_pads_only_beyond_the_border():
    image = make_image()
    shown = render_region(image, box_mask((48, 48), 20, 20, 24, 22), "crop_context")
    np.testing.assert_array_equal(shown, image[19:25, 18:24])  # side 6 for a box of 2 x 4
    shown = render_region(image, box_mask((48, 48), 0, 44, 4, 48), "crop_context")
    np.testing.assert_array_equal(shown[1:, :5], image[:5, 43:])
    assert (shown[0] == MEAN_COLOR).all() and (shown[:, 5] == MEAN_COLOR).all()


def test_blur_keeps_the_region_and_smooths_the_rest():
    image, mask = make_image(96, 96), disc_mask((96, 96), 40, 50, 9)
    shown = render_region(image, mask, "blur")
    np.testing.assert_array_equal(shown[mask], image[mask])
    assert image[~mask].std() > 70
    assert shown[~mask].std() < 10


def test_blur_is_as_strong_as_the_image_is_large():
    small, large = np.zeros((64, 64, 3), np.uint8), np.zeros((192, 192, 3), np.uint8)
    small[:, 32:], large[:, 96:] = 255, 255
    masks = [box_mask(image.shape[:2], 0, 0, 1, 1) for image in (small, large)]
    of_small, of_large = (
        render_region(image, mask, "blur")[-1, :, 0].astype(int)
        for image, mask in zip((small, large), masks, strict=True)
    )
    assert np.abs(of_small - of_large[1::3]).max() <= 3
    # A Gaussian edge climbs from 16 to 84 per cent within a deviation to either side.
    wide = np.count_nonzero((of_large > 0.3 * 255) & (of_large < 0.7 * 255)) / 192
    assert wide == pytest.approx(2 * 0.524 * BLUR, rel=0.2)


def test_the_red_circle_runs_around_the_box_and_leaves_what_is_in_it():
    image, mask = make_image(200, 200), box_mask((200, 200), 50, 80, 90, 140)
    shown = render_region(image, mask, "red_circle")
    red = (shown == (255, 0, 0)).all(2)
    np.testing.assert_array_equal(shown[~red], image[~red])
    line = round(LINE * 200)
    rows, columns = np.indices(mask.shape) + 0.5
    away = np.hypot((rows - 70) / 20, (columns - 110) / 30)  # 1 where the box's ellipse is
    assert not red[away < 1].any()
    assert not red[away > 1 + (line + 1) / 20].any()
    for spots in (red[:70, 110], red[70:, 110], red[70, :110], red[70, 110:]):
        assert spots.sum() == line
    assert red[48:50, 110].all() and red[70, 140:142].all()


def test_the_red_circle_leaves_the_callers_image_alone():
    image = make_image()
    before = image.copy()
    render_region(image, np.ones((48, 48), bool), "red_circle")
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("encoding", "sees"),
    [
        ("erase", "mask"),
        ("erase_mean", "mask"),
        ("crop", "box"),
        ("crop_context", "surroundings"),
        ("crop_erase", "mask"),
        ("blur", "image"),
        ("red_circle", "image"),
    ],
)
def test_a_picture_depends_on_no_more_than_it_is_said_to(encoding, sees):
    image, size = make_image(), (48, 48)
    reach = {
        "mask": disc_mask(size, 20, 20, 6),
        "box": box_mask(size, 14, 14, 27, 27),
        "surroundings": box_mask(size, 10, 10, 30, 30),  # 20 = round(1.5 * 13)
        "image": np.ones(size, bool),
    }
    expected, known = render_region(image, reach["mask"], encoding), np.zeros(size, bool)
    for name, part in reach.items():
        other = change(image, part & ~known)  # this ring alone
        same = np.array_equal(render_region(other, reach["mask"], encoding), expected)
        assert same == (list(reach).index(name) > list(reach).index(sees))
        known |= part


@pytest.mark.parametrize("encoding", PICTURES)
@pytest.mark.parametrize("size", SIZES)
def test_every_picture_is_square_at_any_size(encoding, size):
    image, mask = make_image(*size), np.zeros(size, bool)
    mask[-1, 0] = True
    shown = render_region(image, mask, encoding)
    assert shown.shape == (len(shown), len(shown), 3)
    assert shown.dtype == np.uint8
    assert len(shown) == (max(size) if "crop" not in encoding else 2 - (encoding != "crop_context"))


def test_tokens_have_no_picture_of_a_region():
    with pytest.raises(ValueError, match="'tokens' makes no picture of a region"):
        render_region(make_image(), np.ones((48, 48), bool), "tokens")


# Vectors


@pytest.mark.parametrize("encoding", PICTURES)
def test_a_regions_vector_is_its_pictures(toyclip, encoding):
    image = make_image(40, 60)
    masks = [disc_mask((40, 60), y, x, 7) for y, x in ((8, 8), (20, 30), (35, 55))]
    shown = [render_region(image, mask, encoding) for mask in masks]
    vectors = encode_regions(toyclip, image, masks, encoding=encoding, batch_size=2)
    assert (vectors.shape, vectors.dtype) == ((3, toyclip.dim), np.float32)
    np.testing.assert_allclose(vectors, toyclip.encode_images(shown), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 2e-5  # random weights see little difference


@pytest.mark.parametrize("encoding", REGION_ENCODINGS)
def test_a_regions_vector_does_not_depend_on_the_other_regions(toyclip, encoding):
    image = make_image(40, 60)
    masks = np.stack([disc_mask((40, 60), y, x, 7) for y, x in ((8, 8), (20, 30), (35, 55))])
    together = encode_regions(toyclip, image, masks, encoding=encoding)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = [encode_regions(toyclip, image, [mask], encoding=encoding)[0] for mask in masks]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("encoding", REGION_ENCODINGS)
@pytest.mark.parametrize("size", SIZES)
def test_tiny_and_narrow_images_have_vectors_too(toyclip, encoding, size):
    mask = np.zeros(size, bool)
    mask[0, -1] = True
    vectors = encode_regions(toyclip, make_image(*size), [mask], encoding=encoding)
    assert np.isfinite(vectors).all()
    assert vectors.shape == (1, toyclip.dim)


@pytest.mark.parametrize("encoding", REGION_ENCODINGS)
def test_no_regions_have_no_vectors(toyclip, encoding):
    vectors = encode_regions(toyclip, make_image(), [], encoding=encoding)
    assert (vectors.shape, vectors.dtype) == ((0, toyclip.dim), np.float32)


def test_the_mean_colour_is_that_of_the_encoders_preprocessing(toyclip):
    grey = Encoder(
        toyclip.name,
        toyclip.model,
        open_clip.image_transform(128, is_train=False, mean=(0.2, 0.5, 0.6), std=(0.5,) * 3),
        toyclip.tokenizer,
        toyclip.fingerprint,
        torch.device("cpu"),
    )
    assert find_mean_color(toyclip) == MEAN_COLOR
    assert find_mean_color(grey) == (51, 128, 153)
    image, mask = make_image(), disc_mask((48, 48), 20, 20, 6)
    shown = render_region(image, mask, "crop_erase", mean_color=(51, 128, 153))
    assert (shown[0, 0] == (51, 128, 153)).all()
    vectors = encode_regions(grey, image, [mask], encoding="crop_erase")
    np.testing.assert_allclose(vectors, grey.encode_images(shown), atol=1e-5)


# Refusals


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((48, 48), bool), "mask 1 has no pixels inside"),
        (np.ones((48, 47), bool), r"mask 1 has \(48, 47\) pixels, the image \(48, 48\)"),
        (np.ones((1, 48, 48), bool), r"mask 1 has \(1, 48, 48\) pixels"),
        (np.ones((48, 48), np.uint8), "mask 1 is uint8, not bool"),
        ([[True]], "mask 1 is list, not bool"),
    ],
)
@pytest.mark.parametrize("encoding", [DEFAULT_ENCODING, "tokens"])
def test_a_bad_mask_is_named_by_its_number(encoder, bad, message, encoding):
    masks = [np.ones((48, 48), bool), bad]
    with pytest.raises(ValueError, match=message):
        encode_regions(encoder, make_image(), masks, encoding=encoding)


def test_a_single_mask_given_for_several_is_refused(encoder):
    with pytest.raises(ValueError, match=r"mask 0 has \(48,\) pixels, the image \(48, 48\)"):
        encode_regions(encoder, make_image(), np.ones((48, 48), bool))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((48, 48), np.uint8), r"must be .* uint8 RGB with pixels, got \(48, 48\) uint8"),
        (np.zeros((48, 48, 3)), r"got \(48, 48, 3\) float64"),
        (np.zeros((0, 48, 3), np.uint8), r"got \(0, 48, 3\) uint8"),
        ("cat.jpg", r"got \(\) str"),
        (np.zeros((1, 201, 3), np.uint8), "too narrow: 201 x 1"),
    ],
)
def test_a_bad_image_is_refused_even_without_regions(encoder, image, message):
    with pytest.raises(ValueError, match=message):
        encode_regions(encoder, image, [])


def test_an_empty_batch_is_refused(encoder):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        encode_regions(encoder, make_image(), [np.ones((48, 48), bool)], batch_size=0)
