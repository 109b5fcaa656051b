"""HEIC through pillow-heif, an extra: tested where it is installed."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from regionlab.data import images as opening
from regionlab.data.images import ImageError, read_image
from regionlab.data.listing import find_images

pillow_heif = pytest.importorskip("pillow_heif")

PICTURE = np.zeros((64, 96, 3), np.uint8)
PICTURE[:32, :48], PICTURE[32:, 48:] = (255, 0, 0), (0, 0, 255)


def encode(**options):
    file = BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PICTURE)).save(file, quality=95, **options)
    return file.getvalue()


def test_heic_is_found_and_read(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(encode())
    assert find_images(tmp_path).paths == ["a.HEIC"]
    assert np.abs(read_image(tmp_path / "a.HEIC").astype(int) - PICTURE).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_upright_once(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = Image.fromarray(PICTURE)
    lying.getexif()[0x0112] = orientation
    expected = np.int16(ImageOps.exif_transpose(lying))
    image = read_image(encode(exif=exif.tobytes()))
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 1


def test_heic_that_is_cut_short_or_too_large_is_an_error(monkeypatch):
    with pytest.raises(ImageError, match="damaged"):
        read_image(encode()[:300])
    monkeypatch.setattr(opening, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="too large: 96 x 64"):
        read_image(encode())
