"""An index on disk: what goes in, what a killed build leaves, what opening finds out."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab.data.collection import Collection, load_class_folders, load_folder, make_table
from regionlab.data.listing import list_images
from regionlab.index.build import build_index
from regionlab.index.index import open_index
from regionlab.index.tables import IndexFolderError
from regionlab.models.registry import load_encoder
from regionlab.util.files import hash_file

FILES = {"manifest.json", "images.parquet", "image_vectors.npy", "failures.csv"}


def write_picture(path, seed, size=(40, 30), mode="RGB"):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path):
    for i in range(10):
        write_picture(tmp_path / "photos" / f"{i}.png", i, size=(20 + i, 30))
    return tmp_path / "photos"


@pytest.fixture
def embedded(encoder, monkeypatch):
    """Names of the files that the encoder has read, in any order."""
    names = []
    original = encoder._read

    def watch(item):
        names.append(Path(item[1]).name)
        return original(item)

    monkeypatch.setattr(encoder, "_read", watch)
    return names


def contents(folder):
    """All of an index but how long it took."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"seconds": 0, "checksum": ""}
    files = {name: (folder / name).read_bytes() for name in FILES - {"manifest.json"}}
    return manifest, files


# Building


def test_an_index_holds_table_and_vectors_of_every_image(photos, encoder, tmp_path):
    collection = load_folder(photos)
    index = build_index(collection, encoder, tmp_path / "index")
    assert len(index) == 10
    assert {path.name for path in index.folder.iterdir()} == FILES | {"stamps.json"}
    assert index.images["image_id"].tolist() == collection.images["image_id"].tolist()
    assert index.images["width"].tolist() == list(range(20, 30))
    assert index.images["height"].tolist() == [30] * 10
    assert index.images["sha256"].tolist() == [hash_file(index.path(row)) for row in range(10)]
    expected = encoder.encode_images(list_images(photos))
    np.testing.assert_allclose(index.vectors, expected, atol=1e-6)
    assert index.missing_files() == []
    assert len(index.failures) == 0
    assert index.manifest["model"] == encoder.fingerprint
    assert index.manifest["seconds"] > 0
    assert repr(index) == "<Index photos: 10 images by toyclip/random.safetensors>"


def test_labels_come_along(encoder, tmp_path):
    for label in "ab":
        write_picture(tmp_path / "photos" / label / "1.png", ord(label))
    index = build_index(load_class_folders(tmp_path / "photos"), encoder, tmp_path / "index")
    assert index.images["label"].tolist() == ["a", "b"]


def test_rows_are_found_by_id(photos, encoder, tmp_path):
    index = build_index(load_folder(photos), encoder, tmp_path / "index")
    ids = index.images["image_id"]
    assert index.rows_of([ids[7], ids[2]]).tolist() == [7, 2]
    with pytest.raises(KeyError, match="no image 'nobody' in the index"):
        index.rows_of([ids[7], "nobody"])


def test_an_empty_collection_is_refused(encoder, tmp_path):
    collection = Collection(tmp_path, make_table("images"))
    with pytest.raises(ValueError, match="has no images to index"):
        build_index(collection, encoder, tmp_path / "index")


def test_an_empty_folder_is_refused_with_what_was_looked_for(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*empty \(looked for .*\.png"):
        load_folder(tmp_path / "empty")


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"shard_size": 0}, {"workers": 0}])
def test_sizes_below_one_are_refused(photos, encoder, tmp_path, option):
    with pytest.raises(ValueError, match="must be at least 1"):
        build_index(load_folder(photos), encoder, tmp_path / "index", **option)


def test_a_batch_size_is_measured_once_and_changes_no_vector(
    photos, encoder, tmp_path, monkeypatch
):
    asked = []
    measure = lambda encoder: asked.append(1) or 4  # noqa: E731
    monkeypatch.setattr("regionlab.models.pipeline.choose_batch_size", measure)
    sizes = {"batch_size": "auto", "shard_size": 4}
    for _ in range(2):  # the second time there is nothing to embed
        auto = build_index(load_folder(photos), encoder, tmp_path / "auto", **sizes)
    plain = build_index(load_folder(photos), encoder, tmp_path / "plain", batch_size=4)
    assert asked == [1]
    np.testing.assert_array_equal(auto.vectors, plain.vectors)


def test_another_word_is_no_batch_size(photos, encoder, tmp_path):
    with pytest.raises(ValueError, match="batch_size .* must be at least 1, got 'many'"):
        build_index(load_folder(photos), encoder, tmp_path / "index", batch_size="many")


def test_the_same_files_are_not_embedded_again(photos, encoder, tmp_path, embedded):
    first = build_index(load_folder(photos), encoder, tmp_path / "index")
    before = contents(first.folder)
    embedded.clear()
    second = build_index(load_folder(photos), encoder, tmp_path / "index", shard_size=3)
    assert embedded == []
    assert contents(second.folder) == before
    build_index(load_folder(photos), encoder, tmp_path / "index", fresh=True)
    assert len(embedded) == 10


def test_a_changed_file_builds_anew(photos, encoder, tmp_path):
    old = build_index(load_folder(photos), encoder, tmp_path / "index")
    write_picture(photos / "4.png", 44, size=(50, 60))
    new = build_index(load_folder(photos), encoder, tmp_path / "index")
    assert new.images["width"][4] == 50
    assert new.id != old.id
    np.testing.assert_array_equal(np.flatnonzero((new.vectors != old.vectors).any(1)), [4])


def test_other_labels_build_anew(encoder, tmp_path):
    write_picture(tmp_path / "photos" / "a" / "1.png", 1)
    build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index")
    index = build_index(load_class_folders(tmp_path / "photos"), encoder, tmp_path / "index")
    assert index.images["label"].tolist() == ["a"]


def test_the_id_tells_contents_not_places_or_times(photos, encoder, tmp_path):
    first = build_index(load_folder(photos), encoder, tmp_path / "index")
    shutil.copytree(photos, tmp_path / "copy" / "photos", copy_function=shutil.copyfile)
    copy = build_index(load_folder(tmp_path / "copy" / "photos"), encoder, tmp_path / "index 2")
    assert copy.id == first.id
    (photos / "9.png").unlink()
    fewer = build_index(load_folder(photos), encoder, tmp_path / "index")
    assert fewer.id != first.id


# Files that cannot be read


@pytest.fixture
def mixed(tmp_path):
    """One of each kind of file that people have."""
    folder = tmp_path / "mixed"
    for i, name in enumerate(["plain.png", "name with spaces é 猫 ñ.png", "sub dir/x.webp"]):
        write_picture(folder / name, i)
    write_picture(folder / "one pixel.png", 3, size=(1, 1))
    write_picture(folder / "gray.png", 4, mode="L")
    write_picture(folder / "transparent.png", 5, mode="RGBA")
    write_picture(folder / "cmyk.jpg", 6, mode="CMYK")
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(deep).save(folder / "16 bit.png")
    frames = [Image.new("P", (20, 20), i) for i in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    (folder / "text.jpg").write_text("not a picture at all")
    write_picture(folder / "whole.jpg", 7)
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "empty.png").touch()
    write_picture(folder / "vanishes.png", 8)
    write_picture(folder / "line.png", 9, size=(3000, 1))
    return folder


BAD = {
    "empty.png": "empty file",
    "line.png": "too narrow: 3000 x 1",
    "text.jpg": "not an image",
    "truncated.jpg": "damaged",
    "vanishes.png": "file not found",
}


def test_the_rest_is_indexed_whatever_a_file_is(mixed, encoder, tmp_path):
    collection = load_folder(mixed)
    (mixed / "vanishes.png").unlink()
    with pytest.warns(
        UserWarning, match="5 files are not in the index, the first: empty.png: empty"
    ):
        index = build_index(collection, encoder, tmp_path / "index", batch_size=4)
    good = [path for path in collection.images["path"] if path not in BAD]
    assert index.images["path"].tolist() == good
    assert len(good) == 10
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)
    alone = encoder.encode_images([mixed / path for path in good])
    np.testing.assert_allclose(index.vectors, alone, atol=1e-5)
    assert index.failures["path"].tolist() == list(BAD)
    for reason, expected in zip(index.failures["reason"], BAD.values(), strict=True):
        assert reason.startswith(expected)
    ids = collection.images.set_index("path")["image_id"]
    assert index.failures["image_id"].tolist() == ids[list(BAD)].tolist()
    assert repr(index).endswith("random.safetensors, 5 unreadable>")
    assert "name with spaces é 猫 ñ.png" in index.images["path"].tolist()


def test_failures_warn_each_time_an_index_is_built_or_found(mixed, encoder, tmp_path, embedded):
    for _ in range(2):
        with pytest.warns(UserWarning, match="files are not in the index") as caught:
            build_index(load_folder(mixed), encoder, tmp_path / "index")
        assert caught[0].filename == __file__
    assert len(embedded) == 15


def test_a_file_that_comes_back_builds_anew(mixed, encoder, tmp_path):
    collection = load_folder(mixed)
    (mixed / "vanishes.png").rename(tmp_path / "away.png")
    with pytest.warns(UserWarning, match="5 files"):
        build_index(collection, encoder, tmp_path / "index")
    (tmp_path / "away.png").rename(mixed / "vanishes.png")
    with pytest.warns(UserWarning, match="4 files"):
        index = build_index(collection, encoder, tmp_path / "index")
    assert "vanishes.png" in index.images["path"].tolist()


def test_what_the_loader_had_to_skip_is_a_failure_too(encoder, tmp_path):
    write_picture(tmp_path / "photos" / "a" / "1.png", 1)
    (tmp_path / "photos" / "notes.txt").write_text("hello")
    with pytest.warns(UserWarning, match="1 files"):
        index = build_index(load_class_folders(tmp_path / "photos"), encoder, tmp_path / "index")
    assert index.failures.to_dict("records") == [
        {"image_id": "", "path": "notes.txt", "reason": "not in a class folder"}
    ]


def test_if_nothing_can_be_read_no_index_is_made(encoder, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_text("no picture")
    with pytest.raises(ValueError, match="not one of the 2 images.*a.jpg: not an image"):
        build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index")
    assert not (tmp_path / "index").exists()


# Killed builds


class Killed(BaseException):
    """Stands for a killed process: nothing may catch it."""


def test_a_build_killed_at_any_image_goes_on_where_it_stopped(
    photos, encoder, tmp_path, monkeypatch
):
    options = {"batch_size": 2, "shard_size": 4}
    whole = build_index(load_folder(photos), encoder, tmp_path / "whole", **options)
    original = encoder.encode_pixels
    for batch in range(5):
        calls = []

        def stop(pixels, calls=calls, last=batch, **options):
            calls.append(len(pixels))
            if len(calls) > last:
                raise Killed
            return original(pixels, **options)

        folder = tmp_path / f"index {batch}"
        with monkeypatch.context() as patch:
            patch.setattr(encoder, "encode_pixels", stop)
            with pytest.raises(Killed):
                build_index(load_folder(photos), encoder, folder, **options)
        assert not folder.exists()
        with monkeypatch.context() as patch:
            counted = []
            patch.setattr(
                encoder,
                "encode_pixels",
                lambda x, c=counted, **options: c.append(len(x)) or original(x, **options),
            )
            index = build_index(load_folder(photos), encoder, folder, **options)
        assert sum(counted) == 10 - batch // 2 * 4  # two batches are a shard
        np.testing.assert_array_equal(index.vectors, whole.vectors)
        pd.testing.assert_frame_equal(index.images, whole.images)
        assert contents(folder)[1] == contents(whole.folder)[1]
        assert leftovers(tmp_path) == []


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


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
    for name in ("rmtree",):
        wrap(shutil, name)
    wrap(os, "unlink")
    return count


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replaces an old one"])
def test_a_build_killed_before_any_change_on_disk_recovers(
    photos, encoder, tmp_path, monkeypatch, replaces
):
    options = {"batch_size": 2, "shard_size": 2}
    everything = load_folder(photos)
    new, old = (everything.subset(everything.images["image_id"][:n]) for n in (4, 3))
    whole = build_index(new, encoder, tmp_path / "whole", **options)
    for steps in range(100):
        folder = tmp_path / "indexes" / str(steps)
        folder.parent.mkdir(exist_ok=True)
        if replaces:
            build_index(old, encoder, folder)
        with monkeypatch.context() as patch:
            every_step(patch, steps)
            try:
                build_index(new, encoder, folder, **options)
                break
            except Killed:
                pass
        # Whoever opens it now finds a whole index, the old or the new, or is told of none.
        try:
            assert len(open_index(folder)) in (3, 4)
        except IndexFolderError as e:
            assert not replaces and "no index" in str(e)
        index = build_index(new, encoder, folder, **options)
        assert contents(folder)[1] == contents(whole.folder)[1]
        assert index.missing_files() == []
        # A lock that its owner could not put away blocks nobody.
        assert [name for name in leftovers(folder.parent) if not name.endswith(".lock")] == []
    assert 10 < steps < 99


def test_shards_of_another_size_are_not_mixed(photos, encoder, tmp_path, monkeypatch):
    whole = build_index(load_folder(photos), encoder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        original, calls = encoder.encode_pixels, []

        def stop(pixels, **options):
            calls.append(1)
            if len(calls) > 3:
                raise Killed
            return original(pixels, **options)

        patch.setattr(encoder, "encode_pixels", stop)
        with pytest.raises(Killed):
            build_index(
                load_folder(photos), encoder, tmp_path / "index", batch_size=2, shard_size=2
            )
    index = build_index(
        load_folder(photos), encoder, tmp_path / "index", batch_size=3, shard_size=4
    )
    np.testing.assert_allclose(index.vectors, whole.vectors, atol=1e-5)
    pd.testing.assert_frame_equal(index.images, whole.images)


def test_a_file_changed_while_a_build_was_dead_is_read_again(
    photos, encoder, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            "regionlab.index.change.write_images",
            lambda *args, **options: (_ for _ in ()).throw(Killed),
        )
        with pytest.raises(Killed):
            build_index(load_folder(photos), encoder, tmp_path / "index")
    write_picture(photos / "0.png", 99, size=(77, 30))
    index = build_index(load_folder(photos), encoder, tmp_path / "index")
    assert index.images["width"][0] == 77


# What is not an index is left alone


def test_a_folder_of_something_else_is_not_replaced(photos, encoder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "thesis" / "manifest.json").write_text("{}")
    with pytest.raises(IndexFolderError, match=r"thesis holds 'chapter.tex', no part of an index"):
        build_index(load_folder(photos), encoder, tmp_path / "thesis", fresh=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    with pytest.raises(IndexFolderError, match="photos holds .*png"):
        build_index(load_folder(photos), encoder, photos)
    assert len(list_images(photos)) == 10


def test_a_file_is_not_replaced(photos, encoder, tmp_path):
    (tmp_path / "index").write_text("mine")
    with pytest.raises(IndexFolderError, match="index is a file"):
        build_index(load_folder(photos), encoder, tmp_path / "index")
    with pytest.raises(IndexFolderError, match="no index at"):
        open_index(tmp_path / "index")


def test_neighbours_with_likely_names_are_left_alone(photos, encoder, tmp_path):
    for name in ("index.old", "index.building", "index.ready"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "backup").write_text("mine")
    for _ in range(2):
        build_index(load_folder(photos), encoder, tmp_path / "index", fresh=True)
        open_index(tmp_path / "index")
    for name in ("index.old", "index.building", "index.ready"):
        assert (tmp_path / name / "backup").exists()


def test_an_empty_folder_may_become_an_index(photos, encoder, tmp_path):
    (tmp_path / "index").mkdir()
    assert len(build_index(load_folder(photos), encoder, tmp_path / "index")) == 10


# Opening


@pytest.fixture(scope="module")
def built(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    for i in range(6):
        write_picture(folder / "photos" / f"{i}.png", i)
    build_index(load_folder(folder / "photos"), encoder, folder / "index")
    return folder


@pytest.fixture
def copied(built, tmp_path):
    shutil.copytree(built / "index", tmp_path / "index")
    return tmp_path / "index"


def test_opening_finds_what_was_built(built):
    index = open_index(str(built / "index"))
    assert len(index) == 6
    assert index.root == (built / "photos").resolve()
    assert isinstance(index.vectors, np.memmap)
    assert not index.vectors.flags.writeable


def test_opening_no_index_says_so(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexFolderError, match=f"no index at {folder}"):
            open_index(folder)


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "garbage"])
def test_a_damaged_file_is_found_and_built_again(built, encoder, copied, name, harm):
    path = copied / name
    content = path.read_bytes()
    harmed = {"empty": b"", "cut": content[:-20], "garbage": b"\x00garbage" * 100}
    path.unlink() if harm == "missing" else path.write_bytes(harmed[harm])
    with pytest.raises(IndexFolderError, match="is damaged: .*build it again"):
        open_index(copied)
    index = build_index(load_folder(built / "photos"), encoder, copied)
    assert len(index) == 6


@pytest.mark.parametrize("text", ["", "garbage", "[]", "3", "null", "{}", '{"schema": 1}'])
def test_a_garbage_manifest_is_found_and_built_again(built, encoder, copied, text):
    (copied / "manifest.json").write_text(text)
    with pytest.raises(IndexFolderError, match="is damaged"):
        open_index(copied)
    assert len(build_index(load_folder(built / "photos"), encoder, copied)) == 6


def test_a_newer_schema_says_which_is_read(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    (copied / "images.parquet").unlink()  # who knows what a newer one calls it
    with pytest.raises(IndexFolderError, match="has schema 99, this version reads 1"):
        open_index(copied)


def harm_table(folder, change):
    images = pd.read_parquet(folder / "images.parquet")
    change(images).to_parquet(folder / "images.parquet")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.iloc[:-1], "the table has 5"),
        (lambda t: t.iloc[::-1].reset_index(drop=True), "is not the table that was written"),
        (lambda t: t.drop(columns="sha256"), "sha256"),
    ],
    ids=["a row lost", "turned round", "a column lost"],
)
def test_a_table_that_is_not_the_vectors_own_is_found(copied, change, message):
    harm_table(copied, change)
    with pytest.raises(IndexFolderError, match=f"is damaged: .*{message}"):
        open_index(copied)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v[:-1], r"the vectors are \(5, \d+\)"),
        (lambda v: v.astype(np.float64), "float64"),
        (lambda v: v[::-1], "is not the file that was written"),
        (lambda v: v * np.nan, "is not the file that was written"),
    ],
    ids=["a row lost", "double", "turned round", "not numbers"],
)
def test_vectors_that_are_not_the_tables_own_are_found(copied, change, message):
    vectors = np.load(copied / "image_vectors.npy")
    np.save(copied / "image_vectors.npy", change(vectors))
    with pytest.raises(IndexFolderError, match=f"is damaged: .*{message}"):
        open_index(copied)


def test_a_pickle_is_not_loaded(copied):
    np.save(copied / "image_vectors.npy", np.array([{"a": 1}] * 6, dtype=object))
    with pytest.raises(IndexFolderError, match="is damaged"):
        open_index(copied)


def test_files_that_went_are_named(photos, encoder, tmp_path):
    index = build_index(load_folder(photos), encoder, tmp_path / "index")
    (photos / "3.png").unlink()
    assert index.missing_files() == [photos.resolve() / "3.png"]
    assert len(open_index(tmp_path / "index")) == 10


def test_another_models_query_is_refused(built, encoder):
    index = open_index(built / "index")
    index.check_encoder(encoder)
    with pytest.raises(
        IndexFolderError, match="vectors of toyclip/random.*query is by toyclip/untr"
    ):
        index.check_encoder(load_encoder("toyclip/untrained", device="cpu"))


def test_the_same_model_in_another_precision_may_ask(built, encoder_file):
    low = load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="bf16")
    open_index(built / "index").check_encoder(low)


def test_another_precision_builds_anew(photos, encoder, encoder_file, tmp_path):
    first = build_index(load_folder(photos), encoder, tmp_path / "index")
    low = load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="bf16")
    second = build_index(load_folder(photos), low, tmp_path / "index")
    assert second.manifest["model"]["precision"] == "bf16"
    assert second.id != first.id


# Moving


def test_an_index_that_moves_with_its_images_finds_them(photos, encoder, tmp_path, embedded):
    work = tmp_path / "work"
    shutil.copytree(photos, work / "data" / "photos")
    build_index(load_folder(work / "data" / "photos"), encoder, work / "data" / "indexes" / "p")
    work.rename(tmp_path / "elsewhere")
    index = open_index(tmp_path / "elsewhere" / "data" / "indexes" / "p")
    assert index.missing_files() == []
    assert index.root == (tmp_path / "elsewhere" / "data" / "photos").resolve()
    embedded.clear()
    again = build_index(load_folder(index.root), encoder, index.folder)
    assert embedded == []
    assert again.id == index.id


def test_an_index_that_moves_alone_finds_its_images_where_they_were(photos, encoder, tmp_path):
    build_index(load_folder(photos), encoder, tmp_path / "a" / "index")
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "index").rename(tmp_path / "b" / "c" / "index")
    assert open_index(tmp_path / "b" / "c" / "index").missing_files() == []


def test_a_copy_of_the_images_elsewhere_gets_an_index_of_its_own(photos, encoder, tmp_path):
    build_index(load_folder(photos), encoder, tmp_path / "index")
    shutil.copytree(photos, tmp_path / "copy" / "photos")  # sizes and times alike
    copy = build_index(load_folder(tmp_path / "copy" / "photos"), encoder, tmp_path / "index")
    assert copy.root == (tmp_path / "copy" / "photos").resolve()


def test_an_index_may_lie_behind_a_link(photos, encoder, tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big disk")
    build_index(load_folder(photos), encoder, tmp_path / "link")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_index(load_folder(photos), encoder, tmp_path / "link", fresh=True)
    assert (tmp_path / "link").is_symlink()
    assert len(open_index(tmp_path / "big disk")) == 10
