"""Copies of an index: whole, or no index."""

import json

import numpy as np
import pytest

from regionlab.data.collection import load_folder
from regionlab.data.images import write_image
from regionlab.index import verify as index_copy
from regionlab.index.build import build_index
from regionlab.index.index import open_index
from regionlab.index.tables import IndexFolderError
from regionlab.index.verify import copy_index


@pytest.fixture(scope="module")
def index(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    (folder / "pictures").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        write_image(folder / "pictures" / f"{number}.png", pixels)
    return build_index(load_folder(folder / "pictures"), encoder, folder / "index")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_is_the_index_byte_by_byte(index, tmp_path):
    copy_index(index.folder, tmp_path / "deep" / "copy")
    assert contents(tmp_path / "deep" / "copy") == contents(index.folder)
    copied = open_index(tmp_path / "deep" / "copy")
    assert (copied.id, copied.root) == (index.id, index.root)


def test_a_copy_goes_by_uris_too(index, tmp_path):
    target = (tmp_path / "there").as_uri()
    assert copy_index(index.folder.as_uri(), target) == target
    assert contents(tmp_path / "there") == contents(index.folder)


def test_a_copy_cut_off_is_no_index_and_the_same_call_ends_it(index, tmp_path, monkeypatch):
    names, copy_file = [], index_copy._copy_file

    def copy_two(here, there, name):
        if len(names) == 2:
            raise OSError("the line is dead")
        names.append(name)
        return copy_file(here, there, name)

    with monkeypatch.context() as patch:
        patch.setattr(index_copy, "_copy_file", copy_two)
        with pytest.raises(IndexFolderError, match="cannot copy the index .* the line is dead"):
            copy_index(index.folder, tmp_path / "copy")
    with pytest.raises(IndexFolderError, match="no index at"):
        open_index(tmp_path / "copy")
    copy_index(index.folder, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(index.folder)


def test_a_damaged_file_is_found_on_its_way(index, tmp_path):
    copy_index(index.folder, tmp_path / "first")
    vectors = tmp_path / "first" / "image_vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    with pytest.raises(IndexFolderError, match="image_vectors.npy of .* is not the file"):
        copy_index(tmp_path / "first", tmp_path / "second")
    assert not (tmp_path / "second" / "manifest.json").exists()


def test_an_index_from_before_checksums_is_copied_as_it_is(index, tmp_path):
    copy_index(index.folder, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    del manifest["files"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    copy_index(tmp_path / "old", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "old")


@pytest.mark.parametrize("name", ["manifest.json", "thesis.txt"])
def test_what_is_there_already_is_not_overwritten(index, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(IndexFolderError, match=f"holds '{name}' already: name another place"):
        copy_index(index.folder, tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_source_without_an_index_is_refused(tmp_path):
    with pytest.raises(IndexFolderError, match="no index at .*nowhere: it holds no manifest.json"):
        copy_index(tmp_path / "nowhere", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_place_of_an_unknown_kind_is_refused(index):
    with pytest.raises(IndexFolderError, match="cannot copy the index .* to tape://1/2: "):
        copy_index(index.folder, "tape://1/2")
