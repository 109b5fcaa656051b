"""FashionIQ's layout, in small files of its form."""

import json

import pytest

from regionlab.data.registry import load_triplets
from regionlab.data.triplets import list_categories, load_fashioniq

NAMES = ["B3", "B1", "B2", "B4"]
ENTRIES = [
    {"target": "B1", "candidate": "B3", "captions": ["is red", "has no sleeves."]},
    {"target": "B2", "candidate": "B1", "captions": ["", "is the same"]},
]


def write(root, category="dress", split="val", entries=ENTRIES, names=NAMES):
    for folder, kind, content in (("captions", "cap", entries), ("image_splits", "split", names)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{kind}.{category}.{split}.json").write_text(json.dumps(content))
    return root


def change(**changes):
    """Return the entries with the first one changed."""
    return [ENTRIES[0] | changes, ENTRIES[1]]


def without(key):
    return [{k: v for k, v in ENTRIES[0].items() if k != key}, ENTRIES[1]]


@pytest.fixture
def triplets(tmp_path):
    return load_fashioniq(write(tmp_path))


def test_entries_become_queries(triplets):
    assert triplets.queries["reference"].tolist() == ["B3", "B1"]
    assert triplets.queries["target"].tolist() == ["B1", "B2"]
    assert triplets.queries["captions"].tolist()[0] == ("is red", "has no sleeves.")
    assert triplets.queries["subset"].tolist() == [(), ()]
    assert triplets.title == "fashioniq dress val"


def test_the_gallery_is_the_whole_image_split_in_its_order(triplets):
    assert triplets.gallery == tuple(NAMES)
    assert triplets.union_rows.tolist() == [0, 1, 2]


def test_a_caption_without_words_is_left_out_and_listed_but_its_query_stays(triplets):
    assert triplets.queries["captions"].tolist()[1] == ("is the same",)
    assert triplets.faults.to_numpy().tolist() == [["B1>B2", "caption 1 of 2 has no words: ''"]]


def test_ids_come_from_the_content_not_the_place(tmp_path):
    triplets = load_fashioniq(write(tmp_path, entries=ENTRIES[::-1]))
    assert triplets.queries["query_id"].tolist() == ["B1>B2", "B3>B1"]


def test_pairs_that_come_again_are_numbered(tmp_path):
    triplets = load_fashioniq(write(tmp_path, entries=[ENTRIES[0], *ENTRIES, ENTRIES[0]]))
    assert triplets.queries["query_id"].tolist() == ["B3>B1", "B3>B1#2", "B1>B2", "B3>B1#3"]


def test_targets_may_all_be_hidden(tmp_path):
    hidden = [{key: entry[key] for key in ("candidate", "captions")} for entry in ENTRIES]
    triplets = load_fashioniq(write(tmp_path, split="test", entries=hidden), split="test")
    assert triplets.queries["target"].tolist() == [None, None]
    assert triplets.queries["query_id"].tolist() == ["B3>?", "B1>?"]


def test_categories_are_those_with_a_file_of_the_split(tmp_path):
    write(tmp_path, "things")
    write(tmp_path, "attribute")
    write(tmp_path, "ground", split="train")
    assert list_categories(tmp_path, "val") == ["attribute", "things"]
    assert len(load_fashioniq(tmp_path, category="things")) == 2


def test_pictures_are_jpg_or_png(tmp_path):
    write(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("B3.jpg", "B1.png", "B2.jpg", "B2.png"):
        (tmp_path / "images" / name).touch()
    triplets = load_fashioniq(tmp_path)
    files = [triplets.files[name].name for name in NAMES]
    assert files == ["B3.jpg", "B1.png", "B2.jpg", "B4.jpg"]
    assert triplets.missing_images() == ["B4"]


def test_pictures_may_lie_elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    for where in ("../elsewhere", folder):
        triplets = load_fashioniq(write(tmp_path / "annotations"), images=where)
        assert triplets.files["B1"].resolve() == folder / "B1.jpg"


# What is refused


def test_an_unknown_category_gets_the_known_ones(tmp_path):
    write(tmp_path, "shirt")
    write(tmp_path, "toptee")
    with pytest.raises(ValueError, match="category 'hat' and split 'val' .* shirt, toptee"):
        load_fashioniq(tmp_path, category="hat")


def test_an_unknown_split_gets_the_known_ones(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="split 'validation' .* val. .* repository"):
        load_fashioniq(tmp_path, split="validation")


def test_a_folder_without_captions_gets_where_they_are_to_be_had(tmp_path):
    with pytest.raises(FileNotFoundError, match="cap.<category>.<split>.json .* repository"):
        load_fashioniq(tmp_path)


def test_a_missing_image_split_is_named(tmp_path):
    (write(tmp_path) / "image_splits" / "split.dress.val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*split\.dress\.val\.json"):
        load_fashioniq(tmp_path)


@pytest.mark.parametrize("entries", [{"candidate": "B1"}, []])
def test_captions_that_are_no_list_or_an_empty_one_are_refused(tmp_path, entries):
    with pytest.raises(ValueError, match="cap.dress.val.json must hold a list with something in"):
        load_fashioniq(write(tmp_path, entries=entries))


def test_captions_of_which_no_query_is_left_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cap.dress.val.json: no query can be used; entry 0 is"):
        load_fashioniq(write(tmp_path, entries=["B1"]))


def test_an_image_split_that_is_no_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split.dress.val.json must hold a list"):
        load_fashioniq(write(tmp_path, names={"B1": 1}))


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe\xfa"])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    (write(tmp_path) / "captions" / "cap.dress.val.json").write_bytes(content)
    with pytest.raises(ValueError, match="cap.dress.val.json is not valid JSON"):
        load_fashioniq(tmp_path)


# What is left out


@pytest.mark.parametrize(
    ("entries", "left_out", "reason"),
    [
        (without("candidate"), "entry 0", "no 'candidate' in"),
        (without("captions"), "entry 0", "no 'captions' in"),
        (without("target"), "entry 0", "no 'target' in"),
        (change(candidate=3), "entry 0", "'candidate' must be str, got 3"),
        (change(target=None), "entry 0", "'target' must be str, got None"),
        (change(captions="is red"), "entry 0", "'captions' must be list, got 'is red'"),
        (change(captions=["is red", None]), "entry 0", "'captions' must hold texts, got None"),
        (change(captions=["is \ud800"]), "entry 0", "'captions' must hold texts, got"),
        (change(captions=["a", "b", "c"]), "B3>B1", "at most 2 captions"),
        (change(captions=[" ", "."]), "B3>B1", "no caption has words"),
        (change(target="B3"), "B3>B3", "the target is the reference"),
        (change(target="B9"), "B3>B9", "image 'B9' is not in the split"),
        (["B1", ENTRIES[1]], "entry 0", "no 'candidate' in 'B1'"),
    ],
)
def test_a_bad_query_is_left_out_and_listed(tmp_path, entries, left_out, reason):
    triplets = load_fashioniq(write(tmp_path, entries=entries))
    assert triplets.queries["query_id"].tolist() == ["B1>B2"]
    faults = dict(triplets.faults.to_numpy())
    assert faults[left_out].startswith(f"left out: {reason}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (7, "it is no name"),
        (None, "it is no name"),
        ("", "it is no name"),
        ("../B1", "it is no name"),
        ("B\0", "it is no name"),
        ("\ud800", "it holds half a character"),
        ("B1", "it comes a second time"),
    ],
)
def test_what_is_no_name_of_an_image_is_left_out_and_listed(tmp_path, name, reason):
    triplets = load_fashioniq(write(tmp_path, names=[*NAMES, name]))
    assert triplets.gallery == tuple(NAMES)
    assert len(triplets) == 2
    faults = dict(triplets.faults.to_numpy())
    assert faults[f"image {name!r}"] == f"left out of split.dress.val.json: {reason}"


# By name


def test_load_triplets_loads_a_category(tmp_path):
    triplets = load_triplets("fashioniq", write(tmp_path), split="val", category="dress")
    assert triplets.title == "fashioniq dress val"


@pytest.mark.parametrize("category", [None, ""])
def test_load_triplets_asks_for_the_category(tmp_path, category):
    write(tmp_path)
    write(tmp_path, "shirt")
    with pytest.raises(ValueError, match="loaded by category; .* dress, shirt"):
        load_triplets("fashioniq", tmp_path, split="val", category=category)


def test_load_triplets_knows_its_kinds(tmp_path):
    with pytest.raises(ValueError, match="'circo'; known: fashioniq, cirr"):
        load_triplets("circo", tmp_path, split="val")
