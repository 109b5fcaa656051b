"""Small data sets in every layout are read as published, and broken ones explained."""

import hashlib
import json
import os
import sys
import time
import unicodedata

import numpy as np
import pytest

from regionlab.data.coco import load_coco
from regionlab.data.collection import load_class_folders, load_folder
from regionlab.data.images import ImageError, write_image
from regionlab.data.masks import mask_to_rle
from regionlab.data.registry import load_collection

IMAGES = [
    {"id": 139, "file_name": "000000000139.png", "width": 6, "height": 4, "ground": "grass"},
    {"id": 285, "file_name": "000000000285.png", "width": 6, "height": 4},
]
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
MASK = np.zeros((4, 6), dtype=bool)
MASK[1:3, 2:5] = True


def make_annotation(**changes):
    annotation = {
        "id": 5,
        "image_id": 139,
        "category_id": 90,
        "bbox": [2, 1, 3, 2],
        "area": 6.0,
        "iscrowd": 0,
        "segmentation": mask_to_rle(MASK),
    }
    return annotation | changes


def make_instances(*annotations, images=IMAGES):
    annotations = annotations or (make_annotation(),)
    return {"images": images, "annotations": list(annotations), "categories": CATEGORIES}


def make_captions(images=IMAGES):
    caption = {"id": 77, "image_id": 285, "caption": "A dog – ein Hund.\n"}
    return {"images": images, "annotations": [caption]}


def write_coco(root, instances=None, captions=None, folder="val2017"):
    (root / "annotations").mkdir(parents=True)
    for kind, data in {"instances": instances, "captions": captions}.items():
        if data is not None:
            text = data if isinstance(data, str) else json.dumps(data)
            (root / f"annotations/{kind}_val2017.json").write_text(text, encoding="utf-8")
    (root / folder).mkdir(parents=True)
    for image in IMAGES:
        write_image(root / folder / image["file_name"], np.zeros((4, 6, 3), np.uint8))
    return root


# --- COCO -------------------------------------------------------------------------------


def test_coco_gives_images_objects_and_captions(tmp_path):
    collection = load_coco(write_coco(tmp_path, make_instances(), make_captions()))
    assert collection.images["image_id"].tolist() == ["139", "285"]
    assert collection.objects["object_id"].tolist() == ["5"]
    assert collection.captions["caption_id"].tolist() == ["77"]
    assert collection.captions["caption"].tolist() == ["A dog – ein Hund.\n"]
    assert (collection.name, collection.split) == (tmp_path.name, "val2017")
    assert collection.missing_files().empty


def test_coco_category_names_come_from_ids_with_gaps(tmp_path):
    annotations = [make_annotation(), make_annotation(id=6, category_id=1)]
    collection = load_coco(write_coco(tmp_path, make_instances(*annotations)))
    assert collection.objects["category"].tolist() == ["toothbrush", "person"]


def test_coco_boxes_become_corners(tmp_path):
    instances = make_instances(make_annotation(bbox=[1.5, 1, 3, 2.25]))
    row = load_coco(write_coco(tmp_path, instances)).objects.iloc[0]
    assert row[["x0", "y0", "x1", "y1"]].tolist() == [1.5, 1, 4.5, 3.25]


@pytest.mark.parametrize(
    "segmentation",
    [
        [[2, 1, 5, 1, 5, 3, 2, 3]],
        {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]},
        mask_to_rle(MASK),
    ],
    ids=["polygon", "uncompressed RLE", "compressed RLE"],
)
def test_coco_masks_decode_from_every_form(tmp_path, segmentation):
    instances = make_instances(make_annotation(segmentation=segmentation))
    collection = load_coco(write_coco(tmp_path, instances))
    np.testing.assert_array_equal(collection.mask("5"), MASK)


@pytest.mark.parametrize("folder", ["val2017", "images/val2017"])
@pytest.mark.parametrize("nest", ["", "coco2017"])
def test_coco_is_found_in_every_usual_place(tmp_path, folder, nest):
    write_coco(tmp_path / nest, make_instances(), folder=folder)
    collection = load_coco(str(tmp_path))
    assert collection.image_path("139") == tmp_path / nest / folder / "000000000139.png"
    assert collection.read("139").shape == (4, 6, 3)


def test_coco_files_can_be_named(tmp_path):
    write_coco(tmp_path / "data", make_instances(), folder="pictures")
    (tmp_path / "data/annotations/instances_val2017.json").rename(tmp_path / "mine.json")
    collection = load_coco(
        tmp_path / "data", "mine", image_dir="pictures", instances=tmp_path / "mine.json"
    )
    assert collection.missing_files().empty


def test_coco_images_may_lie_outside_the_root(tmp_path):
    write_coco(tmp_path / "data", make_instances(), folder="../pictures")
    for image_dir in ("../pictures", tmp_path / "pictures"):
        collection = load_coco(tmp_path / "data", image_dir=image_dir)
        assert collection.root == tmp_path / "pictures"
        assert collection.missing_files().empty


def test_coco_with_captions_alone_has_no_objects(tmp_path):
    collection = load_coco(write_coco(tmp_path, captions=make_captions()))
    assert len(collection) == 2
    assert collection.objects.empty


def test_coco_images_are_those_of_both_files(tmp_path):
    write_coco(tmp_path, make_instances(images=IMAGES[:1]), make_captions(images=IMAGES[1:]))
    assert load_coco(tmp_path).images["image_id"].tolist() == ["139", "285"]


def test_coco_keeps_images_that_are_not_on_disk(tmp_path):
    write_coco(tmp_path, make_instances())
    (tmp_path / "val2017/000000000139.png").unlink()
    collection = load_coco(tmp_path)
    assert len(collection) == 2
    assert collection.missing_files()["image_id"].tolist() == ["139"]


def test_coco_extra_keys_become_columns(tmp_path):
    annotations = [
        make_annotation(attributes={"shape": "disk", "area": "large"}, score=0.5),
        make_annotation(id=6),
    ]
    collection = load_coco(write_coco(tmp_path, make_instances(*annotations)))
    objects = collection.objects
    assert objects["shape"].iloc[0] == "disk"
    assert objects["shape"].isna().tolist() == [False, True]
    assert objects["score"].iloc[0] == 0.5
    assert objects["coco_area"].iloc[0] == "large"
    assert objects["area"].tolist() == [6.0, 6.0]
    assert collection.images["ground"].iloc[0] == "grass"


def test_coco_crowds_are_marked_or_left_out(tmp_path):
    write_coco(tmp_path, make_instances(make_annotation(), make_annotation(id=6, iscrowd=1)))
    assert load_coco(tmp_path).objects["iscrowd"].tolist() == [False, True]
    assert load_coco(tmp_path, crowd=False).objects["object_id"].tolist() == ["5"]


def test_coco_without_annotations_of_an_image_set_is_still_read(tmp_path):
    instances = {"images": IMAGES, "annotations": [], "categories": []}
    assert len(load_coco(write_coco(tmp_path, instances)).objects) == 0


def test_coco_without_annotation_files_says_what_it_looked_for_and_found(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "annotations/instances_train2017.json").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load_coco(tmp_path)
    for part in ("instances_val2017.json", "captions_val2017.json", "instances_train2017.json"):
        assert part in str(caught.value)
    assert "cocodataset.org" in str(caught.value)


def test_coco_in_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere.*cocodataset.org"):
        load_coco(tmp_path / "nowhere")


def test_coco_without_images_says_where_it_looked(tmp_path):
    write_coco(tmp_path, make_instances(), folder="elsewhere")
    with pytest.raises(FileNotFoundError, match=r"val2017 and .*images/val2017"):
        load_coco(tmp_path)


def test_coco_file_asked_for_must_be_there(tmp_path):
    write_coco(tmp_path, make_instances())
    with pytest.raises(FileNotFoundError, match=r"mine\.json"):
        load_coco(tmp_path, captions="mine.json")


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ('{"images": [}', r"instances_val2017\.json is not valid JSON: .*line 1 column 13"),
        ("[" * 100_000, "is not valid JSON: .*recursion"),
        ("[]", "no list of objects 'images'"),
        ({"images": []}, "it names no image"),
        ({"images": {}, "annotations": []}, "no list of objects 'images': images is {}"),
        (make_instances(images=[1]), r"images\[0\] of .*: it is 1, no object"),
        (make_instances(images=[{"id": 1, "file_name": "/a.png"}]), "1 left out.* is '/a.png'"),
    ],
)
def test_coco_of_which_nothing_is_left_is_explained(tmp_path, instances, message):
    write_coco(tmp_path, instances)
    with pytest.raises(ValueError, match=message) as caught:
        load_coco(tmp_path)
    assert "instances_val2017.json" in str(caught.value)


def bad_images(**changes):
    return make_instances(images=[IMAGES[0], {"id": 7, "file_name": "7.png"} | changes])


TWO = {"categories": [*CATEGORIES, {"id": 90, "name": "comb"}]}


@pytest.mark.parametrize(
    ("instances", "left", "reason"),
    [
        (make_instances(make_annotation(image_id=404)), (2, 0), "id 5 .*: image_id is 404"),
        (make_instances(make_annotation(image_id=None)), (2, 0), "image_id is None"),
        (make_instances(make_annotation(category_id=2)), (2, 0), "category_id is 2: which is no"),
        (make_instances(make_annotation(category_id=None)), (2, 0), "category_id is None"),
        (
            make_instances() | TWO,
            (2, 0),
            "category_id is 90: the id names two .*'toothbrush'.*comb",
        ),
        (
            make_instances() | {"categories": [{"id": 90}]},
            (2, 0),
            "category_id is 90: name is miss",
        ),
        (make_instances(make_annotation(bbox=[1, 2, 3])), (2, 0), r"bbox is \[1, 2, 3\], not 4"),
        (make_instances(make_annotation(bbox=None)), (2, 0), "bbox is None, not 4 numbers"),
        (make_instances(make_annotation(bbox=[5, 1, -1, 1])), (2, 0), "sides are below 0"),
        (make_instances(make_annotation(bbox=[1, 1, float("nan"), 1])), (2, 0), "nan.*, not 4"),
        (
            make_instances(make_annotation(bbox=[1e6, 1, 2, 2])),
            (2, 0),
            "the image has 6 x 4 pixels",
        ),
        (make_instances(make_annotation(iscrowd="no")), (2, 0), "iscrowd is 'no', neither 0 nor 1"),
        (make_instances(make_annotation(), make_annotation()), (2, 1), "id 5 .* a second time"),
        (make_instances({"image_id": 139}), (2, 0), r"annotations\[0\].*: id is missing"),
        (
            bad_images(file_name="../secret.png"),
            (1, 1),
            "file_name is '../secret.png', but must be",
        ),
        (bad_images(file_name="a\0b.png"), (1, 1), "which no file can be called"),
        (bad_images(file_name="\ud800.png"), (1, 1), "a lone surrogate"),
        (bad_images(id=139), (1, 0), "id 139|'139'.* the id is that of '000000000139.png', too"),
        (bad_images(height=None, width=5), (2, 1), "image '7' .*: kept, but height is None"),
        (bad_images(height=48.5, width=5), (2, 1), "kept, but height is 48.5"),
        (make_instances(make_annotation(area="a")), (2, 1), "annotation '5' .*: kept, but area is"),
        (make_instances(make_annotation(color="\ud800")), (2, 1), "kept without its color"),
    ],
)
def test_a_bad_coco_record_is_left_out_and_listed(tmp_path, instances, left, reason):
    collection = load_coco(write_coco(tmp_path, instances))
    assert (len(collection), len(collection.objects)) == left
    assert collection.skipped["reason"].str.contains(reason).any(), collection.skipped.to_dict()
    known = {"annotations/instances_val2017.json", "val2017/000000000139.png"}
    assert set(collection.skipped["path"]) <= known


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[]], "no polygon .* has three points"),
        ([[5, 5, 25, 25]], "far outside an image of 6 x 4 pixels"),
        ([[1, 1, 3, 3]], "no polygon .* has three points"),
        ([[1, 1, 3, 3, 5]], "not .x, y, x, y"),
        ([[1, 1, 3, None, 5, 1]], "not .x, y, x, y"),
        ([[1, 1, 3, float("inf"), 5, 1]], "not .x, y, x, y"),
        ([[1, 1, 3, 1e12, 5, 1]], "far outside"),
        ("none", "neither polygons nor RLE"),
        ({"size": [6, 4], "counts": [24]}, r"size is \[6, 4\], but the image's is 6 x 4 pixels"),
        ({"size": [4, 6], "counts": [23]}, r"cover 23 pixels, not \[4, 6\]"),
        ({"size": [4, 6], "counts": [25, -1]}, "not runs of pixels"),
        ({"size": [4, 6], "counts": [23.5, 0.5]}, "not runs of pixels"),
        ({"size": [4, 6], "counts": "zzzz"}, "no letter of the code: 'zzzz'"),
        ({"size": [4, 6], "counts": "53"}, "cover 8 pixels, not 24"),
        ({"size": [4, 6]}, "counts are None"),
        ({"counts": [24]}, "size is None"),
    ],
)
def test_an_object_whose_segmentation_is_broken_is_kept_without(tmp_path, segmentation, reason):
    annotations = make_annotation(), make_annotation(id=6, segmentation=segmentation)
    collection = load_coco(write_coco(tmp_path, make_instances(*annotations)))
    assert collection.objects["segmentation"].notna().tolist() == [True, False]
    assert collection.skipped["path"].tolist() == ["val2017/000000000139.png"]
    assert collection.skipped["reason"].str.contains("annotation '6' .* kept without a mask").all()
    assert collection.skipped["reason"].str.contains(reason).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": [2, 1, 5, 1, 5, 3, 2, 3]},
        {"segmentation": {"size": [4.0, 6.0], "counts": [9.0, 2, 2, 2, 2, 2, 5]}},
        {"image_id": 139.0, "id": "5", "category_id": "90"},
        {"iscrowd": None, "area": None},
    ],
    ids=["polygon not in a list", "runs as floats", "ids as floats and text", "null for optional"],
)
def test_what_can_only_mean_one_thing_is_read(tmp_path, changes):
    collection = load_coco(write_coco(tmp_path, make_instances(make_annotation(**changes))))
    np.testing.assert_array_equal(collection.mask("5"), MASK)
    assert collection.objects["category"].tolist() == ["toothbrush"]
    assert collection.skipped.empty


def test_annotations_of_an_image_id_that_names_two_files_are_left_out(tmp_path):
    other = [IMAGES[0] | {"file_name": "other.png"}, IMAGES[1]]
    captions = make_captions(images=other)
    captions["annotations"].append({"id": 78, "image_id": 139, "caption": "Of the other picture."})
    collection = load_coco(write_coco(tmp_path, make_instances(), captions))
    assert collection.images["path"].tolist()[0] == "val2017/000000000139.png"
    assert collection.objects["object_id"].tolist() == ["5"]
    assert collection.captions["caption_id"].tolist() == ["77"]
    assert len(collection.skipped) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"caption": None}, "caption is None, not a text"),
        ({"caption": " "}, "caption is ' ', not a text"),
        ({"caption": "\udc00"}, "lone surrogate"),
        ({"image_id": 404}, "image_id is 404"),
        ({"id": None}, "id is None"),
        ({"id": 77}, "a second time"),
    ],
)
def test_a_bad_coco_caption_is_left_out_and_listed(tmp_path, changes, reason):
    captions = make_captions()
    captions["annotations"].append({"id": 78, "image_id": 139, "caption": "Grass."} | changes)
    collection = load_coco(write_coco(tmp_path, captions=captions))
    assert collection.captions["caption_id"].tolist() == ["77"]
    assert collection.skipped["reason"].str.contains(reason).tolist() == [True]


def test_a_number_of_thousands_of_digits_costs_its_record(tmp_path):
    text = json.dumps(make_instances(make_annotation(), make_annotation(id=6, area=7.125)))
    collection = load_coco(write_coco(tmp_path, text.replace("7.125", "9" * 5000)))
    assert collection.objects["area"].isna().tolist() == [False, True]
    assert "annotation '6'" in collection.skipped["reason"][0]


def test_twenty_thousand_ids_that_come_twice_take_no_minutes(tmp_path):
    n = 20_000
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(n)]
    started = time.perf_counter()
    collection = load_coco(write_coco(tmp_path, make_instances(images=images + images)))
    assert (len(collection), len(collection.skipped)) == (n, n)
    assert time.perf_counter() - started < 20  # a list instead of a set took minutes


def test_coco_names_keep_their_spelling(tmp_path):
    name = unicodedata.normalize("NFD", "Äpfel im Körbchen 苹果.png")
    instances = make_instances(images=[IMAGES[0] | {"file_name": name}])
    root = write_coco(tmp_path / "mein Ordner é", instances)
    write_image(root / "val2017" / name, np.zeros((4, 6, 3), np.uint8))
    collection = load_coco(root)
    assert collection.image_path("139").name == name
    assert collection.missing_files().empty


# --- folders ----------------------------------------------------------------------------


def write_images(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, np.zeros((2, 3, 3), np.uint8))
    return root


def test_folder_gives_every_picture_in_sorted_order(tmp_path):
    collection = load_folder(write_images(tmp_path, "b.png", "a/c.png", "a/b/d.jpg"))
    assert collection.images["path"].tolist() == ["a/b/d.jpg", "a/c.png", "b.png"]
    assert collection.images["width"].tolist() == [-1, -1, -1]
    assert collection.name == tmp_path.name


def test_folder_ids_come_from_the_path(tmp_path):
    write_images(tmp_path, "a/c.png")
    expected = hashlib.sha256(b"a/c.png").hexdigest()[:16]
    assert load_folder(tmp_path).images["image_id"].tolist() == [expected]
    write_images(tmp_path, "a/b.png")
    assert expected in load_folder(tmp_path).images["image_id"].tolist()


def test_folder_opens_no_picture(tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    collection = load_folder(tmp_path)
    with pytest.raises(ImageError, match="not an image"):
        collection.read(collection.images["image_id"].iloc[0])


def test_folder_names_keep_their_spelling(tmp_path):
    names = [
        f"Ordner mit é/{unicodedata.normalize(form, 'Ä ß 日本.png')}" for form in ("NFD", "NFC")
    ]
    collection = load_folder(str(write_images(tmp_path, *names)))
    assert collection.images["path"].tolist() == sorted(names)
    assert collection.missing_files().empty


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_folder_reports_names_that_are_no_utf8(tmp_path):
    write_images(tmp_path, "a.png")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    collection = load_folder(tmp_path)
    assert collection.images["path"].tolist() == ["a.png"]
    assert collection.skipped["path"].tolist() == ["caf\\udce9.png"]
    assert "UTF-8" in collection.skipped["reason"].iloc[0]


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"no images in {tmp_path}"):
        load_folder(tmp_path)


def test_folder_lists_what_was_left_out(tmp_path):
    write_images(tmp_path, "a.png", "@eaDir/a.png/THUMB.jpg")
    for name in ("b.CR2", "c.mov", "d.txt"):
        (tmp_path / name).touch()
    collection = load_folder(tmp_path)
    assert collection.images["path"].tolist() == ["a.png"]
    assert collection.skipped["path"].tolist() == ["@eaDir", "b.CR2", "c.mov"]
    assert collection.summary()["skipped"] == 3


# --- class folders ----------------------------------------------------------------------


def test_classes_are_sorted_and_become_labels(tmp_path):
    write_images(tmp_path, "cat/1.png", "a-b/2.png", "a/3.png", "a/deep/4.png")
    images = load_class_folders(tmp_path).images
    assert images["label"].tolist() == ["a", "a", "a-b", "cat"]
    assert images["path"].tolist() == ["a/3.png", "a/deep/4.png", "a-b/2.png", "cat/1.png"]


def test_class_images_have_the_ids_of_the_plain_folder(tmp_path):
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    plain, classes = load_folder(tmp_path), load_class_folders(tmp_path)
    assert plain.images["image_id"].equals(classes.images["image_id"])


def test_stray_files_and_empty_classes_are_reported(tmp_path):
    write_images(tmp_path, "cat/1.png", "stray.png")
    (tmp_path / "README.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".DS_Store").touch()
    collection = load_class_folders(tmp_path)
    assert collection.images["path"].tolist() == ["cat/1.png"]
    assert dict(zip(collection.skipped["path"], collection.skipped["reason"], strict=True)) == {
        "README.txt": "not in a class folder",
        "stray.png": "not in a class folder",
        "empty": "class folder without images",
    }


def test_folders_of_the_system_are_no_classes(tmp_path):
    write_images(
        tmp_path, "cat/1.png", *(f"{n}/2.png" for n in ("@eaDir", "#recycle", "lost+found"))
    )
    collection = load_class_folders(tmp_path)
    assert collection.images["label"].tolist() == ["cat"]
    assert collection.skipped["path"].tolist() == ["#recycle", "@eaDir", "lost+found"]


def test_pictures_left_out_of_a_class_are_listed(tmp_path):
    write_images(tmp_path, "cat/1.png", "dog/2.png", "dog/3.jpg")
    (tmp_path / "cat/1.nef").touch()
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu/1.nef").touch()
    skipped = load_class_folders(tmp_path).skipped
    assert skipped["path"].tolist() == ["cat/1.nef", "emu", "emu/1.nef"]
    assert load_class_folders(tmp_path, classes=["dog"]).skipped.empty


def test_class_folder_without_permission_is_left_out_and_listed(tmp_path, monkeypatch):
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) == "dog":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    collection = load_class_folders(tmp_path)
    assert collection.images["label"].tolist() == ["cat"]
    assert dict(zip(collection.skipped["path"], collection.skipped["reason"], strict=True)) == {
        "dog": "it cannot be listed: Permission denied"
    }


@pytest.mark.parametrize("splits", [("Train", "Test"), ("training", "VALID"), ("test", "val")])
def test_folders_of_splits_are_no_classes(tmp_path, splits):
    write_images(tmp_path, *(f"{split}/{label}/1.png" for split in splits for label in "ba"))
    (tmp_path / "labels.csv").touch()
    write_images(tmp_path, "extra/deep/1.png")
    collection = load_class_folders(tmp_path)
    known = {"training": "train", "valid": "val"}
    expected = [(label, known.get(s.lower(), s.lower())) for label in "ab" for s in sorted(splits)]
    assert collection.images[["label", "split"]].apply(tuple, axis=1).tolist() == expected
    assert collection.skipped["path"].tolist() == ["extra", "labels.csv"]
    plain = load_folder(tmp_path).images.set_index("path")["image_id"]
    assert collection.images["image_id"].tolist() == plain[collection.images["path"]].tolist()


def test_class_that_only_one_split_has_is_missed_in_the_other(tmp_path):
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    (tmp_path / "test/b").mkdir()
    assert load_class_folders(tmp_path).skipped["path"].tolist() == ["test/b"]


def test_classes_can_be_chosen(tmp_path):
    write_images(tmp_path, "cat/1.png", "dog/2.png", "emu/3.png")
    collection = load_class_folders(tmp_path, classes=["emu", "cat"])
    assert collection.images["label"].tolist() == ["cat", "emu"]
    assert collection.skipped.empty


def test_class_without_a_folder_is_named_with_those_there(tmp_path):
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    with pytest.raises(ValueError, match=r"\['emu'\].*\['cat', 'dog'\]"):
        load_class_folders(tmp_path, classes=["cat", "emu"])


def test_flat_folder_has_no_classes(tmp_path):
    write_images(tmp_path, "1.png")
    with pytest.raises(ValueError, match="no images in the class folders"):
        load_class_folders(tmp_path)


# --- by name ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "n"), [("folder", 2), ("classes", 1)])
def test_collection_is_loaded_by_kind(tmp_path, kind, n):
    write_images(tmp_path, "cat/1.png", "2.png")
    assert len(load_collection(kind, tmp_path)) == n


def test_options_reach_the_loader(tmp_path):
    write_coco(tmp_path, make_instances(make_annotation(iscrowd=1)))
    assert load_collection("coco", tmp_path, split="val2017", crowd=False).objects.empty


def test_unknown_kind_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'voc'; known: coco, folder, classes"):
        load_collection("voc", tmp_path)
