"""Regions changed by words, what answers them, and the figures of composed search."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from PIL import Image

from regionlab.compose.benchmark import ComposedFeatures
from regionlab.compose.regions import holds_changes, sample_changes, search_changed_regions
from regionlab.data.collection import Collection
from regionlab.data.registry import load_collection
from regionlab.data.triplets import Triplets, make_queries
from regionlab.index.build import add_regions, build_index
from regionlab.models.registry import load_segmenter
from regionlab.search.query import Part, Query
from regionlab.search.regions import search_regions
from regionlab.viz.charts import RIGHT
from regionlab.viz.images import draw_composed, draw_shares

BY = ["category", "color", "texture"]
OBJECTS = [
    ("a1", "a", "ring", "red", "plain", False),
    ("b1", "b", "ring", "green", "plain", False),
    ("c1", "c", "ring", "blue", "plain", False),
    ("c2", "c", "star", "red", "plain", False),
    ("d1", "d", "ring", "yellow", "dotted", False),  # of another texture
    ("e1", "e", "ring", "pink", "plain", True),  # a crowd
    ("a2", "a", "ring", "white", "plain", False),  # in the image of the first
    ("f1", "f", "moon", None, "plain", False),  # of no color
]


@pytest.fixture
def things():
    """A collection whose objects are in a table only."""
    table = pd.DataFrame(OBJECTS, columns=["object_id", "image_id", *BY, "iscrowd"])
    table = table.assign(x0=0.0, y0=0.0, x1=9.0, y1=9.0, area=81.0, segmentation=None)
    names = list("abcdef")
    images = pd.DataFrame({"image_id": names, "path": [f"{n}.png" for n in names],
                           "width": 9, "height": 9})  # fmt: skip
    return Collection(Path("nowhere"), images, table)


def draw(things, objects=None, **changes):
    options = {"column": "color", "by": BY, "words": "make the {category} {new}", "seed": 0}
    objects = things.objects if objects is None else objects
    return sample_changes(things, objects, **options | changes).set_index("object_id")


def test_a_change_asks_for_a_value_that_another_image_holds(things):
    drawn = [draw(things, seed=seed) for seed in range(30)]
    for changes in drawn:
        for object_id, row in changes.iterrows():
            wanted = things.objects.set_index("object_id").loc[row["example"]]
            own = things.objects.set_index("object_id").loc[object_id]
            assert row["words"] == f"make the {own['category']} {wanted['color']}"
            assert (wanted["category"], wanted["texture"]) == (own["category"], own["texture"])
            assert wanted["color"] != own["color"]
            assert wanted["image_id"] != row["image_id"] == own["image_id"]
    assert {changes["words"]["a1"] for changes in drawn} == {
        "make the ring green", "make the ring blue",
    }  # fmt: skip
    assert {changes["example"]["b1"] for changes in drawn} == {"a1", "a2", "c1"}


def test_objects_that_nothing_answers_are_left_out(things):
    assert set(draw(things).index) & {"c2", "d1", "f1"} == set()


def test_the_seed_decides_the_change(things):
    assert draw(things, seed=1).equals(draw(things, seed=1))
    assert any(not draw(things, seed=0).equals(draw(things, seed=s)) for s in range(1, 5))


def test_one_column_may_make_the_kind_and_change(things):
    words = {draw(things, by=["color"], words="make it {new}", seed=s)["words"]["c2"]
             for s in range(30)}  # fmt: skip
    assert words == {f"make it {color}" for color in ("green", "yellow", "white")}


@pytest.mark.parametrize("column", ["size", "iscrowd"])
def test_a_column_that_makes_no_kind_is_refused(things, column):
    with pytest.raises(ValueError, match=f"column '{column}' must be one of"):
        draw(things, column=column)


def test_images_with_the_changed_kind_answer(things):
    changes = pd.DataFrame({"example": ["b1", "c2", "a1"]})
    found = holds_changes(things, changes, ["c", "b", "a"], by=BY)
    assert found.tolist() == [[False, True, False], [True, False, False], [False, False, True]]


# Search


@pytest.fixture(scope="module")
def index(encoder, tmp_path_factory):
    collection = load_collection("toybox", tmp_path_factory.mktemp("world"), count=4)
    index = build_index(collection, encoder, tmp_path_factory.mktemp("index") / "index")
    return add_regions(index, load_segmenter("toysam", device="cpu", precision="fp32"), encoder)


def draw_units(count, d, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_words_change_the_first_part_and_leave_the_others(index, encoder):
    a, b, new_a, new_b, other = draw_units(5, encoder.dim)
    queries = [
        Query((Part(a, weight=2.0), Part(other, weight=-0.5, label="without"))),
        Query((Part(b),)),
    ]
    words = ["make it red", "add a star"]

    def compose(images, texts):
        np.testing.assert_array_equal(images, [a, b])
        assert texts == words
        return np.stack([new_a, new_b])

    found = search_changed_regions(index, queries, words, compose, k=3, exclude=np.array([0, 1]))
    expected = search_regions(
        index,
        [Query((Part(new_a, weight=2.0), Part(other, weight=-0.5))), Query((Part(new_b),))],
        k=3, exclude=np.array([0, 1]),
    )  # fmt: skip
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.rows, expected.rows)


# Figures


@pytest.fixture
def part(tmp_path):
    names = tuple("abcd")
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"{name}.png")
    words = "is red and has no sleeves and is much longer than the other one"
    queries = make_queries([("1", "a", "c", (words,), ())])
    files = {name: tmp_path / f"{name}.png" for name in names}
    triplets = Triplets("some", "val", "", queries, names, files)
    return ComposedFeatures(triplets, 5 * np.eye(4, dtype=np.float32), [])


@pytest.fixture
def axes():
    fig, axes = plt.subplots(1, 5)
    yield axes
    plt.close(fig)


def is_framed(ax):
    edges = [s for s in ax.spines.values() if s.get_visible()]
    return bool(edges) and all(same_color(s.get_edgecolor(), RIGHT) for s in edges)


def shade(ax):
    """The gray of the picture that an Axes shows; pictures are 60 times their row."""
    return int(ax.images[0].get_array()[0, 0, 0]) if ax.images else None


COMPOSED = np.array([[0.2, 0.1, 0.8, 0.5]], np.float32)
COMPOSED /= np.linalg.norm(COMPOSED)


def test_the_reference_comes_first_with_its_words_then_what_was_found(part, axes):
    draw_composed(axes, part, COMPOSED, 0)
    assert [shade(ax) for ax in axes] == [0, 120, 180, 60, None]  # of three others
    said = axes[0].get_xlabel()
    assert said.replace("\n", " ") == part.triplets.texts()[0]
    assert max(map(len, said.split("\n"))) <= 26
    assert not axes[4].axison


def test_the_target_has_a_green_frame_and_scores_are_cosines(part, axes):
    draw_composed(axes, part, COMPOSED, 0)
    assert [is_framed(ax) for ax in axes] == [False, True, False, False, False]
    assert axes[1].get_title() == f"{COMPOSED[0, 2]:.2f}"


def test_shares_are_drawn_as_percent_with_their_names(axes):
    shares = pd.DataFrame({"color": [0.256, 1.0], "move": [0.0, 0.5]}, index=["sum", "combiner"])
    ax = draw_shares(axes[0], shares, label="hit@1")
    texts = {(t.get_position(), t.get_text()) for t in ax.texts}
    assert texts == {((0, 0), "26"), ((1, 0), "0"), ((0, 1), "100"), ((1, 1), "50")}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["color", "move"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["sum", "combiner"]
