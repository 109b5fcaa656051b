"""One fault in a COCO file costs one record: hundreds of them, one at a time."""

import copy
import json

import numpy as np
import pytest

from regionlab.data.coco import load_coco
from regionlab.data.images import write_image
from regionlab.data.masks import mask_to_rle
from regionlab.models.segmenter import Region
from regionlab.studies.sampling import find_mask, measure_masks, sample_objects

HEIGHT, WIDTH = 10, 12
SQUARE = [2, 1, 8, 1, 8, 6, 2, 6]
MISSING = object()
SURROGATE = "\ud800 half a character"

# Tried as the value of every key; what JSON itself cannot hold, Python's reader still accepts.
VALUES = {
    "missing": MISSING,
    "null": None,
    "NaN": float("nan"),
    "negative": -7,
    "a half": 48.5,
    "huge float": 1e300,
    "beyond floats": 10**400,
    "empty text": "",
    "number as text": "7",
    "surrogate": SURROGATE,
    "true": True,
    "list of null": [None, None],
}


def make_files():
    images = [
        {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT, "license": 1}
        for i in (1, 2, 3)
    ]
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[1:6, 2:8] = True
    runs = [21, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 44]
    outlines = [
        [[*SQUARE]],
        {"size": [HEIGHT, WIDTH], "counts": runs},
        mask_to_rle(square),
        [SQUARE],
    ]
    objects = [
        {
            "id": 10 + i, "image_id": image, "category_id": category, "bbox": [2, 1, 6, 5],
            "area": 30, "iscrowd": 0, "segmentation": outline, "attributes": {"color": "red"},
        }
        for i, (image, category, outline) in enumerate(
            zip((1, 2, 1, 3), (7, 7, 8, 8), outlines, strict=True)
        )
    ]  # fmt: skip
    captions = [{"id": i, "image_id": i, "caption": f"Picture {i}."} for i in (1, 2, 3)]
    categories = [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]
    return {
        "instances": {"images": images, "annotations": objects, "categories": categories},
        "captions": {"images": copy.deepcopy(images), "annotations": captions},
    }


def list_places():
    """Every place in the files where a value can be another one, as the path to it."""
    for file, content in make_files().items():
        for key, records in content.items():
            yield (file, key)
            yield (file, key, 0)
            for name in records[0]:
                yield (file, key, 0, name)
    objects = ("instances", "annotations")
    yield from ((*objects, 0, "bbox", number) for number in range(4))
    yield from ((*objects, row, "segmentation", k) for row in (1, 2) for k in ("size", "counts"))
    yield from (
        (*objects, 1, "segmentation", "size", 0),
        (*objects, 1, "segmentation", "counts", 1),
    )
    yield from ((*objects, 0, "segmentation", 0), (*objects, 0, "segmentation", 0, 3))
    yield (*objects, 0, "attributes", "color")


def change(files, place, value):
    *above, last = place
    holder = files
    for key in above:
        holder = holder[key]
    if value is MISSING:
        del holder[last]
    else:
        holder[last] = value


STUDIED = {"segmentation", "bbox", "area", "width", "height"}  # keys that a study may stumble on

FAULTS = {
    f"{'.'.join(map(str, place))} {name}": (place, value)
    for place in list_places()
    for name, value in VALUES.items()
    # An object may have no segmentation, and a list may be shorter.
    if not (value is MISSING and isinstance(place[-1], int))
    if not (value in (MISSING, None) and place[-1] == "segmentation")
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    for i in (1, 2, 3):
        write_image(root / f"val2017/{i}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return root


def load(root, files):
    for name, content in files.items():
        (root / f"annotations/{name}_val2017.json").write_text(json.dumps(content))
    return load_coco(root)


def count(collection):
    masks = sum(find_mask(collection, one) is not None for one in collection.objects["object_id"])
    return len(collection), len(collection.objects), len(collection.captions), masks


def test_there_are_faults_by_the_hundred():
    assert len(FAULTS) >= 500


def test_the_files_without_a_fault_lose_nothing(root):
    collection = load(root, make_files())
    assert count(collection) == (3, 4, 3, 4)
    assert collection.skipped.empty


@pytest.mark.filterwarnings("ignore:.*objects were passed over")
@pytest.mark.parametrize(("place", "value"), FAULTS.values(), ids=FAULTS)
def test_a_fault_costs_its_record_and_is_listed(root, place, value):
    files = make_files()
    change(files, place, value)
    collection = load(root, files)
    kept, listed = count(collection), len(collection.skipped)
    lost = sum((3, 4, 3, 4)) - sum(kept)
    assert listed or not lost
    if len(place) > 2:
        assert kept[0] >= 2
        # An image of the objects costs its objects and captions too, a category its objects.
        assert lost <= 7
    assert not collection.skipped["reason"].str.strip().eq("").any()
    assert repr(collection)
    collection.missing_files()
    if STUDIED.intersection(place) and kept[3]:
        objects = sample_objects(collection, 9, seed=0) if kept[3] > 2 else collection.objects
        regions = [Region(np.ones((HEIGHT, WIDTH), bool))] * len(objects)
        ious = measure_masks(collection, objects, regions)
        assert np.isfinite(ious).sum() == (len(objects) if kept[3] > 2 else kept[3])
