"""Folders as they are on disks: what is found, and what is told of the rest."""

import inspect
import os
import random
import sys

import pytest

from regionlab.data import listing as suffixes
from regionlab.data.listing import find_images, list_files, list_images

JPG = (".jpg",)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def forbid(monkeypatch, *names):
    """Make folders of these names such as their owner alone may list."""
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) in names:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


# --- what cannot be listed ------------------------------------------------------------------


def test_folder_without_permission_is_left_out_and_listed(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "mine/b.jpg", "z/c.jpg")
    forbid(monkeypatch, "mine")
    found = find_images(tmp_path)
    assert found.paths == ["a.jpg", "z/c.jpg"]
    assert found.skipped == {"mine": "it cannot be listed: Permission denied"}


def test_system_folder_without_permission_is_listed_too(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "lost+found/b.jpg")
    forbid(monkeypatch, "lost+found")
    assert find_images(tmp_path).skipped == {
        "lost+found": "system folder: it cannot be listed: Permission denied"
    }


def test_root_without_permission_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "mine/a.jpg")
    forbid(monkeypatch, "mine")
    with pytest.raises(PermissionError):
        list_images(tmp_path / "mine")


def test_nothing_left_says_what_was_left_out(tmp_path, monkeypatch):
    touch(tmp_path, "mine/b.jpg", "c.cr2")
    forbid(monkeypatch, "mine")
    with pytest.raises(ValueError, match=r"no images .*; left out: 2, the first: c\.cr2 \(raw"):
        list_images(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is another one elsewhere")
def test_path_too_long_for_the_system_is_left_out_and_listed(tmp_path):
    touch(tmp_path, "a.jpg", "z/b.jpg")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = find_images(tmp_path)
    assert found.paths == ["a.jpg", "z/b.jpg"]
    ((path, reason),) = found.skipped.items()
    assert len(path) > 3700
    assert reason == "it cannot be listed: File name too long"


def test_folders_may_lie_deeper_than_python_calls(tmp_path):
    deep = "/".join("d" * 300)
    touch(tmp_path, f"{deep}/a.jpg")
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + 100)
        assert list_files(tmp_path, JPG).paths == [f"{deep}/a.jpg"]
    finally:
        sys.setrecursionlimit(limit)


def test_link_to_itself_is_left_out_and_listed(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    found = find_images(tmp_path)
    assert found.paths == ["a.jpg"]
    assert found.skipped == {"b.jpg": "it cannot be listed: Too many levels of symbolic links"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipe_is_listed_as_left_out(tmp_path):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert find_images(tmp_path).skipped == {"pipe.jpg": "not a regular file"}


# --- suffixes -------------------------------------------------------------------------------


def test_jpeg_has_many_suffixes(tmp_path):
    names = ["a.JFIF", "b.jpe", "c.jif", "d.mpo"]
    found = find_images(touch(tmp_path, *names))
    assert (found.paths, found.skipped) == (names, {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("b.CR2", "raw photographs"),
        ("b.nef", "raw photographs"),
        ("b.dng", "raw photographs"),
        ("b.jp2", "JPEG 2000"),
        ("b.jxl", "JPEG XL"),
        ("b.psd", "files of editors"),
        ("b.svg", "drawings"),
        ("b.tga", "this kind of picture"),
        ("b.exr", "pixels without an agreed range"),
        ("b.MOV", "a film"),
        ("b.mp4", "a film"),
    ],
)
def test_pictures_and_films_that_are_not_read_are_listed(tmp_path, name, reason):
    found = find_images(touch(tmp_path, "a.jpg", name))
    assert found.paths == ["a.jpg"]
    assert list(found.skipped) == [name]
    assert found.skipped[name].startswith(reason)


def test_what_is_plainly_something_else_is_not_listed(tmp_path):
    touch(tmp_path, "a.jpg", "b.txt", "c.json", "Thumbs.db", ".DS_Store", "d", "e.ts", "._a.jpg")
    assert find_images(tmp_path).skipped == {}


@pytest.fixture
def heif(monkeypatch, request):
    for function in (suffixes.readable_images, suffixes.unread_images):
        function.cache_clear()
        request.addfinalizer(function.cache_clear)
    return lambda there: monkeypatch.setattr(suffixes, "has_heif", lambda: there)


def test_heic_is_a_picture_where_it_can_be_read(tmp_path, heif):
    heif(True)
    found = find_images(touch(tmp_path, "a.jpg", "b.HEIC"))
    assert (found.paths, found.skipped) == (["a.jpg", "b.HEIC"], {})


def test_heic_is_listed_with_the_extra_where_it_cannot_be_read(tmp_path, heif):
    heif(False)
    found = find_images(touch(tmp_path, "a.jpg", "b.HEIC"))
    assert found.paths == ["a.jpg"]
    assert found.skipped == {"b.HEIC": "HEIC is read once regionlab[heic] is installed"}


def test_avif_that_pillow_lacks_is_listed(tmp_path, heif, monkeypatch):
    monkeypatch.setattr(suffixes.features, "check", lambda name: False)
    assert list(find_images(touch(tmp_path, "a.jpg", "b.avif")).skipped) == ["b.avif"]


def test_no_suffix_is_both_read_and_not():
    read, unread = suffixes.readable_images(), suffixes.unread_images()
    assert not set(read) & set(unread)
    assert not set(suffixes.FILM_SUFFIXES) & set(suffixes.unread_films())


# --- folders of systems -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "LOST.DIR",
        "__MACOSX", ".Trash-1000", ".Trashes", ".thumbnails", "SYSTEM VOLUME INFORMATION",
    ],
)  # fmt: skip
def test_folder_of_the_system_is_left_out_and_listed_once(tmp_path, name):
    touch(tmp_path, "a.jpg", f"b/{name}/a.jpg/SMALL.jpg", f"b/{name}/c.heic", f"b/{name}/d.txt")
    found = find_images(tmp_path)
    assert found.paths == ["a.jpg"]
    kind = "hidden" if name.startswith(".") else "system"
    assert found.skipped == {f"b/{name}": f"{kind} folder: 2 files in it"}


def test_folder_of_the_system_without_pictures_is_not_worth_a_line(tmp_path):
    touch(tmp_path, "a.jpg", "$RECYCLE.BIN/desktop.ini", ".git/config")
    assert find_images(tmp_path).skipped == {}


def test_hidden_pictures_are_listed(tmp_path):
    assert find_images(touch(tmp_path, "a.jpg", ".b.jpg")).skipped == {".b.jpg": "hidden file"}


def test_root_may_have_any_name(tmp_path):
    touch(tmp_path, ".hidden/@eaDir/a.jpg")
    assert find_images(tmp_path / ".hidden/@eaDir").paths == ["a.jpg"]


# --- links ------------------------------------------------------------------------------------


def test_folders_linked_crosswise_are_visited_once(tmp_path):
    count = 12  # a path for every order of them would be 10^9
    touch(tmp_path, *(f"d{i:02}/x.jpg" for i in range(count)))
    for i in range(count):
        for j in range(count):
            if i != j:
                (tmp_path / f"d{i:02}/to{j:02}").symlink_to(tmp_path / f"d{j:02}")
    found = find_images(tmp_path)
    assert found.paths == [f"d{i:02}/x.jpg" for i in range(count)]
    assert len(found.skipped) == count * (count - 1)
    assert found.skipped["d00/to01"] == "a link to a folder that is listed already: d01"


def test_folder_is_listed_at_its_own_place_and_not_at_a_link(tmp_path):
    touch(tmp_path, "z/deep/a.jpg")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "b").symlink_to("z/deep")
    assert find_images(tmp_path).paths == ["z/deep/a.jpg"]


def test_folder_elsewhere_is_listed_at_the_first_link(tmp_path):
    touch(tmp_path, "elsewhere/in/a.jpg", "root/x.jpg")
    for name in ("c", "b", "d/a"):
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    found = find_images(tmp_path / "root")
    assert found.paths == ["b/in/a.jpg", "x.jpg"]
    assert list(found.skipped) == ["c", "d/a"]


def test_linked_pictures_stay_pictures(tmp_path):
    touch(tmp_path, "all/1.jpg")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").symlink_to("../all/1.jpg")
    assert find_images(tmp_path).paths == ["all/1.jpg", "cat/1.jpg"]


@pytest.mark.parametrize("seed", range(5))
def test_each_real_folder_is_found_once_whatever_the_links(tmp_path, seed):
    """Against the real paths of all folders that a search without any memory would reach."""
    rng = random.Random(seed)
    folders = [""]
    for i in range(8):
        folders.append(f"{rng.choice(folders)}/{i}".lstrip("/"))
        touch(tmp_path, f"{folders[-1]}/x.jpg")
    for i in range(6):
        (tmp_path / rng.choice(folders) / f"link{i}").symlink_to(tmp_path / rng.choice(folders))
    assert list_files(tmp_path, JPG).paths == sorted(f"{f}/x.jpg" for f in folders if f)
