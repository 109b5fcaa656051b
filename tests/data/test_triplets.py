"""Triplets: what is checked, rows and missing images, and how captions are joined."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regionlab.data.triplets import (
    NO_WORDS,
    Triplets,
    has_words,
    join_captions,
    make_faults,
    make_queries,
)

NOWHERE = Path("nowhere")
NAMES = ("b", "a", "d", "c", "f", "e", "h", "g")  # in no order
SUBSET = ("a", "b", "c", "d", "e", "f")
QUERY = {
    "query_id": "1",
    "reference": "a",
    "target": "b",
    "captions": ("is red", "no sleeves"),
    "subset": (),
}
OTHER = QUERY | {"query_id": "2", "reference": "c", "target": "d"}


def make_triplets(*queries, root=None, names=NAMES, **fields):
    """Make triplets of dicts; an image of the gallery lies in `root` under its name."""
    table = make_queries(tuple(query.values()) for query in queries or (QUERY, OTHER))
    files = {name: (root or NOWHERE) / f"{name}.jpg" for name in names}
    options = {"name": "fashioniq", "split": "val", "category": "dress"} | fields
    return Triplets(queries=table, gallery=names, files=files, **options)


@pytest.fixture
def pictures(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.jpg").touch()
    return tmp_path


# What they hold


def test_rows_are_places_in_the_gallery():
    triplets = make_triplets()
    assert triplets.rows_of(["g", "b", "b"]).tolist() == [7, 0, 0]
    assert triplets.reference_rows.tolist() == [1, 3]
    assert triplets.target_rows.tolist() == [0, 2]


def test_rows_of_no_names_are_integers():
    assert make_triplets().rows_of([]).dtype == np.int64


def test_a_hidden_target_has_row_minus_1():
    triplets = make_triplets(QUERY | {"target": None}, OTHER)
    assert triplets.target_rows.tolist() == [-1, 2]
    assert triplets.queries["target"].tolist() == [None, "d"]


def test_union_is_references_and_targets_in_gallery_order():
    assert make_triplets(OTHER).union_rows.tolist() == [2, 3]
    assert make_triplets(OTHER | {"target": None}).union_rows.tolist() == [3]


def test_rows_of_an_unknown_name_are_refused():
    with pytest.raises(KeyError, match="no image 'z' in fashioniq dress val"):
        make_triplets().rows_of(["a", "z"])


def test_length_and_repr_count_queries_images_and_faults():
    assert len(make_triplets()) == 2
    assert repr(make_triplets()) == "<Triplets fashioniq dress val: 2 queries, 8 images>"
    faults = make_faults([("1", "caption 2 of 2 has no words: ''")])
    shown = repr(make_triplets(category="", name="cirr", faults=faults))
    assert shown == "<Triplets cirr val: 2 queries, 1 with a fault, 8 images>"


def test_texts_are_the_joined_captions():
    triplets = make_triplets(QUERY, OTHER | {"captions": ("Is BLUE.",)})
    assert triplets.texts() == ["Is red and no sleeves", "Is BLUE."]
    drawn = triplets.texts(rng=np.random.default_rng(3))
    assert drawn == triplets.texts(rng=np.random.default_rng(3))
    assert drawn[1] == "Is BLUE."


# Missing images


def test_with_images_keeps_all_where_all_are_there(pictures):
    triplets, missing = make_triplets(root=pictures).with_images()
    assert (len(triplets), triplets.gallery, missing) == (2, NAMES, [])
    assert triplets.faults.empty


def test_an_image_that_no_query_names_takes_none_with_it(pictures):
    (pictures / "g.jpg").unlink()
    whole = make_triplets(root=pictures)
    assert whole.missing_images() == ["g"]
    triplets, missing = whole.with_images()
    assert missing == ["g"]
    assert triplets.gallery == NAMES[:-1] and set(triplets.files) == set(NAMES[:-1])
    assert len(triplets) == 2


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_query_is_left_out_and_listed_with_its_reference_or_target(pictures, name):
    (pictures / f"{name}.jpg").unlink()
    triplets, missing = make_triplets(root=pictures).with_images()
    assert missing == [name]
    assert triplets.queries["query_id"].tolist() == ["2"]
    assert triplets.queries.index.tolist() == [0]
    assert triplets.faults.to_numpy().tolist() == [["1", f"left out with image {name!r}"]]
    assert triplets.target_rows.tolist() == [NAMES.index("d") - 1]


def test_a_query_is_left_out_with_an_image_of_its_subset(pictures):
    (pictures / "h.jpg").unlink()
    other = OTHER | {"subset": ("c", "d", "e", "f", "g", "h")}
    triplets, _ = make_triplets(QUERY | {"subset": SUBSET}, other, root=pictures).with_images()
    assert triplets.queries["query_id"].tolist() == ["1"]


def test_faults_known_before_are_kept(pictures):
    (pictures / "a.jpg").unlink()
    faults = make_faults([("2", "caption 2 of 2 has no words: ''")])
    triplets, _ = make_triplets(root=pictures, faults=faults).with_images()
    assert triplets.faults["query_id"].tolist() == ["2", "1"]


def test_no_images_at_all_is_an_error_that_says_where_one_should_be():
    with pytest.raises(FileNotFoundError, match=r"nowhere/b\.jpg: no query .* 8 of 8 images"):
        make_triplets().with_images()


def test_without_leaves_out_the_images_named():
    triplets = make_triplets().without({"d": "not readable"})
    assert triplets.gallery == ("b", "a", "c", "f", "e", "h", "g")
    assert triplets.queries["query_id"].tolist() == ["1"]


def test_without_refuses_names_that_are_not_there():
    with pytest.raises(KeyError, match="no image 'z'"):
        make_triplets().without(["z"])


# What is refused


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "z"}, "query '1': image 'z' is not in the split"),
        ({"target": "z"}, "query '1': image 'z' is not in the split"),
        ({"target": float("nan")}, "image nan is not in the split"),
        ({"subset": ("a", "b", "z")}, "image 'z' is not in the split"),
        ({"subset": ("a", "b", ["c"])}, r"image \['c'\] is not in the split"),
        ({"target": "a"}, "query '1': the target is the reference, 'a'"),
        ({"captions": ("is red", " ")}, "query '1': caption ' ' has no words"),
        ({"captions": ("?.",)}, r"caption '\?\.' has no words"),
        ({"captions": (None,)}, "caption None has no words"),
        ({"captions": ()}, "query '1': no caption has words"),
        ({"captions": ("a", "b", "c")}, "at most 2 captions are possible, got 3"),
        ({"captions": "is red"}, "captions must be a tuple, got 'is red'"),
        ({"subset": "abc"}, "subset must be a tuple, got 'abc'"),
        ({"subset": ("a", "c", "d")}, "image 'b' is not in the query's own subset"),
        ({"subset": ("b", "c", "d")}, "image 'a' is not in the query's own subset"),
        ({"subset": ("a", "b", "c", "c")}, "twice in the subset"),
        ({"subset": SUBSET}, "some queries have a subset and some have none"),
        ({"query_id": "2"}, "query ids must be unique; '2' comes more than once"),
        ({"query_id": 1}, "query ids must be texts that are not empty, got 1"),
    ],
)
def test_a_broken_query_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        make_triplets(QUERY | changed, OTHER)


def test_a_query_with_a_hidden_target_may_lack_words():
    triplets = make_triplets(QUERY | {"target": None, "captions": ()})
    assert triplets.texts() == [NO_WORDS]


def test_the_subset_of_a_hidden_target_needs_the_reference():
    hidden = QUERY | {"target": None, "subset": ("c", "d", "e")}
    with pytest.raises(ValueError, match="image 'a' is not in the query's own subset"):
        make_triplets(hidden)


@pytest.mark.parametrize("names", [("a", "b", "a"), ("a", ""), ("a", 3)])
def test_names_of_images_are_unique_texts(names):
    with pytest.raises(ValueError, match="images must be"):
        make_triplets(QUERY, names=names)


def test_every_image_has_a_file():
    triplets = make_triplets()
    with pytest.raises(ValueError, match="does not say where image 'i' lies"):
        replace(triplets, gallery=(*NAMES, "i"))


def test_a_missing_column_is_named():
    triplets = make_triplets()
    with pytest.raises(ValueError, match="no column 'captions'"):
        replace(triplets, queries=triplets.queries.drop(columns="captions"))


# Captions


def test_two_captions_are_joined_as_the_papers_do():
    assert join_captions(("is Shiny, ", " Fit and Flare.")) == "Is shiny and Fit and Flare"


def test_one_caption_stays_as_it_is():
    assert join_captions(("Show THREE bottles.",)) == "Show THREE bottles."
    assert join_captions((" a",), rng=np.random.default_rng(0)) == " a"


def test_no_captions_give_what_an_encoder_takes():
    assert join_captions(()) == NO_WORDS and NO_WORDS.strip()


def test_in_training_the_four_forms_are_equally_likely():
    rng = np.random.default_rng(0)
    drawn = Counter(join_captions(("is red.", "No sleeves"), rng=rng) for _ in range(4000))
    assert set(drawn) == {
        "Is red and No sleeves",
        "No sleeves and is red",
        "Is red",
        "No sleeves",
    }
    assert all(900 < count < 1100 for count in drawn.values())


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (("is red", ""), "caption '' has no words"),
        (("a", "b", "c"), "at most 2"),
        ("is red", "must be a tuple of texts, got the text 'is red'"),
    ],
)
def test_captions_that_cannot_be_joined_are_refused(captions, message):
    with pytest.raises(ValueError, match=message):
        join_captions(captions)


@pytest.mark.parametrize(("caption", "expected"), [("a", True), (" .?,", False), ("\n", False)])
def test_words_are_more_than_punctuation(caption, expected):
    assert has_words(caption) is expected
