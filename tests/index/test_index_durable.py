"""An index survives: kills, a second builder, a full disk, a folder that cannot be written to."""

import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from killed_builds import check_log, count_twice, measure_resume
from regionlab.data.collection import load_folder
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import open_index
from regionlab.index.staging import (
    IMAGES,
    IndexBusyError,
    find_builder,
    finish_swap,
    get_staging,
    lock_index,
)
from regionlab.index.tables import IndexFolderError
from regionlab.index.update import remove_images, update_index
from regionlab.index.verify import verify_index
from regionlab.models.segmenter import MaskGeneratorConfig

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=2
)


def write_images(folder, count=8, first=0):
    folder.mkdir(exist_ok=True)
    for i in range(first, first + count):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return load_folder(folder)


@pytest.fixture
def photos(tmp_path):
    return write_images(tmp_path / "photos")


def contents(folder):
    """All bytes of an index."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# Kills


def test_builds_killed_at_random_moments_end_up_the_same():
    found = measure_resume(8, images=48, batch_size=4, shard_size=8)
    assert found["identical"] == found["kills"] == 8
    assert 0 < found["embedded_twice_most"] <= 8
    assert 2 <= found["builds"] <= 8


def test_a_build_that_does_not_embed_each_image_is_refused(tmp_path):
    log = tmp_path / "log"
    log.write_text("life\na\nb\n")
    check_log(log, 2)
    with pytest.raises(RuntimeError, match="of 3 images embedded 2 of them"):
        check_log(log, 3)


def test_images_embedded_again_are_counted_by_life(tmp_path):
    log = tmp_path / "log"
    log.write_text("life\na\nb\nlife\nb\nc\nlife\nlife\na\nb\nd\n")
    assert count_twice(log) == [1, 0, 2]


# Two builders


def hold(folder, pipe):
    with lock_index(folder):
        pipe.send("held")
        time.sleep(600)


@pytest.fixture
def other_builder(tmp_path):
    """Another process that is writing the index."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "index", theirs))
    process.start()
    assert ours.poll(120) and ours.recv() == "held"
    yield process
    process.kill()
    process.join()


def test_a_second_builder_is_refused_and_told_by_whom(photos, encoder, other_builder, tmp_path):
    who = rf"being written by process {other_builder.pid} on \S+ since 2\d+-\d\d-\d\d \d\d:"
    with pytest.raises(IndexBusyError, match=who):
        build_index(photos, encoder, tmp_path / "index")
    assert hidden(tmp_path) == [".index.lock"]
    assert re.match(rf"process {other_builder.pid} on", find_builder(tmp_path / "index"))


def test_the_lock_goes_with_a_killed_process(photos, encoder, other_builder, tmp_path):
    os.kill(other_builder.pid, signal.SIGKILL)
    other_builder.join()
    assert hidden(tmp_path) == [".index.lock"]  # the file is still there, and holds nobody
    assert find_builder(tmp_path / "index") is None
    assert len(build_index(photos, encoder, tmp_path / "index")) == 8
    assert hidden(tmp_path) == []


def test_an_index_can_be_read_while_another_process_writes_it(photos, encoder, tmp_path, request):
    index = build_index(photos, encoder, tmp_path / "index")
    request.getfixturevalue("other_builder")
    assert len(open_index(tmp_path / "index")) == 8
    assert build_index(photos, encoder, tmp_path / "index").id == index.id  # nothing to build


def test_no_change_of_an_index_goes_past_another_builder(
    photos, encoder, segmenter, tmp_path, request
):
    index = build_index(photos, encoder, tmp_path / "index")
    before = contents(tmp_path / "index")
    request.getfixturevalue("other_builder")
    changes = [
        lambda: build_index(photos, encoder, tmp_path / "index", fresh=True),
        lambda: add_regions(index, segmenter, encoder, everything=FEW),
        lambda: update_index(index, photos, encoder),
        lambda: remove_images(index, index.images["image_id"][:1]),
    ]
    for change in changes:
        with pytest.raises(IndexBusyError, match="wait until it is done, or stop it"):
            change()
    assert contents(tmp_path / "index") == before
    assert hidden(tmp_path) == [".index.lock"]


def test_two_threads_do_not_write_one_index(tmp_path):
    refused = []

    def claim():
        with pytest.raises(IndexBusyError) as caught, lock_index(tmp_path / "index"):
            pass
        refused.append(str(caught.value))

    with lock_index(tmp_path / "index"):
        thread = threading.Thread(target=claim)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on" in refused[0]
    with lock_index(tmp_path / "index"):  # and now it is free
        pass


def test_other_indexes_beside_it_are_free(photos, encoder, other_builder, tmp_path):
    assert len(build_index(photos, encoder, tmp_path / "index 2")) == 8


def test_a_reader_waits_for_a_builder_that_puts_an_index_in_its_place(
    photos, encoder, tmp_path, monkeypatch
):
    folder = tmp_path / "index"
    build_index(photos, encoder, folder)
    work = get_staging(folder, IMAGES)
    work.mkdir()
    claimed = threading.Event()

    def swap():
        with lock_index(folder):
            folder.rename(work / "ready")  # as in the middle of the move
            claimed.set()
            time.sleep(0.3)
            finish_swap(folder)

    thread = threading.Thread(target=swap)
    thread.start()
    claimed.wait()
    assert len(open_index(folder)) == 8
    thread.join()


def test_an_index_replaced_while_it_is_read_is_read_again(photos, encoder, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    old = build_index(photos, encoder, folder)
    more = write_images(tmp_path / "photos", 1, first=8)
    reads = []

    def replace_first(path, read=np.load, **options):
        reads.append(path)
        if len(reads) == 1:
            update_index(old, more, encoder)
        return read(path, **options)

    monkeypatch.setattr("regionlab.index.tables.np.load", replace_first)
    assert len(open_index(folder)) == 9
    assert len(reads) > 1


# A disk that refuses


@contextmanager
def file_size_limit(size):
    """Let the system refuse to make a file larger than this, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def sizes(encoder, segmenter, tmp_path_factory):
    """How large the files of an index of 16 pictures get, in bytes."""
    folder = tmp_path_factory.mktemp("sizes")
    index = build_index(write_images(folder / "photos", 16), encoder, folder / "index")
    add_regions(index, segmenter, encoder, everything=FEW)
    return {path.name: path.stat().st_size for path in (folder / "index").iterdir()}


@pytest.mark.parametrize("limit", [10, 1000, 3000, "images.parquet", "image_vectors.npy"])
def test_a_full_disk_leaves_the_old_index_whole(encoder, sizes, tmp_path, limit):
    old = build_index(write_images(tmp_path / "photos"), encoder, tmp_path / "index")
    before = contents(old.folder)
    photos = write_images(tmp_path / "photos", 16)
    limit = sizes[limit] - 1 if isinstance(limit, str) else limit
    with pytest.raises(IndexFolderError, match="cannot write the index .*index: File too large"):
        with file_size_limit(limit):
            build_index(photos, encoder, tmp_path / "index", shard_size=4, batch_size=4)
    assert contents(old.folder) == before
    assert len(open_index(old.folder)) == 8
    assert len(build_index(photos, encoder, tmp_path / "index", shard_size=4, batch_size=4)) == 16
    assert hidden(tmp_path) == []
    assert verify_index(tmp_path / "index") == []


@pytest.mark.parametrize("limit", [10, "regions.parquet", "region_vectors.npy", "manifest.json"])
def test_a_full_disk_leaves_an_index_whole_when_regions_are_added(
    photos, encoder, segmenter, sizes, tmp_path, limit
):
    index = build_index(write_images(tmp_path / "photos", 16), encoder, tmp_path / "index")
    before = contents(index.folder)
    limit = sizes[limit] - 1 if isinstance(limit, str) else limit
    options = {"everything": FEW, "shard_size": 4}
    with pytest.raises(IndexFolderError, match="File too large.*make room, and the same call"):
        with file_size_limit(limit):
            add_regions(index, segmenter, encoder, **options)
    assert contents(index.folder) == before
    add_regions(index, segmenter, encoder, **options)
    assert verify_index(tmp_path / "index") == []


def test_a_full_disk_of_failures_is_noticed(encoder, tmp_path):
    write_images(tmp_path / "photos")
    for i in range(400):
        (tmp_path / "photos" / f"not a picture {i}.png").touch()
    photos = load_folder(tmp_path / "photos")
    with pytest.raises(IndexFolderError, match="File too large"), file_size_limit(15_000):
        build_index(photos, encoder, tmp_path / "index", batch_size=4, shard_size=4)
    with pytest.warns(UserWarning, match="400 files are not"):
        index = build_index(photos, encoder, tmp_path / "index", batch_size=4, shard_size=4)
    assert (index.folder / "failures.csv").stat().st_size > 15_000


def test_a_disk_that_runs_full_is_named_and_what_was_done_is_kept(encoder, small_disk, tmp_path):
    old = build_index(write_images(tmp_path / "photos"), encoder, small_disk / "index")
    before = contents(old.folder)
    photos = write_images(tmp_path / "photos", 40)
    options = {"shard_size": 4, "batch_size": 4}
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    for room in range(0, free, 24 * 1024):
        filler.write_bytes(bytes(free - room))
        with pytest.raises(IndexFolderError, match="No space left on device.*make room"):
            build_index(photos, encoder, small_disk / "index", **options)
        assert contents(old.folder) == before
        if room > 100 * 1024:
            break
    assert any(get_staging(old.folder, IMAGES).glob("shards/*.shard"))
    filler.unlink()
    assert len(build_index(photos, encoder, small_disk / "index", **options)) == 40
    assert verify_index(small_disk / "index") == []


def test_a_place_below_a_file_is_refused(photos, encoder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path / "notes.txt" / "index", tmp_path / "notes.txt" / "deep" / "index"):
        with pytest.raises(IndexFolderError, match="cannot write the index .*notes.txt"):
            build_index(photos, encoder, folder)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="/sys is Linux's")
def test_a_folder_that_nobody_may_write_to_is_refused(photos, encoder):
    # Not even root makes a file in /sys.
    with pytest.raises(IndexFolderError, match="index /sys/index: .*, or name another folder"):
        build_index(photos, encoder, "/sys/index")


def mount(*arguments):
    """Mount something; skip the test where that is not allowed."""
    try:
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"nothing can be mounted here: {e}")


def unmount(folder):
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    (tmp_path / "disk").mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "none", tmp_path / "disk")
    yield tmp_path / "disk"
    unmount(tmp_path / "disk")


@pytest.fixture
def shelf(tmp_path):
    """A folder, and a function that makes it read-only for everybody, root included."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    if os.geteuid():
        yield folder, lambda: folder.chmod(0o555)
        folder.chmod(0o755)
    else:  # permissions do not stop root
        mount("--bind", folder, folder)
        yield folder, lambda: mount("-o", "remount,bind,ro", folder)
        unmount(folder)


def test_an_index_in_a_read_only_folder_can_be_used_and_is_not_lost(
    encoder, segmenter, tmp_path, shelf
):
    shelf, make_read_only = shelf
    photos = write_images(tmp_path / "photos")
    index = build_index(photos, encoder, shelf / "index")
    add_regions(index, segmenter, encoder, everything=FEW)
    before = contents(shelf / "index")
    make_read_only()
    # What asks for nothing new works as ever.
    index = build_index(photos, encoder, shelf / "index")
    index = add_regions(index, segmenter, encoder, everything=FEW)
    assert len(index.regions) > 0
    assert verify_index(shelf / "index") == []
    more = write_images(tmp_path / "photos", 1, first=8)
    changes = [
        lambda: build_index(more, encoder, shelf / "index"),
        lambda: add_regions(index, segmenter, encoder, everything=replace(FEW, max_regions=1)),
        lambda: update_index(index, more, encoder, segmenter=segmenter),
        lambda: remove_images(index, index.images["image_id"][:1]),
    ]
    for change in changes:
        with pytest.raises(IndexFolderError, match="cannot write the index .*name another folder"):
            change()
    assert contents(shelf / "index") == before
