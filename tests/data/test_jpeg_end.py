"""A JPEG without its end is a picture if all its pixels are there, and only then."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from regionlab.data.images import ImageError, read_image, read_pil_image

KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "finest": {"quality": 100, "subsampling": 0},
    "restarts": {"restart_marker_blocks": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
    "gray": {},
}


def jpeg(kind, seed=0):
    shape = (40, 56) if kind == "gray" else (40, 56, 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **KINDS[kind])
    return file.getvalue()


def read_or_none(data):
    try:
        return read_image(data)
    except ImageError:
        return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [1, 2])
def test_jpeg_without_its_end_marker_is_read_in_full(kind, missing):
    data = jpeg(kind)
    np.testing.assert_array_equal(read_image(data[:-missing]), read_image(data))
    np.testing.assert_array_equal(read_image(data[:-2] + bytes(99)), read_image(data))


@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_cut_anywhere_is_never_another_picture(kind):
    data = jpeg(kind)
    whole = read_image(data)
    cuts = [*range(3, 120), *np.linspace(120, len(data) - 120, 60, dtype=int)]
    accepted = [read_or_none(data[: -int(cut)]) for cut in cuts]
    assert all(image is None or np.array_equal(image, whole) for image in accepted)
    assert sum(image is None for image in accepted) > 170


def test_progressive_jpeg_of_fewer_scans_is_cut_short():
    data = jpeg("progressive")
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        before = data.rindex(b"\xff\xc4", 0, scan) if b"\xff\xc4" in data[:scan] else scan
        for end in (scan, before):
            assert read_or_none(data[:end]) is None


def test_reduced_jpeg_without_its_end_marker_is_read():
    file = BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG")
    picture, size, _ = read_pil_image(file.getvalue()[:-2], least_side=8)
    assert (picture.size, size) == ((8, 8), (64, 64))


def test_digest_is_that_of_the_file_as_it_is():
    data = jpeg("baseline")
    assert read_pil_image(data[:-2])[2] != read_pil_image(data)[2]
