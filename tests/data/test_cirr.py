"""CIRR's layout, in small files of its form."""

import json
import re

import pytest

from regionlab.data.registry import load_triplets
from regionlab.data.triplets import load_cirr

PATHS = {f"dev-{i}-0-img{i % 2}": f"./dev/dev-{i}-0-img{i % 2}.png" for i in (4, 2, 0, 1, 3, 5, 6)}
A, B, C, *_ = NAMES = list(PATHS)
ENTRIES = [
    {
        "pairid": 12060,
        "reference": A,
        "target_hard": B,
        "target_soft": {B: 1.0, C: -1.0},
        "caption": "show three bottles of soft drink",
        "img_set": {"id": 36, "members": NAMES[:6], "reference_rank": 2, "target_rank": 3},
    },
    {
        "pairid": 12063,
        "reference": C,
        "target_hard": A,
        "target_soft": {A: 1.0},
        "caption": "Remove all but one.",
        "img_set": {"id": 1, "members": NAMES[5::-1]},
    },
]


def write(root, split="val", entries=ENTRIES, paths=PATHS):
    for folder, kind, content in (("captions", "cap", entries), ("image_splits", "split", paths)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{kind}.rc2.{split}.json").write_text(json.dumps(content))
    return root


def change(**changes):
    """Return the entries with the first one changed."""
    return [ENTRIES[0] | changes, ENTRIES[1]]


def without(key):
    return [{k: v for k, v in ENTRIES[0].items() if k != key}, ENTRIES[1]]


def hide(entries):
    return [{k: v for k, v in entry.items() if "target" not in k} for entry in entries]


@pytest.fixture
def triplets(tmp_path):
    return load_cirr(write(tmp_path))


def test_entries_become_queries(triplets):
    assert triplets.queries["query_id"].tolist() == ["12060", "12063"]
    assert triplets.queries["reference"].tolist() == [A, C]
    assert triplets.queries["target"].tolist() == [B, A]
    assert triplets.queries["captions"].tolist()[1] == ("Remove all but one.",)
    assert triplets.queries["subset"].tolist()[1] == tuple(NAMES[5::-1])
    assert (triplets.title, triplets.category) == ("cirr val", "")


def test_the_gallery_is_the_whole_image_split_in_its_order(triplets):
    assert triplets.gallery == tuple(NAMES) and len(NAMES) == 7


def test_the_targets_of_test1_are_hidden(tmp_path):
    triplets = load_cirr(write(tmp_path, "test1", hide(ENTRIES)), split="test1")
    assert triplets.queries["target"].tolist() == [None, None]


def test_a_pair_without_words_stays_where_the_target_is_hidden(tmp_path):
    entries = hide(change(caption=" "))
    triplets = load_cirr(write(tmp_path, "test1", entries), split="test1")
    assert triplets.queries["captions"].tolist() == [(), ("Remove all but one.",)]
    assert triplets.faults.to_numpy().tolist() == [["12060", "caption 1 of 1 has no words: ' '"]]


# Where the pictures lie


def picture(root):
    return load_cirr(root).files[A]


def test_pictures_stand_beside_the_folder_cirr_as_published(tmp_path):
    write(tmp_path / "cirr")
    assert picture(tmp_path / "cirr") == picture(tmp_path) == tmp_path / PATHS[A]


def test_pictures_may_stand_in_the_folder_cirr(tmp_path):
    write(tmp_path / "cirr")
    (tmp_path / "cirr" / "dev").mkdir()
    assert picture(tmp_path / "cirr") == picture(tmp_path) == tmp_path / "cirr" / PATHS[A]


def test_pictures_stand_in_a_folder_of_another_name(tmp_path):
    write(tmp_path / "mine")
    (tmp_path / "dev").mkdir()
    assert picture(tmp_path / "mine") == tmp_path / "mine" / PATHS[A]


def test_missing_pictures_are_counted(tmp_path):
    write(tmp_path)
    (tmp_path / "dev").mkdir()
    for name in NAMES[:-1]:
        (tmp_path / PATHS[name]).touch()
    triplets, missing = load_cirr(tmp_path).with_images()
    assert missing == NAMES[-1:] and len(triplets) == 2


# What is refused


def test_an_unknown_split_gets_the_known_ones(tmp_path):
    write(tmp_path, "test1", hide(ENTRIES))
    write(tmp_path)
    with pytest.raises(ValueError, match="split 'test' in .* test1, val. .* NLVR2"):
        load_cirr(tmp_path, split="test")


def test_a_folder_without_captions_gets_where_they_are_to_be_had(tmp_path):
    with pytest.raises(FileNotFoundError, match="cap.rc2.<split>.json .* repository .* NLVR2"):
        load_cirr(tmp_path)


def test_a_missing_image_split_is_named(tmp_path):
    (write(tmp_path) / "image_splits" / "split.rc2.val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*split\.rc2\.val\.json"):
        load_cirr(tmp_path)


# What is left out


@pytest.mark.parametrize(
    ("entries", "left_out", "reason"),
    [
        (without("pairid"), "entry 0", "no 'pairid' in"),
        (without("img_set"), "entry 0", "no 'img_set' in"),
        (without("target_hard"), "entry 0", "no 'target_hard' in"),
        (change(pairid=True), "entry 0", "'pairid' must be int or str, got True"),
        (change(caption=["a"]), "entry 0", "'caption' must be str"),
        (change(caption="\ud800"), "entry 0", "'caption' holds half a character"),
        (change(img_set={"id": 1}), "entry 0", "no 'members' in"),
        (change(img_set={"members": [A, 3]}), "entry 0", "'members' must hold texts, got 3"),
        (change(img_set={"members": NAMES[:5]}), "entry 0", "a subset holds 6 images, got 5"),
        (change(img_set={"members": NAMES[1:]}), "12060", "image .* not in the query's own"),
        (change(caption=" "), "12060", "no caption has words"),
        (change(target_hard=A), "12060", "the target is the reference"),
        (change(reference="x"), "12060", "image 'x' is not in the split"),
        (["B1", ENTRIES[1]], "entry 0", "no 'pairid' in 'B1'"),
    ],
)
def test_a_bad_query_is_left_out_and_listed(tmp_path, entries, left_out, reason):
    triplets = load_cirr(write(tmp_path, entries=entries))
    assert triplets.queries["query_id"].tolist() == ["12063"]
    fault = triplets.faults.iloc[-1]
    assert fault["query_id"] == left_out
    assert re.search(f"left out: {reason}", fault["reason"])


@pytest.mark.parametrize("pairid", [12063, "12063"])
def test_of_two_queries_with_one_id_the_first_stays(tmp_path, pairid):
    triplets = load_cirr(write(tmp_path, entries=change(pairid=pairid)))
    assert triplets.queries["captions"].tolist() == [(ENTRIES[0]["caption"],)]
    assert triplets.faults["reason"].tolist() == ["left out: the id comes a second time"]


def test_a_target_that_one_query_of_a_hidden_split_gives_away_is_not_taken(tmp_path):
    entries = [*hide(ENTRIES), ENTRIES[0] | {"pairid": 7}]
    triplets = load_cirr(write(tmp_path, "test1", entries), split="test1")
    assert triplets.queries["target"].tolist() == [None, None, None]


def test_captions_of_which_no_query_is_left_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cap.rc2.val.json: no query can be used; entry 0 is left"):
        load_cirr(write(tmp_path, entries=[{"pairid": 1}]))


def test_captions_that_are_no_list_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cap.rc2.val.json must hold a list"):
        load_cirr(write(tmp_path, entries={"pairid": 1}))


@pytest.mark.parametrize("path", [3, None, "", "/etc/x.png", "./dev/../../x.png", "a\0b.png"])
def test_an_image_without_a_path_is_left_out_with_its_queries(tmp_path, path):
    triplets = load_cirr(write(tmp_path, paths=PATHS | {NAMES[-1]: path}))
    assert triplets.gallery == tuple(NAMES[:-1])
    assert triplets.faults["query_id"].tolist()[0] == f"image {NAMES[-1]!r}"
    assert "left out of split.rc2.val.json: path is" in triplets.faults["reason"][0]


def test_an_image_split_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split.rc2.val.json must hold an object"):
        load_cirr(write(tmp_path, paths=NAMES))


# By name


def test_load_triplets_loads_cirr(tmp_path):
    assert load_triplets("cirr", write(tmp_path), split="val").title == "cirr val"


def test_load_triplets_refuses_a_category_of_cirr(tmp_path):
    with pytest.raises(ValueError, match="no categories, got category='dress'"):
        load_triplets("cirr", write(tmp_path), split="val", category="dress")
