"""An index is known by what its pictures are, not by their times, places or the folder's name."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab import load_collection
from regionlab.data.collection import load_folder
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import open_index
from regionlab.index.staging import IMAGES, PREVIOUS, REGIONS, get_staging
from regionlab.index.tables import STAMPS, IndexFolderError
from regionlab.index.verify import verify_index
from regionlab.models.registry import load_encoder
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.util import paths
from small_pictures import write_picture

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)
COUNT = 5


@pytest.fixture(scope="module")
def other():
    return load_encoder("toyclip/untrained", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def made(encoder, segmenter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for i in range(COUNT):
        write_picture(folder / "photos" / f"{i}.png", i, size=(30 + i, 24))
    index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    add_regions(index, segmenter, encoder, everything=FEW)
    return folder


@pytest.fixture
def work(made, tmp_path):
    """A copy of `made`, as by `cp -r`: every time is new."""
    return Path(shutil.copytree(made, tmp_path / "work", copy_function=shutil.copyfile))


@pytest.fixture
def done(encoder, segmenter, monkeypatch):
    """What was embedded (names) and segmented (widths)."""
    embedded, widths = [], []
    read, segment = encoder._read, segmenter.segment_everything
    watch = lambda item: embedded.append(Path(item[1]).name) or read(item)  # noqa: E731
    monkeypatch.setattr(encoder, "_read", watch)
    look = lambda image, **o: widths.append(image.shape[1]) or segment(image, **o)  # noqa: E731
    monkeypatch.setattr(segmenter, "segment_everything", look)
    return embedded, widths


def build(folder, encoder, place=None):
    return build_index(load_folder(folder), encoder, place or folder.parent / "index")


def parts(index):
    """Vector, regions and their vectors of each image, by its contents."""
    table = index.regions.drop(columns=["row", "image_id", "region_id"])
    return {
        digest: (
            index.vectors[row].tobytes(),
            table.iloc[index.regions_of(row)].to_csv(index=False),
            index.region_vectors[index.regions_of(row)].tobytes(),
        )
        for row, digest in enumerate(index.images["sha256"])
    }


def files(index, *but):
    return {p.name: p.read_bytes() for p in index.folder.iterdir() if p.name not in but}


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# What is the same is kept


@pytest.mark.parametrize("how", ["copied", "touched", "mounted elsewhere"])
def test_what_is_the_same_keeps_every_byte(made, work, encoder, done, how):
    old = open_index(made / "index")
    folder = work / "photos"
    if how == "touched":
        build(folder, encoder)
        os.utime(folder / "1.png", (5, 5))
    if how == "mounted elsewhere":
        folder = folder.rename(work / "mounted")
    index = build(folder, encoder)
    assert done == ([], [])
    assert (index.id, index.regions_id) == (old.id, old.regions_id)
    assert index.root == folder.resolve() and index.missing_files() == []
    changed = ("manifest.json", STAMPS)
    assert files(index, *changed) == files(old, *changed)
    assert verify_index(index.folder) == [] and hidden(work) == []


def test_one_new_picture_is_all_that_is_embedded_and_segmented(
    made, work, encoder, segmenter, done, capsys
):
    write_picture(work / "photos" / "25.png", 25, size=(55, 24))
    index = build(work / "photos", encoder)
    assert f"photos: 1 new, {COUNT} kept\n" in capsys.readouterr().out
    assert done == (["25.png"], [])
    assert index.region_failures.to_dict("records") == [
        {
            "image_id": index.images["image_id"][3],
            "path": "25.png",
            "reason": "no regions yet: call add_regions",
        }
    ]
    index = add_regions(index, segmenter, encoder, everything=FEW)
    assert f"regions: 1 new, {COUNT} kept\n" in capsys.readouterr().out
    assert done == (["25.png"], [55])
    assert len(index.region_failures) == 0 and len(index) == COUNT + 1
    before, now = parts(open_index(made / "index")), parts(index)
    assert {digest: now[digest] for digest in before} == before
    assert verify_index(index.folder) == [] and hidden(work) == []


def test_images_and_regions_may_be_made_in_one_step(work, encoder, segmenter, done, capsys):
    write_picture(work / "photos" / "25.png", 25, size=(55, 24))
    write_picture(work / "photos" / "1.png", 101, size=(51, 24))
    (work / "photos" / "0.png").unlink()
    options = {"segmenter": segmenter, "everything": FEW}
    index = build_index(load_folder(work / "photos"), encoder, work / "index", **options)
    assert "photos: 1 new, 3 kept, 1 changed, 1 removed\n" in capsys.readouterr().out
    assert (sorted(done[0]), sorted(done[1])) == (["1.png", "25.png"], [51, 55])
    fresh = build_index(load_folder(work / "photos"), encoder, work / "anew", fresh=True, **options)
    pd.testing.assert_frame_equal(index.regions, fresh.regions)
    np.testing.assert_allclose(index.region_vectors, fresh.region_vectors, atol=1e-5)
    assert (index.id, index.regions_id) == (fresh.id, fresh.regions_id)
    assert verify_index(index.folder) == [] and hidden(work) == []


def test_a_changed_picture_loses_its_regions_until_they_are_found_anew(work, encoder):
    write_picture(work / "photos" / "1.png", 101, size=(51, 24))
    index = build(work / "photos", encoder)
    assert index.region_failures["path"].tolist() == ["1.png"]
    assert index.regions_of(1) == slice(3, 3)
    assert index.manifest["regions"]["images_without"] == 0


def test_other_columns_are_taken_without_embedding(made, work, encoder, done):
    collection = load_folder(work / "photos")
    labelled = replace(collection, images=collection.images.assign(label=list("abcab")))
    index = build_index(labelled, encoder, work / "index")
    assert index.images["label"].tolist() == list("abcab")
    assert done == ([], [])
    assert parts(index) == parts(open_index(made / "index"))


@pytest.mark.parametrize("harm", ["missing", "garbage", "[]", '{"root": 3}'])
def test_without_stamps_contents_are_compared(work, encoder, done, harm):
    build(work / "photos", encoder)
    path = work / "index" / STAMPS
    path.unlink() if harm == "missing" else path.write_text(harm)
    assert verify_index(work / "index") == []
    build(work / "photos", encoder)
    assert done == ([], [])


def test_an_index_of_an_older_version_is_taken_over(made, work, encoder, done):
    from regionlab.index.tables import read_manifest, write_manifest

    (work / "index" / STAMPS).unlink()
    manifest = read_manifest(work / "index") | {"plan": "of an older version"}
    manifest.pop("title")
    write_manifest(work / "index", manifest)
    assert parts(build(work / "photos", encoder)) == parts(open_index(made / "index"))
    assert done == ([], [])


@pytest.mark.parametrize("change", ["places", "labels"])
def test_a_read_only_index_serves_if_only_places_and_times_are_old(
    made, work, encoder, monkeypatch, change
):
    def refuse(folder, **options):
        raise IndexFolderError("cannot write") from PermissionError(errno.EROFS, "read-only")

    collection = load_folder((work / "photos").rename(work / "mounted"))
    if change == "labels":
        collection = replace(collection, images=collection.images.assign(label="new"))
    monkeypatch.setattr("regionlab.index.build.lock_index", refuse)
    if change == "labels":
        with pytest.raises(IndexFolderError, match="cannot write"):
            build_index(collection, encoder, work / "index")
        return
    index = build_index(collection, encoder, work / "index")
    assert index.missing_files() == []
    assert parts(index) == parts(open_index(made / "index"))


# Places


def test_two_folders_of_one_name_have_two_places(tmp_path):
    for home in ("a", "b"):
        write_picture(tmp_path / home / "DCIM" / "1.png", 1)
    one, two = (load_collection("folder", tmp_path / home / "DCIM") for home in ("a", "b"))
    assert paths.index_folder(one.name, one.split) != paths.index_folder(two.name, two.split)
    assert one.title == two.title == "DCIM"
    assert repr(one) == "<Collection DCIM: 1 images>"
    assert load_collection("folder", tmp_path / "a" / "DCIM").name == one.name


def test_a_folder_in_the_workspace_has_its_place_wherever_that_lies(tmp_path, monkeypatch):
    names = []
    for home in ("a", "b"):
        write_picture(tmp_path / home / "data" / "DCIM" / "1.png", 1)
        monkeypatch.setattr(paths, "ROOT", tmp_path / home)
        names.append(load_collection("folder", tmp_path / home / "data" / "DCIM").name)
    assert names[0] == names[1]


def test_a_moved_folder_takes_over_from_the_index_of_its_old_place(made, work, encoder, done):
    moved = (work / "photos").rename(work / "moved")
    write_picture(moved / "25.png", 25)
    index = build(moved, encoder, work / "index of the moved one")
    assert done == (["25.png"], [])
    before, now = parts(open_index(made / "index")), parts(index)
    assert {digest: now[digest] for digest in before} == before
    assert len(open_index(work / "index")) == COUNT


def test_an_index_beside_it_of_other_pictures_is_of_no_use(work, encoder, done):
    for i in range(COUNT):
        write_picture(work / "others" / f"{i}.png", 50 + i)
    shutil.copy(work / "photos" / "0.png", work / "others")
    index = build(work / "others", encoder, work / "index of others")
    assert len(done[0]) == COUNT
    assert index.regions is None


# Other models


def test_regions_stay_until_those_of_another_model_are_there(
    made, work, encoder, other, segmenter, done
):
    index = build(work / "photos", other)
    aside = get_staging(index.folder, PREVIOUS)
    assert parts(open_index(aside)) == parts(open_index(made / "index"))
    assert all(not finding.harm for finding in verify_index(index.folder))
    back = build(work / "photos", encoder)
    assert parts(back) == parts(open_index(made / "index"))
    assert done == ([], []) and not aside.exists()
    index = build(work / "photos", other)
    add_regions(index, segmenter, other, everything=FEW)
    assert hidden(work) == []


def test_fresh_vectors_leave_the_old_regions_until_there_are_new_ones(
    work, encoder, segmenter, done
):
    index = build_index(load_folder(work / "photos"), encoder, work / "index", fresh=True)
    assert len(done[0]) == COUNT and index.regions is None
    assert open_index(get_staging(index.folder, PREVIOUS)).regions is not None
    add_regions(index, segmenter, encoder, everything=FEW)
    assert hidden(work) == []


def test_the_service_indexes_a_folder_again_only_for_what_is_new(
    made, work, encoder, segmenter, done, monkeypatch
):
    from regionlab.service.server import build_own

    monkeypatch.setattr(paths, "DATA", work / "data")
    monkeypatch.setattr(segmenter, "everything", FEW)
    first = build_own(work / "photos", encoder, segmenter)
    write_picture(work / "photos" / "25.png", 25, size=(55, 24))
    done[0].clear(), done[1].clear()
    second = build_own(work / "photos", encoder, segmenter)
    assert done == (["25.png"], [55])
    assert second.folder == first.folder
    before, now = parts(open_index(made / "index")), parts(second)
    assert {digest: now[digest] for digest in before} == before


def test_an_engine_does_not_outlive_a_change_of_its_index(work, encoder):
    from regionlab.search.images import get_engine

    index = build(work / "photos", encoder)
    get_engine(index, "faiss:Flat")
    write_picture(work / "photos" / "1.png", 101)
    changed = build(work / "photos", encoder)
    engine = get_engine(changed, "faiss:Flat")
    rows, _ = engine.search(np.array(changed.vectors[1:2]), 1)
    assert rows.tolist() == [[1]]
    np.testing.assert_array_equal(engine.vectors, changed.vectors)


# Work that was cut off


class Killed(BaseException):
    """Stands for a killed process: nothing may catch it."""


def dies(segmenter, patch, after):
    segment, seen = segmenter.segment_everything, []

    def stop(image, **options):
        seen.append(image)
        if len(seen) > after:
            raise Killed
        return segment(image, **options)

    patch.setattr(segmenter, "segment_everything", stop)


@pytest.mark.parametrize("second", ["one step", "two steps"])
@pytest.mark.parametrize("first", ["one step", "two steps"])
def test_cut_off_work_is_known_by_contents_too(
    made, tmp_path, encoder, segmenter, monkeypatch, done, first, second
):
    shutil.copytree(made / "photos", tmp_path / "photos")
    place = tmp_path / "index"

    def make(steps):
        collection = load_folder(tmp_path / "photos")
        if steps == "one step":
            monkeypatch.setattr("regionlab.index.change.REGION_SHARD", 1)
            more = {"segmenter": segmenter, "everything": FEW}
            return build_index(collection, encoder, place, **more)
        index = build_index(collection, encoder, place)
        return add_regions(index, segmenter, encoder, everything=FEW, shard_size=1)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies(segmenter, patch, 3)
        make(first)
    for path in (tmp_path / "photos").iterdir():
        os.utime(path, (5, 5))
    write_picture(tmp_path / "photos" / "25.png", 25, size=(55, 24))
    done[0].clear(), done[1].clear()
    index = make(second)
    assert (done[0], sorted(done[1])) == (["25.png"], [33, 34, 55])
    before, now = parts(open_index(made / "index")), parts(index)
    assert {digest: now[digest] for digest in before} == before
    assert hidden(tmp_path) == []


def test_images_embedded_by_a_build_that_was_cut_off_are_not_embedded_again(
    made, tmp_path, encoder, monkeypatch, done
):
    shutil.copytree(made / "photos", tmp_path / "photos")
    sizes = {"batch_size": 1, "shard_size": 1, "workers": 1}
    encode, calls = encoder.encode_pixels, []

    def stop(pixels, **options):
        calls.append(1)
        if len(calls) > 3:
            raise Killed
        return encode(pixels, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(encoder, "encode_pixels", stop)
        build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index", **sizes)
    assert get_staging(tmp_path / "index", IMAGES).exists()
    write_picture(tmp_path / "photos" / "25.png", 25)
    done[0].clear()
    index = build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index", **sizes)
    assert done[0] == ["25.png", "3.png", "4.png"]
    expected = encoder.encode_images([index.path(row) for row in range(len(index))])
    np.testing.assert_allclose(index.vectors, expected, atol=1e-5)
    assert hidden(tmp_path) == []


KILLED = """
import sys
from regionlab.data.collection import load_folder
from regionlab.models.registry import load_encoder
from regionlab.models.segmenter import MaskGeneratorConfig as Everything
from regionlab.index.build import add_regions, build_index
from regionlab.models.registry import load_segmenter
few = Everything(2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3)
encoder = load_encoder(sys.argv[1], device="cpu", precision="fp32")
segmenter = load_segmenter("toysam/untrained", device="cpu", precision="fp32")
print("ready", flush=True)
index = build_index(load_folder(sys.argv[2]), encoder, sys.argv[3])
print("built", flush=True)
add_regions(index, segmenter, encoder, everything=few)
print("all", flush=True)
"""


@pytest.mark.parametrize("word", ["ready", "built"])
def test_a_kill_loses_no_region(made, work, encoder, encoder_file, segmenter, done, word):
    write_picture(work / "photos" / "25.png", 25, size=(55, 24))
    command = [sys.executable, "-c", KILLED, f"toyclip/{encoder_file}"]
    command += [str(work / "photos"), str(work / "index")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while word not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = parts(open_index(made / "index"))
    held = parts(open_index(work / "index"))
    assert {digest: held[digest] for digest in before} == before
    index = add_regions(build(work / "photos", encoder), segmenter, encoder, everything=FEW)
    now = parts(index)
    assert {digest: now[digest] for digest in before} == before
    assert set(done[1]) <= {55} and len(now) == COUNT + 1
    assert get_staging(index.folder, REGIONS).exists() is False


def test_a_picture_edited_in_place_is_seen_though_its_time_was_set_back(tmp_path, encoder):
    picture = tmp_path / "pictures" / "a.bmp"
    picture.parent.mkdir()
    write = [Image.new("RGB", (32, 24), color).save for color in ("red", "blue")]
    write[0](picture)
    before = picture.stat()
    first = build_index(load_folder(picture.parent), encoder, tmp_path / "index")
    write[1](picture)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert picture.stat().st_size == before.st_size
    second = build_index(load_folder(picture.parent), encoder, tmp_path / "index")
    assert not np.allclose(first.vectors, second.vectors)
