"""Pictures of every kind become (H, W, 3) uint8 RGB, or an ImageError that says why not."""

import hashlib
import os
import pickle
import struct
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from regionlab.data import images
from regionlab.data import images as opening
from regionlab.data.images import (
    ImageError,
    make_thumbnail,
    read_image,
    read_image_and_digest,
    read_pil_image,
    read_thumbnail,
    write_image,
)
from regionlab.data.listing import list_images

RED, WHITE = [255, 0, 0], [255, 255, 255]


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image, suffix="PNG", **options):
    file = BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, suffix, **options)
    return file.getvalue()


def png16(colour_type, width, *values):
    """Write a one-row PNG of 16 bits a channel by hand, since PIL cannot."""

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", width, 1, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(values)}H", *values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- listing ----------------------------------------------------------------------------


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root):
    return [path.relative_to(root).as_posix() for path in list_images(root)]


def test_list_is_sorted_by_posix_path_at_every_depth(tmp_path):
    touch(tmp_path, "b.png", "a/z.jpg", "a-b/c.jpg", "a.gif", "a/b/c.webp")
    assert listed(tmp_path) == ["a-b/c.jpg", "a.gif", "a/b/c.webp", "a/z.jpg", "b.png"]


def test_list_takes_suffixes_in_any_case_and_nothing_else(tmp_path):
    touch(tmp_path, "a.JPG", "b.Jpeg", "c.TIFF", "d.txt", "jpg", "e.jpg.part")
    assert listed(tmp_path) == ["a.JPG", "b.Jpeg", "c.TIFF"]


def test_list_leaves_out_hidden_and_macosx_names(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".jpg", ".cache/b.jpg", "__MACOSX/c.jpg")
    assert listed(tmp_path) == ["a.jpg"]


def test_list_enters_linked_folders_but_no_loops(tmp_path):
    touch(tmp_path, "elsewhere/b.jpg", "root/a.jpg")
    (tmp_path / "root/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root")
    assert listed(tmp_path / "root") == ["a.jpg", "linked/b.jpg"]


def test_list_shows_a_dangling_link_so_that_its_loss_is_reported(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert listed(tmp_path) == ["gone.jpg"]
    with pytest.raises(ImageError, match="file not found"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_list_passes_over_pipes(tmp_path):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert listed(tmp_path) == ["a.jpg"]


def test_list_keeps_names_exactly_as_on_disk(tmp_path):
    names = [unicodedata.normalize("NFD", "Äpfel é.jpg"), "日本 語.png"]
    touch(tmp_path, *names)
    assert listed(tmp_path) == names


def test_list_of_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_images(tmp_path / "nowhere")


def test_list_of_a_file_names_it(tmp_path):
    touch(tmp_path, "a.jpg")
    with pytest.raises(NotADirectoryError, match=r"a\.jpg"):
        list_images(str(tmp_path / "a.jpg"))


def test_list_of_an_empty_folder_names_it_and_the_suffixes(tmp_path):
    touch(tmp_path, "empty/notes.txt")
    with pytest.raises(ValueError, match=r"empty.*\.jpeg, \.jpg"):
        list_images(tmp_path / "empty")


# --- reading ----------------------------------------------------------------------------


def test_read_takes_path_text_and_bytes_alike(tmp_path):
    image = noise(5, 7)
    path = tmp_path / "mein Bild – 写真.png"
    path.write_bytes(encode(image))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(read_image(source), image)


def test_read_gives_a_writable_array():
    read_image(encode(noise(2, 2)))[0, 0] = 0


def test_read_gives_the_digest_of_the_bytes_on_disk(tmp_path):
    data = encode(noise(3, 3))
    (tmp_path / "a.png").write_bytes(data)
    image, digest = read_image_and_digest(tmp_path / "a.png")
    assert digest == hashlib.sha256(data).hexdigest()
    np.testing.assert_array_equal(image, noise(3, 3))


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_turns_upright_as_pil_does(suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(noise(8, 12), suffix, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    np.testing.assert_array_equal(read_image(data), np.array(expected))


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((96, 64), 8, (12, 8)),
        ((96, 64), 9, (24, 16)),
        ((96, 64), 17, (48, 32)),
        ((96, 64), 33, (96, 64)),
        ((96, 60), 7, (24, 15)),  # 60 is no multiple of 8
        ((95, 64), 1, (95, 64)),
        ((96, 64), None, (96, 64)),
    ],
)
def test_jpeg_is_reduced_evenly_as_far_as_the_least_side_allows(size, least_side, expected):
    data = encode(noise(size[1], size[0]), "JPEG")
    picture, full, digest = read_pil_image(data, least_side=least_side)
    assert (picture.size, picture.mode, full) == (expected, "RGB", size)
    assert digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_jpeg_is_turned_upright_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = np.add.outer(np.arange(64), 2 * np.arange(48))[..., None].repeat(3, 2).astype(np.uint8)
    data = encode(ramp, "JPEG", exif=exif, quality=95)
    picture, full, _ = read_pil_image(data, least_side=24)
    upright = Image.fromarray(read_image(data))
    assert full == upright.size
    assert np.abs(np.int16(picture) - np.int16(upright.reduce(2))).max() <= 3


def test_other_formats_are_not_reduced():
    for suffix in ("PNG", "WEBP", "GIF", "TIFF"):
        picture, full, _ = read_pil_image(encode(noise(64, 64), suffix), least_side=1)
        assert picture.size == full == (64, 64)


def test_reduced_jpeg_that_is_damaged_says_so():
    with pytest.raises(ImageError, match="truncated"):
        read_pil_image(encode(noise(64, 64), "JPEG")[:1500], least_side=8)


def test_read_shows_a_picture_with_broken_exif_as_stored():
    data = encode(noise(4, 6), exif=b"Exif\0\0no TIFF header")
    np.testing.assert_array_equal(read_image(data), noise(4, 6))


def test_read_of_one_pixel():
    assert read_image(encode(np.uint8([[RED]]))).tolist() == [[RED]]


def test_read_gives_gray_three_channels():
    gray = noise(4, 5, channels=1)
    np.testing.assert_array_equal(read_image(encode(gray)), np.dstack([gray] * 3))


def test_read_scales_16_bit_gray_instead_of_clipping():
    image = read_image(encode(np.uint16([[0, 255, 256, 32768, 65535]])))
    assert image[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_read_scales_16_bit_pgm():
    image = read_image(b"P5 2 1 65535\n" + struct.pack(">2H", 65535, 32768))
    assert image[0, :, 1].tolist() == [255, 128]


def test_read_of_16_bit_rgb_keeps_the_high_byte():
    assert read_image(png16(2, 2, 65535, 0, 25700, 255, 256, 511)).tolist() == [
        [[255, 0, 100], [0, 1, 1]]
    ]


def test_read_lays_rgba_on_white():
    pixels = np.uint8([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]])
    assert read_image(encode(pixels)).tolist() == [[RED, WHITE, [204, 204, 204]]]


def test_read_lays_gray_with_alpha_on_white():
    pixels = np.uint8([[[10, 255], [10, 0]]])
    assert read_image(encode(Image.fromarray(pixels, "LA"))).tolist() == [[[10, 10, 10], WHITE]]


def test_read_lays_a_transparent_palette_colour_on_white():
    image = Image.fromarray(np.uint8([[0, 1]]), "P")
    image.putpalette([*RED, 0, 255, 0])
    assert read_image(encode(image, transparency=1)).tolist() == [[RED, WHITE]]
    assert read_image(encode(image, transparency=b"\xff\x00")).tolist() == [[RED, WHITE]]


def test_read_of_cmyk_jpeg_has_the_right_colours():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    image = read_image(encode(ink, "JPEG", quality=95))
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - RED).max() <= 4


def test_read_of_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).tolist() == [[RED] * 4] * 3


def test_read_goes_by_content_not_by_suffix(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(noise(3, 3), "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), noise(3, 3))


def test_read_in_many_threads_gives_what_one_gives(tmp_path):
    expected = [noise(16, 16, seed=seed) for seed in range(40)]
    for seed, image in enumerate(expected):
        (tmp_path / f"{seed:02}.png").write_bytes(encode(image))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(read_image, list_images(tmp_path)))
    np.testing.assert_array_equal(images, expected)


# --- what cannot be read ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is a text\n", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encode(noise(64, 64), "JPEG")[:1500], "truncated"),
        (encode(noise(64, 64), "PNG")[:6000], "truncated"),
        (encode(noise(64, 64), "GIF")[:3000], "truncated"),
        (encode(noise(64, 64), "WEBP")[:1000], "damaged"),
        (encode(np.ones((2, 2), np.float32), "TIFF"), "floating-point"),
        (encode(np.full((2, 2), 70_000, np.int32), "TIFF"), "over 16 bits"),
        (encode(np.full((2, 2), -1, np.int32), "TIFF"), "over 16 bits"),
    ],
)
def test_read_says_what_is_wrong(tmp_path, data, reason):
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"


def test_read_of_a_vanished_file(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(noise(2, 2)))
    path = list_images(tmp_path)[0]
    path.unlink()
    with pytest.raises(ImageError, match="file not found"):
        read_image(path)


def test_read_of_a_folder(tmp_path):
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)


def test_read_of_a_forbidden_file(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(tmp_path / "a.png")


def test_read_refuses_more_pixels_than_the_limit(monkeypatch):
    monkeypatch.setattr(opening, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="too large: 10 x 10 pixels .* 99 .*REGIONLAB_MAX_PIXELS"):
        read_image(encode(noise(10, 10)))


@pytest.mark.parametrize("limit", [99, 30])  # PIL's own: a warning, an error
def test_the_limit_of_pil_is_for_others(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    np.testing.assert_array_equal(read_image(encode(noise(10, 10))), noise(10, 10))


def test_the_limit_can_be_set_and_says_what_it_takes():
    assert opening.read_limit({}) == opening.read_limit({"REGIONLAB_MAX_PIXELS": ""}) >= 250e6
    assert opening.read_limit({"REGIONLAB_MAX_PIXELS": "99"}) == 99
    for text in ("many", "0", "-1", "1.5"):
        with pytest.raises(ValueError, match=f"REGIONLAB_MAX_PIXELS must be .*'{text}'"):
            opening.read_limit({"REGIONLAB_MAX_PIXELS": text})


def test_photograph_of_108_megapixels_is_read_at_the_scale_that_is_wanted():
    data = encode(Image.new("L", (12000, 9000), 90), "JPEG")
    picture, size, _ = read_pil_image(data, least_side=224)
    assert (picture.size, size) == ((1500, 1125), (12000, 9000))


def test_large_pictures_are_copied_in_strips(monkeypatch):
    monkeypatch.setattr(images, "STRIP", 20)
    for shape in ((9, 7), (3, 40)):
        np.testing.assert_array_equal(read_image(encode(noise(*shape))), noise(*shape))


def test_random_damage_gives_an_image_or_an_image_error():
    rng = np.random.default_rng(0)
    for suffix in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        whole = encode(noise(24, 24), suffix)
        for _ in range(40):
            data = bytearray(whole)
            for position in rng.integers(0, len(data), 5):
                data[position] = rng.integers(0, 256)
            try:
                assert read_image(bytes(data)).shape[2] == 3
            except ImageError as e:
                assert e.reason


def test_image_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "damaged")))
    assert (error.path, error.reason) == ("a.jpg", "damaged")


# --- thumbnails and writing ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"), [((40, 20), (10, 5)), ((20, 40), (5, 10)), ((1, 500), (1, 10))]
)
def test_thumbnail_keeps_proportions(size, expected):
    assert make_thumbnail(noise(*size), 10).shape == (*expected, 3)


def test_thumbnail_never_enlarges_and_never_shares_memory():
    image = noise(4, 6)
    small = make_thumbnail(image, 100)
    np.testing.assert_array_equal(small, image)
    assert not np.shares_memory(small, image)
    assert small.flags.writeable


def test_thumbnail_of_a_file_is_that_of_its_picture():
    for data in (encode(noise(90, 60)), encode(noise(90, 60), "JPEG")):
        np.testing.assert_array_equal(
            read_thumbnail(data, 30), make_thumbnail(read_image(data), 30)
        )


def test_thumbnail_of_a_large_jpeg_is_read_at_reduced_scale(monkeypatch):
    ramp = np.add.outer(np.arange(96), np.arange(128))[..., None].repeat(3, 2).astype(np.uint8)
    data = encode(ramp, "JPEG", quality=95)
    expected, decoded = make_thumbnail(read_image(data), 8), []
    monkeypatch.setattr(images, "_to_array", lambda p: decoded.append(p.size) or np.array(p))
    small = read_thumbnail(data, 8)
    assert decoded == [(32, 24)]
    assert small.shape == (6, 8, 3)
    assert np.abs(small.astype(int) - expected).max() < 8


def test_thumbnail_refuses_a_side_of_zero():
    with pytest.raises(ValueError, match="not 0"):
        make_thumbnail(noise(2, 2), 0)


def test_written_png_reads_back_exactly(tmp_path):
    write_image(tmp_path / "a b.PNG", noise(9, 5))
    np.testing.assert_array_equal(read_image(tmp_path / "a b.PNG"), noise(9, 5))


def test_written_jpeg_is_a_jpeg_of_the_same_colour(tmp_path):
    write_image(tmp_path / "a.jpg", np.full((8, 8, 3), 90, np.uint8))
    assert (tmp_path / "a.jpg").read_bytes().startswith(b"\xff\xd8")
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - 90).max() <= 1


def test_write_refuses_other_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif.*\.png"):
        write_image(tmp_path / "a.gif", noise(2, 2))


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)]
)
def test_write_refuses_what_is_no_rgb_image(tmp_path, image):
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "a.png", image)
