"""What is drawn on stored pixels is turned with the picture, for all of EXIF's orientations."""

import json

import numpy as np
import pytest
from PIL import Image

from regionlab.data.coco import load_coco
from regionlab.data.images import (
    UPRIGHT,
    Header,
    read_header,
    read_headers,
    read_image,
)
from regionlab.data.masks import mask_to_box, mask_to_rle, turn_box, turn_mask

ORIENTATIONS = range(1, 9)
SIDEWAYS = (5, 6, 7, 8)
WIDTH, HEIGHT = 30, 20


def make_mask(width=WIDTH, height=HEIGHT):
    """No symmetry: an L in one corner."""
    mask = np.zeros((height, width), bool)
    mask[2:12, 3:6] = mask[9:12, 3:17] = True
    return mask


def write_picture(path, mask, orientation=None, **options):
    """Write the mask in black and white, with an orientation in its EXIF."""
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    pixels = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    Image.fromarray(pixels).save(path, exif=exif, **options)


# Pictures


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_masks_and_boxes_turn_as_pil_turns_pictures(orientation):
    mask = make_mask()
    picture = Image.fromarray(mask.astype(np.uint8))
    if orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[orientation])
    turned = turn_mask(mask, orientation)
    np.testing.assert_array_equal(turned, np.asarray(picture, bool))
    assert turned.flags.c_contiguous
    box = turn_box(tuple(mask_to_box(mask)), (WIDTH, HEIGHT), orientation)
    assert box == tuple(mask_to_box(turned))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_headers_tell_what_reading_does(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    write_picture(path, make_mask(), orientation)
    header = read_header(path)
    assert header == Header(WIDTH, HEIGHT, orientation)
    assert header.upright == read_image(path).shape[1::-1]


def test_pictures_without_exif_or_with_nonsense_in_it_are_upright(tmp_path):
    for name, orientation in {"a.png": None, "b.jpg": None, "c.jpg": 9, "d.png": 0}.items():
        write_picture(tmp_path / name, make_mask(), orientation)
        assert read_header(tmp_path / name) == Header(WIDTH, HEIGHT, 1)


def test_a_png_may_have_its_orientation_behind_its_pixels(tmp_path):
    path = tmp_path / "a.png"
    write_picture(path, make_mask(), 6)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[start : start + 4], "big")
    rest, end = data[:start] + data[start + length : -12], data[-12:]
    path.write_bytes(rest + data[start : start + length] + end)
    assert read_header(path) == Header(WIDTH, HEIGHT, 6)
    assert read_image(path).shape == (WIDTH, HEIGHT, 3)


def test_headers_that_cannot_be_read_are_none(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    write_picture(tmp_path / "a.jpg", make_mask(), 3)
    paths = [tmp_path / "text.jpg", tmp_path / "missing.jpg", tmp_path, tmp_path / "a.jpg"]
    assert read_headers(paths) == [None, None, None, Header(WIDTH, HEIGHT, 3)]


# COCO


def write_coco(root, pictures):
    """Write pictures of (orientation, width and height in the JSON, stored mask), one object each.

    The objects' box and mask are those of the stored pixels where the size is, or else upright.
    """
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    images, annotations = [], []
    for number, (orientation, size, mask) in enumerate(pictures):
        write_picture(root / f"val2017/{number}.png", mask, orientation)
        drawn = mask if size in (None, mask.shape[::-1]) else turn_mask(mask, orientation)
        x0, y0, x1, y1 = mask_to_box(drawn)
        image = {"id": number, "file_name": f"{number}.png"}
        images.append(image | (dict(zip(("width", "height"), size, strict=True)) if size else {}))
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0,
             "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": mask_to_rle(drawn)}
        )  # fmt: skip
    categories = [{"id": 1, "name": "L"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(data))
    return load_coco(root)


def is_right(collection, number):
    """Tell whether mask, box and size of an object are those of the white pixels."""
    white = collection.read(str(number))[..., 0] > 127
    row = collection.objects.set_index("object_id").loc[str(number)]
    image = collection.images.set_index("image_id").loc[str(number)]
    box = row[["x0", "y0", "x1", "y1"]].tolist()
    masked = np.array_equal(collection.mask(str(number)), white)
    sized = (image["height"], image["width"]) == white.shape
    return masked and sized and box == mask_to_box(white).tolist()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_was_drawn_on_stored_pixels_is_turned(tmp_path, orientation):
    collection = write_coco(tmp_path, [(orientation, (WIDTH, HEIGHT), make_mask())])
    assert is_right(collection, 0)
    assert is_right(collection.subset(["0"]), 0)


@pytest.mark.parametrize("orientation", SIDEWAYS)
def test_what_was_drawn_on_the_upright_picture_is_left_as_it_is(tmp_path, orientation):
    collection = write_coco(tmp_path, [(orientation, (HEIGHT, WIDTH), make_mask())])
    assert is_right(collection, 0)
    assert not collection.turned


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_squares_and_files_without_sizes_are_of_stored_pixels(tmp_path, orientation):
    square, plain = make_mask(20, 20), make_mask()
    collection = write_coco(tmp_path, [(orientation, (20, 20), square), (orientation, None, plain)])
    assert is_right(collection, 0)
    assert is_right(collection, 1)


def test_where_sizes_cannot_tell_the_other_pictures_do(tmp_path):
    upright = [(6, (HEIGHT, WIDTH), make_mask()), (8, (HEIGHT, WIDTH), make_mask())]
    collection = write_coco(tmp_path, [(3, (WIDTH, HEIGHT), make_mask()), *upright])
    assert not collection.turned
    np.testing.assert_array_equal(collection.mask("0"), make_mask())


def test_a_polygon_is_turned_too(tmp_path):
    write_coco(tmp_path, [(6, (WIDTH, HEIGHT), make_mask())])
    file = tmp_path / "annotations/instances_val2017.json"
    data = json.loads(file.read_text())
    data["annotations"][0]["segmentation"] = [[3, 2, 6, 2, 6, 9, 17, 9, 17, 12, 3, 12]]
    file.write_text(json.dumps(data))
    assert is_right(load_coco(tmp_path), 0)


def test_objects_drawn_on_another_size_than_the_pictures_are_listed(tmp_path):
    pictures = [(1, (2 * WIDTH, 2 * HEIGHT), make_mask()), (1, (WIDTH, HEIGHT), make_mask())]
    collection = write_coco(tmp_path, pictures)
    assert collection.objects["object_id"].tolist() == ["1"]
    assert collection.images[["width", "height"]].to_numpy().tolist() == [[WIDTH, HEIGHT]] * 2
    assert collection.skipped["path"].tolist() == ["val2017/0.png"]
    assert "drawn on 60 x 40 pixels, but the picture has 30 x 20" in collection.skipped["reason"][0]


def test_a_picture_that_cannot_be_opened_leaves_the_size_of_the_file(tmp_path):
    write_coco(tmp_path, [(1, (WIDTH, HEIGHT), make_mask())])
    (tmp_path / "val2017/0.png").unlink()
    collection = load_coco(tmp_path)
    np.testing.assert_array_equal(collection.mask("0"), make_mask())
