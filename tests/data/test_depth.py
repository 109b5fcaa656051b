"""More than 8 bits a channel become 8, also where 12 bits lie in 16."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from regionlab.data.images import ImageError, read_image


def tiff(values, *, order="<", packed=False, tags=()):
    """Write (H, W) or (H, W, 3) of 16 bits a channel by hand, since PIL cannot write colours."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    pixels = values.astype(f"{order}i2" if values.min() < 0 else f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if packed else pixels
    fields = {256: width, 257: height, 258: 16, 259: 8 if packed else 1}
    fields |= {262: 2 if channels == 3 else 1, 273: 8, 277: channels, 278: height}
    fields |= {279: len(pixels), **dict(tags)}
    end = 8 + len(pixels) + 2 + 12 * len(fields) + 4
    table = b"".join(
        struct.pack(f"{order}HHII", tag, 3, 3, end)
        if tag == 258 and channels == 3
        else struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value)
        for tag, value in sorted(fields.items())
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(pixels))
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    return head + pixels + struct.pack(f"{order}H", len(fields)) + table + bytes(4) + bits


def png(values):
    """Write (H, W, channels) of 16 bits a channel by hand."""

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def ramp(highest, channels=1, seed=0):
    """Random values from 0 to the highest, both of which occur."""
    values = np.random.default_rng(seed).integers(0, highest + 1, (6, 7, channels))
    values[0, 0], values[0, 1] = 0, highest
    return values


def encode(values, kind):
    file = BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(file, kind)
    return file.getvalue()


RANGES = [(255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (9999, 14), (16383, 14)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("highest", "bits"), [*RANGES, (16384, 16), (40000, 16), (65535, 16)])
def test_gray_is_of_the_fewest_bits_that_hold_it(highest, bits, kind):
    values = ramp(highest)[..., 0]
    image = read_image(encode(values, kind))
    np.testing.assert_array_equal(image, np.dstack([values >> (bits - 8)] * 3))


@pytest.mark.parametrize(
    "write",
    [
        png,
        tiff,
        lambda values: tiff(values, order=">"),
        lambda values: tiff(values, packed=True),
        lambda values: tiff(values, order=">", packed=True),
    ],
    ids=["png", "tiff", "big-endian tiff", "packed tiff", "packed big-endian tiff"],
)
@pytest.mark.parametrize(("highest", "bits"), [*RANGES, (16384, 16), (65535, 16)])
def test_colours_are_of_the_fewest_bits_that_hold_them(write, highest, bits):
    values = ramp(highest, channels=3)
    np.testing.assert_array_equal(read_image(write(values)), values >> (bits - 8))


def test_opacity_is_always_of_16_bits():
    values = np.concatenate([ramp(4095, channels=3), np.full((6, 7, 1), 65535)], axis=2)
    np.testing.assert_array_equal(read_image(png(values)), values[..., :3] >> 4)


def test_black_stays_black():
    assert read_image(encode(np.zeros((2, 2)), "PNG")).max() == 0


def test_pgm_is_as_light_as_its_header_says():
    data = b"P5 2 1 4095\n" + struct.pack(">2H", 4095, 100)
    assert read_image(data)[0, :, 0].tolist() == [255, 6]
    dark = b"P5 2 1 65535\n" + struct.pack(">2H", 4095, 100)
    assert read_image(dark)[0, :, 0].tolist() == [15, 0]


def test_signed_16_bits_are_15():
    data = tiff(np.array([[0, 32767, 4096]]), tags=[(339, 2)])
    assert read_image(data)[0, :, 0].tolist() == [0, 255, 32]


def test_negative_values_are_refused():
    with pytest.raises(ImageError, match="negative"):
        read_image(tiff(np.array([[-5, 9]]), tags=[(339, 2)]))


def test_12_bits_of_gray_with_alpha_are_stretched():
    gray = ramp(4095)
    image = read_image(png(np.concatenate([gray, np.full_like(gray, 65535)], axis=2)))
    assert (image == gray.astype(np.uint16) >> 4).all()
