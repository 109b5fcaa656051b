"""An index follows its images: what has changed is embedded, what has not is kept."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab.data.collection import load_class_folders, load_folder
from regionlab.index.build import add_regions, build_index
from regionlab.index.change import match_images
from regionlab.index.index import open_index
from regionlab.index.tables import IndexFolderError
from regionlab.index.update import add_images, remove_images, update_index
from regionlab.index.verify import verify_index
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import MaskGeneratorConfig
from small_pictures import write_picture

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)
COUNT = 6


@pytest.fixture(scope="module")
def made(encoder, segmenter, tmp_path_factory):
    """A folder with photos, their index without regions, and the same with them."""
    folder = tmp_path_factory.mktemp("made")
    for i in range(COUNT):
        write_picture(folder / "photos" / f"{i}.png", i, size=(30 + i, 24))
    build_index(load_folder(folder / "photos"), encoder, folder / "plain")
    shutil.copytree(folder / "plain", folder / "whole")
    add_regions(open_index(folder / "whole"), segmenter, encoder, everything=FEW)
    return folder


@pytest.fixture
def work(made, tmp_path):
    """A copy of `made` to be changed."""
    return Path(shutil.copytree(made, tmp_path / "work"))


@pytest.fixture
def embedded(encoder, monkeypatch):
    """Names of the files that the encoder reads."""
    names = []
    original = encoder._read

    def watch(item):
        names.append(Path(item[1]).name)
        return original(item)

    monkeypatch.setattr(encoder, "_read", watch)
    return names


@pytest.fixture
def segmented(segmenter, monkeypatch):
    """Widths of the images that are segmented."""
    widths = []
    original = segmenter.segment_everything

    def watch(image, **options):
        widths.append(image.shape[1])
        return original(image, **options)

    monkeypatch.setattr(segmenter, "segment_everything", watch)
    return widths


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def photos(work):
    return load_folder(work / "photos")


def assert_same(index, expected):
    """An index with the tables of another, and its vectors but for the last digits."""
    pd.testing.assert_frame_equal(index.images, expected.images)
    np.testing.assert_allclose(index.vectors, expected.vectors, atol=1e-5)
    assert (index.id, len(index.failures)) == (expected.id, len(expected.failures))
    assert (index.regions is None) == (expected.regions is None)
    if expected.regions is not None:
        pd.testing.assert_frame_equal(index.regions, expected.regions)
        np.testing.assert_allclose(index.region_vectors, expected.region_vectors, atol=1e-5)
        assert index.regions_id == expected.regions_id
        made, other = index.manifest["regions"], expected.manifest["regions"]
        assert made | {"seconds": 0, "vectors_sample": 0} == other | {
            "seconds": 0,
            "vectors_sample": 0,
        }
    assert verify_index(index.folder) == []


def build_anew(work, encoder, segmenter=None):
    """What a build from nothing makes of the photos."""
    index = build_index(photos(work), encoder, work / "anew", fresh=True)
    return index if segmenter is None else add_regions(index, segmenter, encoder, everything=FEW)


def change_photos(work):
    """One changed, one gone, one new, one renamed, one touched."""
    write_picture(work / "photos" / "1.png", 101, size=(51, 24))
    (work / "photos" / "2.png").unlink()
    write_picture(work / "photos" / "25.png", 25, size=(55, 24))
    (work / "photos" / "3.png").rename(work / "photos" / "a new name.png")
    os.utime(work / "photos" / "4.png", (1, 1))


# Updating


def test_an_update_embeds_only_what_changed_or_is_new(work, encoder, embedded):
    change_photos(work)
    index = update_index(open_index(work / "plain"), photos(work), encoder)
    assert sorted(embedded) == ["1.png", "25.png"]
    assert_same(index, build_anew(work, encoder))
    assert index.images["path"].tolist()[-1] == "a new name.png"
    assert hidden(work) == []


def test_what_is_kept_keeps_its_very_vector(work, encoder):
    old = open_index(work / "plain")
    before = np.array(old.vectors)
    change_photos(work)
    new = update_index(old, photos(work), encoder)
    assert new.images["path"].tolist() == ["0.png", "1.png", "25.png", "4.png", "5.png"] + [
        "a new name.png"
    ]
    np.testing.assert_array_equal(new.vectors[[0, 3, 4, 5]], before[[0, 4, 5, 3]])
    assert (new.vectors[1] != before[1]).any()


def test_a_file_changed_behind_its_size_and_time_is_found(work, encoder, embedded):
    path = work / "photos" / "4.png"
    stat = path.stat()
    picture = Image.open(path).rotate(180)
    for level in range(10):  # until it has the very size
        picture.save(path, compress_level=level)
        path.write_bytes(path.read_bytes().ljust(stat.st_size, b"\0"))
        if path.stat().st_size == stat.st_size:
            break
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    index = build_index(photos(work), encoder, work / "plain")  # by the time of its status
    assert embedded == ["4.png"]
    update_index(index, photos(work), encoder)
    assert embedded == ["4.png"]
    expected = encoder.encode_images(path)
    np.testing.assert_allclose(index.vectors[[4]], expected, atol=1e-5)


def test_regions_of_what_is_kept_are_kept(work, encoder, segmenter, segmented):
    change_photos(work)
    index = open_index(work / "whole")
    new = update_index(index, photos(work), encoder, segmenter=segmenter)
    assert sorted(segmented) == [51, 55]
    assert_same(new, build_anew(work, encoder, segmenter))
    assert len(new.regions) > len(new)
    assert hidden(work) == []


def test_nothing_changed_leaves_every_byte(work, encoder, segmenter, embedded, segmented):
    # The copy of `made` has another place and new times: the first one writes them down.
    index = update_index(open_index(work / "whole"), photos(work), encoder)
    before = {path.name: path.read_bytes() for path in index.folder.iterdir()}
    index = update_index(index, photos(work), encoder)
    assert {path.name: path.read_bytes() for path in index.folder.iterdir()} == before
    assert embedded == segmented == []
    assert hidden(work) == []


def test_a_build_takes_an_updated_index_for_its_own(work, encoder, embedded):
    change_photos(work)
    index = update_index(open_index(work / "plain"), photos(work), encoder)
    embedded.clear()
    assert build_index(photos(work), encoder, work / "plain").id == index.id
    assert embedded == []


def test_other_columns_and_another_order_come_from_the_collection(work, encoder, embedded):
    for i in range(COUNT):
        (work / "photos" / "ab"[i % 2]).mkdir(exist_ok=True)
        (work / "photos" / f"{i}.png").rename(work / "photos" / "ab"[i % 2] / f"{i}.png")
    before = np.array(open_index(work / "plain").vectors)
    labelled = load_class_folders(work / "photos")
    index = update_index(open_index(work / "plain"), labelled, encoder)
    assert index.images["label"].tolist() == list("aaabbb")
    np.testing.assert_array_equal(index.vectors, before[[0, 2, 4, 1, 3, 5]])
    assert embedded == []


def test_a_picture_that_is_there_twice_has_its_vector_and_regions_twice(
    work, encoder, segmenter, embedded, segmented
):
    shutil.copy(work / "photos" / "2.png", work / "photos" / "twin.png")
    index = update_index(open_index(work / "whole"), photos(work), encoder, segmenter=segmenter)
    assert embedded == segmented == []
    assert_same(index, build_anew(work, encoder, segmenter))
    twins = index.regions_of(2), index.regions_of(6)
    assert index.regions["rle"][twins[0]].tolist() == index.regions["rle"][twins[1]].tolist()
    assert index.regions["region_id"].is_unique


def test_files_that_cannot_be_read_are_listed_and_tried_again(work, encoder, embedded):
    whole = (work / "photos" / "1.png").read_bytes()
    (work / "photos" / "1.png").write_bytes(whole[:50])
    (work / "photos" / "empty.png").touch()
    collection = photos(work)
    (work / "photos" / "3.png").unlink()
    with pytest.warns(UserWarning, match="3 files are not in the index") as caught:
        index = update_index(open_index(work / "plain"), collection, encoder)
    assert caught[0].filename == __file__
    assert index.failures["path"].tolist() == ["1.png", "3.png", "empty.png"]
    assert index.failures["reason"].tolist()[1:] == ["file not found", "empty file (0 bytes)"]
    (work / "photos" / "1.png").write_bytes(whole)
    (work / "photos" / "empty.png").unlink()
    shutil.copy(work / "photos" / "0.png", work / "photos" / "3.png")
    embedded.clear()
    index = update_index(index, photos(work), encoder)
    assert embedded == ["1.png"]  # 3.png is 0.png now, whose vector is there
    assert_same(index, build_anew(work, encoder))


def test_regions_that_could_not_be_found_are_tried_again(work, encoder, segmenter):
    (work / "photos" / "2.png").rename(work / "away.png")
    with pytest.warns(UserWarning, match="1 images have no regions"):
        add_regions(open_index(work / "plain"), segmenter, encoder, everything=FEW)
    (work / "away.png").rename(work / "photos" / "2.png")
    os.utime(work / "photos" / "2.png", (1, 1))
    index = update_index(open_index(work / "plain"), photos(work), encoder, segmenter=segmenter)
    assert_same(index, build_anew(work, encoder, segmenter))


def test_the_images_may_have_moved(work, encoder, embedded):
    (work / "photos").rename(work / "pictures")
    moved = replace(load_folder(work / "pictures"), name="photos")
    index = update_index(open_index(work / "plain"), moved, encoder)
    assert embedded == []
    assert index.root == work / "pictures"
    assert index.missing_files() == []


def test_all_files_may_change(work, encoder, segmenter):
    for i in range(COUNT):
        write_picture(work / "photos" / f"{i}.png", 50 + i)
    index = update_index(open_index(work / "whole"), photos(work), encoder, segmenter=segmenter)
    assert_same(index, build_anew(work, encoder, segmenter))


def test_images_match_by_contents_and_the_own_id_comes_first():
    images = pd.DataFrame({"image_id": list("abcd"), "sha256": ["1", "2", "1", "3"]})
    ids = pd.Series(["c", "a", "x", "d", "y", "b"])
    digests = np.array(["1", "3", "1", "4", "", ""], dtype=object)
    assert match_images(images, ids, digests).tolist() == [2, 3, 0, -1, -1, -1]


# Adding


def test_images_are_added_and_the_others_stay(work, encoder, embedded):
    old = np.array(open_index(work / "plain").vectors)
    write_picture(work / "photos" / "11.png", 11)
    write_picture(work / "photos" / "0.png", 100)  # what is held stays as it was
    index = add_images(open_index(work / "plain"), photos(work), encoder)
    assert embedded == ["11.png"]
    assert index.images["path"].tolist() == [f"{i}.png" for i in range(COUNT)] + ["11.png"]
    np.testing.assert_array_equal(index.vectors[:COUNT], old)
    expected = encoder.encode_images(work / "photos" / "11.png")
    np.testing.assert_allclose(index.vectors[COUNT:], expected, atol=1e-5)
    assert hidden(work) == []


def test_added_images_get_their_regions(work, encoder, segmenter, segmented):
    write_picture(work / "photos" / "11.png", 11, size=(44, 24))
    old = open_index(work / "whole")
    index = add_images(old, photos(work), encoder, segmenter=segmenter)
    assert segmented == [44]
    count = len(old.regions)
    pd.testing.assert_frame_equal(index.regions.iloc[:count], old.regions)
    np.testing.assert_array_equal(index.region_vectors[:count], old.region_vectors)
    assert set(index.regions["row"][count:]) == {COUNT}
    assert verify_index(index.folder) == []


def test_an_image_that_could_not_be_read_is_tried_again_when_added(work, encoder):
    (work / "photos" / "8.png").touch()
    with pytest.warns(UserWarning, match="1 files"):
        index = add_images(open_index(work / "plain"), photos(work), encoder)
    assert index.failures["path"].tolist() == ["8.png"]
    write_picture(work / "photos" / "8.png", 8)
    index = add_images(index, photos(work), encoder)
    assert len(index) == COUNT + 1
    assert len(index.failures) == 0


def test_nothing_to_add_leaves_the_images(work, encoder, embedded):
    index = open_index(work / "plain")
    again = add_images(index, photos(work).subset(index.images["image_id"][:2]), encoder)
    assert again.id == index.id
    assert embedded == []


def test_images_of_another_folder_are_not_added(work, encoder):
    write_picture(work / "more" / "1.png", 1)
    with pytest.raises(ValueError, match="of the index lie in .*photos, those to add in .*more"):
        add_images(open_index(work / "plain"), load_folder(work / "more"), encoder)


# Removing


def test_images_are_removed_with_their_regions(work, embedded, segmented):
    old = open_index(work / "whole")
    gone = old.images["image_id"].iloc[[0, 3]]
    index = remove_images(old, gone)
    assert index.images["path"].tolist() == ["1.png", "2.png", "4.png", "5.png"]
    np.testing.assert_array_equal(index.vectors, old.vectors[[1, 2, 4, 5]])
    kept = ~old.regions["image_id"].isin(gone)
    expected = old.regions[kept].reset_index(drop=True)
    pd.testing.assert_frame_equal(index.regions.drop(columns="row"), expected.drop(columns="row"))
    assert index.regions["row"].unique().tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(index.region_vectors, old.region_vectors[kept])
    assert embedded == segmented == []
    assert (work / "photos" / "0.png").exists()
    assert verify_index(index.folder) == [] and hidden(work) == []


def test_what_was_removed_comes_back_with_an_update(work, encoder, embedded):
    index = open_index(work / "plain")
    index = remove_images(index, index.images["image_id"][:2])
    index = update_index(index, photos(work), encoder)
    assert sorted(embedded) == ["0.png", "1.png"]
    assert_same(index, build_anew(work, encoder))


def test_failures_outlive_a_removal(work, encoder, segmenter):
    (work / "photos" / "8.png").touch()
    with pytest.warns(UserWarning, match="1 files"):
        index = add_images(open_index(work / "plain"), photos(work), encoder)
    (work / "photos" / "2.png").rename(work / "away.png")
    with pytest.warns(UserWarning, match="1 images have no regions"):
        index = add_regions(index, segmenter, encoder, everything=FEW)
    failures, region_failures = index.failures, index.region_failures
    index = remove_images(index, index.images["image_id"][:2])
    pd.testing.assert_frame_equal(index.failures, failures)
    pd.testing.assert_frame_equal(index.region_failures, region_failures)
    index = remove_images(index, region_failures["image_id"])
    assert len(index.region_failures) == 0


def test_what_is_not_there_cannot_be_removed(work):
    index = open_index(work / "plain")
    with pytest.raises(KeyError, match="no image 'nobody' in the index"):
        remove_images(index, ["nobody"])
    with pytest.raises(ValueError, match="all images of .*plain would go"):
        remove_images(index, index.images["image_id"])
    assert len(open_index(work / "plain")) == COUNT
    assert hidden(work) == [] or hidden(work) == [".plain.lock"]


# What is refused


def test_an_update_by_another_model_is_refused(work, encoder_file, embedded):
    write_picture(work / "photos" / "11.png", 11)
    index = open_index(work / "plain")
    other = load_encoder("toyclip/untrained", device="cpu", precision="fp32")
    with pytest.raises(IndexFolderError, match="by toyclip/untrained"):
        update_index(index, photos(work), other)
    low = load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="bf16")
    with pytest.raises(IndexFolderError, match="made by toyclip/random.* in fp32, this is .*bf16"):
        add_images(index, photos(work), low)
    assert len(open_index(work / "plain")) == COUNT


def test_an_update_of_regions_needs_their_segmenter(work, encoder, segmenter):
    write_picture(work / "photos" / "11.png", 11)
    index = open_index(work / "whole")
    with pytest.raises(ValueError, match="has regions by toysam/untrained.*add segmenter="):
        update_index(index, photos(work), encoder)
    other = load_segmenter("toysam", device="cpu", precision="fp32")
    with pytest.raises(
        IndexFolderError, match="are by toysam/untrained in fp32, this is .*toysam:"
    ):
        update_index(index, photos(work), encoder, segmenter=other)
    assert open_index(work / "whole").regions_id == index.regions_id
    (work / "photos" / "11.png").unlink()
    (work / "photos" / "3.png").unlink()
    assert len(update_index(index, photos(work), encoder)) == COUNT - 1  # nothing to find


def test_an_empty_collection_is_refused(work, encoder):
    with pytest.raises(ValueError, match="has no images to index"):
        update_index(open_index(work / "plain"), photos(work).subset([]), encoder)


@pytest.mark.parametrize("option", ["batch_size", "workers", "shard_size"])
def test_sizes_below_one_are_refused(work, encoder, option):
    with pytest.raises(ValueError, match="must be at least 1"):
        update_index(open_index(work / "plain"), photos(work), encoder, **{option: 0})


def test_if_nothing_can_be_read_the_index_stays(work, encoder):
    for i in range(COUNT):
        (work / "photos" / f"{i}.png").write_text("no picture")
    with pytest.raises(ValueError, match="not one of the 6 images"):
        update_index(open_index(work / "plain"), photos(work), encoder)
    assert len(open_index(work / "plain")) == COUNT


# Killed updates


class Killed(BaseException):
    """Stands for a killed process: nothing may catch it."""


def every_step(patch, steps):
    """Count each change of the file system, and die before the one that `steps` comes to."""
    count = []

    def wrap(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            count.append(name)
            if len(count) > steps:
                raise Killed
            return original(*args, **kwargs)

        patch.setattr(owner, name, wrapped)

    for name in ("rename", "replace", "mkdir", "write_text"):
        wrap(Path, name)
    wrap(shutil, "rmtree")
    for name in ("link", "unlink", "rmdir"):
        wrap(os, name)


def test_an_update_killed_before_any_change_on_disk_recovers(
    work, encoder, segmenter, monkeypatch, embedded
):
    start = work / "start"
    (work / "whole").rename(start)
    old = open_index(start).regions_id
    change_photos(work)
    collection = photos(work)
    options = {"segmenter": segmenter, "batch_size": 1, "shard_size": 1, "workers": 1}
    resumed = []
    for steps in range(0, 120, 3):
        folder = work / "indexes" / str(steps)
        shutil.copytree(start, folder)
        embedded.clear()
        with monkeypatch.context() as patch:
            every_step(patch, steps)
            try:
                expected = update_index(open_index(folder), collection, encoder, **options)
                break
            except Killed:
                pass
        assert open_index(folder).regions_id is not None
        embedded.clear()
        index = update_index(open_index(folder), collection, encoder, **options)
        assert len(embedded) <= 2
        assert index.regions_id != old
        assert [n for n in hidden(folder.parent) if not n.endswith(".lock")] == []
        resumed.append(index)
    assert 30 < steps < 117
    for index in resumed:
        pd.testing.assert_frame_equal(index.regions, expected.regions)
        np.testing.assert_array_equal(index.vectors, expected.vectors)
        np.testing.assert_array_equal(index.region_vectors, expected.region_vectors)
    assert_same(expected, build_anew(work, encoder, segmenter))
