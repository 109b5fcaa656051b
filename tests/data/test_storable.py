"""What an index saves is saved before the work is done, and comes back as it was."""

import datetime
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab.data.collection import Collection, load_folder, make_table
from regionlab.index.build import build_index
from regionlab.index.index import open_index
from regionlab.index.sources import make_storable
from regionlab.index.tables import FAILURE_COLUMNS, read_failures, write_failures


def make_collection(root, paths, **columns):
    n = len(paths)
    sizes = {"width": [-1] * n, "height": [-1] * n}
    paths = pd.Series(paths, dtype=object)
    images = pd.DataFrame({"image_id": [f"id {i}" for i in range(n)], "path": paths, **sizes})
    return Collection(root, images.assign(**columns), name="photos")


def write_images(folder, *names):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


# Tables


ODD = {
    "numbers and text": [0, "2013-11-14"],
    "mappings": [{}, {"a": {"b": [1, None]}}],
    "list and text": [["x"], "x"],
    "lists": [[1, 2], []],
    "over 64 bits": [2**70, 1],
    "truth and number": [True, 1],
    "lone surrogate": ["\udcff", "a"],
    "lone surrogate in a list": [["\ud800"], None],
}


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_no_type_becomes_json_text(tmp_path, encoder, name):
    write_images(tmp_path / "photos", "a.png", "b.png")
    values = pd.Series(ODD[name], dtype=object)
    collection = make_collection(tmp_path / "photos", ["a.png", "b.png"], odd=values)
    index = build_index(collection, encoder, tmp_path / "index")
    texts = index.images["odd"].astype(object)
    back = [None if pd.isna(text) else json.loads(text) for text in texts]
    assert back == ODD[name]
    assert build_index(collection, encoder, tmp_path / "index").id == index.id


def test_what_json_does_not_know_is_written_as_text():
    odd = {
        "bytes": [b"\xff", b""],
        "complex": [1 + 2j, 0j],
        "arrays": [np.arange(2), np.float32(0.5)],
        "mixed times": [datetime.date(2020, 1, 2), 3],
        "keys": [{1: "a", "b": 2}, {}],
    }
    odd = {key: pd.Series(values, dtype=object) for key, values in odd.items()}
    images = make_storable(make_collection("/photos", ["a.png", "b.png"], **odd)).images
    assert json.loads(images["bytes"][0]) == "b'\\xff'"
    assert json.loads(images["complex"][0]) == "(1+2j)"
    assert [json.loads(text) for text in images["arrays"]] == [[0, 1], 0.5]
    assert json.loads(images["mixed times"][0]) == "2020-01-02"
    assert json.loads(images["keys"][0]) == {"1": "a", "b": 2}


def test_plain_columns_stay_as_they_are():
    plain = pd.DataFrame({
        "text": pd.Series(["a", None], dtype="str"),
        "count": [1, 2],
        "share": [0.5, np.nan],
        "flag": [True, False],
        "maybe": pd.Series([1, None], dtype="Int64"),
        "kind": pd.Categorical(["a", "b"]),
        "time": pd.to_datetime(["2020-01-01", None]),
        "whole or none": pd.Series([2**63 - 1, None], dtype=object),
    })  # fmt: skip
    images = make_storable(make_collection("/photos", ["a.png", "b.png"], **plain)).images
    pd.testing.assert_frame_equal(images[plain.columns], plain)


def test_names_of_columns_are_texts_and_differ():
    collection = make_collection("/photos", ["a.png"])
    images = collection.images
    images[3], images["3"], images["\udcff"] = 1, 2, 3
    images = make_storable(Collection("/photos", images)).images
    assert list(images.columns[4:]) == ["3", "3_", "\\udcff"]


def test_a_table_that_cannot_be_saved_is_found_before_any_work(tmp_path, encoder, monkeypatch):
    write_images(tmp_path / "photos", "a.png")

    def refuse(*args, **options):
        raise OverflowError("too much")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", refuse)
    monkeypatch.setattr(encoder, "_read", None)
    with pytest.raises(ValueError, match="the table of <Collection photos.*cannot be saved: too"):
        build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index")


# Names


NAMES = {
    "carriage return": "a\rb.jpg",
    "line break": "a\nb.jpg",
    "both": "a\r\nb.jpg",
    "quotes": 'a "b", c.jpg',
    "one quote": '"',
    "long": "ä" * 125 + ".jpg",
    "blanks": " a\t.jpg ",
    "not available": "NA",
    "escape": "a\\rb\x1b[2J.jpg",
    "control": "\x01\x7f\x85\u2028.jpg",
    "a line of its own": '\n"id","path","reason"\n',
}


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_survives_its_name(tmp_path, name):
    row = {"image_id": "1", "path": NAMES[name], "reason": f"not an image: {NAMES[name]}"}
    failures = pd.DataFrame([row, row | {"path": "plain.jpg"}]).astype("str")
    write_failures(tmp_path / "failures.csv", failures)
    pd.testing.assert_frame_equal(read_failures(tmp_path / "failures.csv"), failures)


def test_failures_written_by_pandas_are_read(tmp_path):
    failures = pd.DataFrame([["", "a, b.jpg", 'no "picture"'], ["1", "NA", ""]], dtype="str")
    failures = failures.set_axis(FAILURE_COLUMNS, axis=1)
    for count in (0, 2):
        failures[:count].to_csv(tmp_path / "failures.csv", index=False)
        pd.testing.assert_frame_equal(read_failures(tmp_path / "failures.csv"), failures[:count])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one quote"])
def test_a_damaged_picture_of_any_name_is_listed_and_the_index_opens(tmp_path, encoder, name):
    write_images(tmp_path / "photos", "good.png")
    (tmp_path / "photos" / NAMES[name].replace("/", ":")).write_bytes(b"no picture")
    collection = make_collection(tmp_path / "photos", ["good.png", NAMES[name]])
    with pytest.warns(UserWarning, match="1 files are not in the index"):
        index = build_index(collection, encoder, tmp_path / "index")
    assert index.failures["path"].tolist() == [NAMES[name]]
    assert open_index(index.folder).images["path"].tolist() == ["good.png"]


@pytest.mark.parametrize(
    "name, path, reason",
    [
        ("b\0.png", "b\0.png", "no file can have this name: it holds a NUL character"),
        ("b\udcff.png", "b\\udcff.png", "its name is no Unicode text: rename the file"),
        ("b" * 300 + ".png", "b" * 300 + ".png", "File name too long"),
    ],
)
def test_a_name_that_no_table_or_disk_takes_costs_that_picture(
    tmp_path, encoder, name, path, reason
):
    write_images(tmp_path / "photos", "a.png")
    collection = make_collection(tmp_path / "photos", ["a.png", name])
    with pytest.warns(UserWarning, match="1 files are not in the index"):
        index = build_index(collection, encoder, tmp_path / "index")
    (failure,) = index.failures.to_dict("records")
    assert (failure["image_id"], failure["path"]) == ("id 1", path)
    assert reason in failure["reason"]
    assert index.images["path"].tolist() == ["a.png"]


def test_if_no_name_can_be_saved_that_is_said(encoder, tmp_path):
    collection = make_collection(tmp_path, ["a\0.png"])
    with pytest.raises(ValueError, match="not one of the 1 images .* NUL"):
        build_index(collection, encoder, tmp_path / "index")


def test_what_a_loader_skipped_is_listed_with_any_name(tmp_path, encoder):
    write_images(tmp_path / "photos", "a.png")
    skipped = make_table("skipped", {"path": ["x\ry", "NA"], "reason": ["no\npicture", "no"]})
    images = load_folder(tmp_path / "photos").images
    collection = Collection(tmp_path / "photos", images, skipped=skipped)
    with pytest.warns(UserWarning, match="2 files"):
        index = build_index(collection, encoder, tmp_path / "index")
    assert index.failures[["path", "reason"]].to_dict("list") == skipped.to_dict("list")


@pytest.mark.parametrize(
    "value",
    [{(1, 2): 3}, np.longdouble(1.5), datetime.datetime(1, 1, 1), datetime.datetime(9999, 1, 1)],
    ids=["keys of tuples", "long double", "year 1", "year 9999"],
)
def test_what_json_cannot_write_costs_no_build(tmp_path, encoder, value):
    for i in range(2):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    whole = load_folder(tmp_path)
    images = whole.images.assign(other=pd.Series([value, value]))
    index = build_index(replace(whole, images=images), encoder, tmp_path / "index")
    assert index.images["other"].notna().all()
