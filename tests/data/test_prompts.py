"""Prompts and selections: what is refused, what is clipped, and that JSON keeps all of it."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from itertools import product

import numpy as np
import pytest

from regionlab.data.prompts import (
    Box,
    Points,
    Selection,
    Text,
    Whole,
    as_prompts,
    fit_prompt,
    prompt_from_dict,
    prompt_to_dict,
)

PROMPTS = [
    Box(1, 2.5, 30, 40),
    Points(((3, 4),)),
    Points(((3, 4), (5.5, 6)), (1, 0)),
    Points(((3, 4),), (0,), Box(1, 2, 30, 40)),
    Text("a red circle"),
    Text("stars", every=True),
    Whole(),
]
NAN, INF = float("nan"), float("inf")


def test_prompts_need_no_torch():
    code = "import sys, regionlab.data.prompts; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Boxes


def test_a_box_is_its_four_sides():
    box = Box(np.float32(1), 2, np.int64(3), 4.5)
    assert box == Box(1, 2, 3, 4.5)
    assert box.xyxy.tolist() == [1, 2, 3, 4.5]
    assert box.xyxy.dtype == np.float64
    assert all(type(side) is float for side in (box.x0, box.y0, box.x1, box.y1))


def test_two_opposite_corners_make_the_same_box_whichever_they_are():
    for (ax, bx), (ay, by) in product([(1, 3), (3, 1)], [(2, 4), (4, 2)]):
        assert Box.from_corners((ax, ay), (bx, by)) == Box(1, 2, 3, 4)


@pytest.mark.parametrize("sides", [(3, 0, 1, 1), (0, 3, 1, 1), (3, 3, 1, 1)])
def test_swapped_corners_point_to_from_corners(sides):
    with pytest.raises(ValueError, match=r"corners of Box\(x0=.* swapped.*Box.from_corners"):
        Box(*sides)


@pytest.mark.parametrize("sides", [(1, 0, 1, 1), (0, 1, 1, 1), (2, 2, 2, 2)])
def test_a_box_of_zero_area_is_refused(sides):
    with pytest.raises(ValueError, match="has no area"):
        Box(*sides)


@pytest.mark.parametrize("side, value", [*product(range(4), [NAN, INF, -INF])])
def test_a_box_that_is_not_finite_is_refused(side, value):
    sides = [0, 0, 1, 1]
    sides[side] = value
    with pytest.raises(ValueError, match="a box must be finite numbers, not .*(nan|inf)"):
        Box(*sides)


@pytest.mark.parametrize("value", ["a", None, (1, 2)])
def test_a_box_of_no_numbers_is_refused(value):
    with pytest.raises(ValueError, match="a box must be numbers"):
        Box(0, 0, value, 1)


# Points


def test_points_are_inside_unless_said_otherwise():
    assert Points(((1, 2), (3, 4))).labels == (1, 1)


def test_points_may_come_as_arrays_or_lists():
    expected = Points(((1.0, 2.0), (3.0, 4.0)), (1, 0))
    assert Points(np.array([[1, 2], [3, 4]]), np.array([1, 0])) == expected
    assert Points([[1, 2], [3, 4]], [True, 0.0]) == expected
    assert all(type(label) is int for label in Points([[1, 2]], [True]).labels)


@pytest.mark.parametrize("xy", [(), (3, 4), ((3,),), ((3, 4, 5),), np.zeros((0, 2)), 3, "ab"])
def test_what_are_no_points_is_refused(xy):
    with pytest.raises(ValueError, match="point"):
        Points(xy)


@pytest.mark.parametrize("point", [(NAN, 1), (1, INF)])
def test_a_point_that_is_not_finite_is_refused(point):
    with pytest.raises(ValueError, match="a point must be finite numbers"):
        Points(((1, 1), point))


@pytest.mark.parametrize("labels", [(1, 1), (), (2,), (-1,), (0.5,), ("1",), 1])
def test_labels_are_as_many_as_points_and_0_or_1(labels):
    with pytest.raises(ValueError, match="labels"):
        Points(((3, 4),), labels)


def test_only_negative_points_mean_nothing():
    with pytest.raises(ValueError, match="only negative points: add a positive one, or a box"):
        Points(((3, 4), (5, 6)), (0, 0))


def test_only_negative_points_in_a_box_mean_the_rest_of_it():
    box = Box(0, 0, 9, 9)
    assert Points(((3, 4),), (0,), box).box == box


def test_the_box_of_points_is_a_box():
    with pytest.raises(ValueError, match=r"must be a Box, not \(0, 0, 9, 9\)"):
        Points(((3, 4),), box=(0, 0, 9, 9))


# Text


@pytest.mark.parametrize("words", ["", " \n", None, 3, ["a"]])
def test_a_text_without_words_is_refused(words):
    with pytest.raises(ValueError, match="at least one word"):
        Text(words)


def test_every_is_yes_or_no():
    with pytest.raises(ValueError, match="every must be True or False, not 'circle'"):
        Text("red", "circle")


# All kinds


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_prompts_are_values(prompt):
    assert prompt == prompt_from_dict(prompt_to_dict(prompt))
    assert len({prompt, prompt_from_dict(prompt_to_dict(prompt))}) == 1
    with pytest.raises(FrozenInstanceError):
        prompt.x0 = 3


def test_one_prompt_or_several_become_a_list():
    box, text = Box(0, 0, 1, 1), Text("a star")
    assert as_prompts(box) == [box]
    assert as_prompts((box, text)) == [box, text]
    assert as_prompts(p for p in (box, text)) == [box, text]


@pytest.mark.parametrize("prompts", ["a star", ["a star"], [Whole(), None], None, [Whole]])
def test_what_is_no_prompt_is_refused(prompts):
    with pytest.raises(ValueError, match="prompt"):
        as_prompts(prompts)


def test_no_prompt_at_all_is_refused():
    with pytest.raises(ValueError, match="no prompt: say what is meant"):
        as_prompts([])


# In an image: 20 pixels high, 30 wide


@pytest.mark.parametrize(
    "sides, fitted",
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((0, 0, 30, 20), (0, 0, 30, 20)),
        ((-5, 2, 3, 4), (0, 2, 3, 4)),
        ((1, -5, 3, 4), (1, 0, 3, 4)),
        ((1, 2, 99, 4), (1, 2, 30, 4)),
        ((1, 2, 3, 99), (1, 2, 3, 20)),
        ((-5, -5, 99, 99), (0, 0, 30, 20)),
    ],
)
def test_a_box_partly_outside_is_clipped(sides, fitted):
    assert fit_prompt(Box(*sides), (20, 30)) == Box(*fitted)


@pytest.mark.parametrize("sides", [(30, 0, 40, 9), (0, 20, 9, 29), (-9, 0, 0, 9), (0, -9, 9, 0)])
def test_a_box_wholly_outside_is_refused(sides):
    with pytest.raises(ValueError, match="Box.* is outside .* 30 pixels wide and 20 high"):
        fit_prompt(Box(*sides), (20, 30))
    with pytest.raises(ValueError, match="is outside the image"):
        fit_prompt(Points(((3, 4),), box=Box(*sides)), (20, 30))


@pytest.mark.parametrize("point", [(-0.1, 5), (5, -0.1), (30, 5), (5, 20)])
def test_a_point_outside_is_refused(point):
    with pytest.raises(ValueError, match=r"point \(.*\) is outside .* 30 pixels wide and 20 high"):
        fit_prompt(Points(((3, 4), point)), (20, 30))


def test_points_in_the_corners_of_the_image_are_inside():
    points = Points(((0, 0), (29.9, 19.9)), (1, 0))
    assert fit_prompt(points, (20, 30)) == points


def test_the_box_of_points_is_clipped_too():
    fitted = fit_prompt(Points(((3, 4),), (0,), Box(-5, 2, 99, 4)), (20, 30))
    assert fitted == Points(((3, 4),), (0,), Box(0, 2, 30, 4))


@pytest.mark.parametrize("prompt", [Text("a star"), Whole()])
def test_text_and_whole_lie_in_any_image(prompt):
    assert fit_prompt(prompt, (1, 1)) == prompt


# JSON


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_a_prompt_comes_back_from_json(prompt):
    assert prompt_from_dict(json.loads(json.dumps(prompt_to_dict(prompt)))) == prompt


def test_the_json_of_prompts_is_plain():
    assert prompt_to_dict(Points(((1, 2),), box=Box(0, 0, 3, 4))) == {
        "kind": "points",
        "xy": [[1.0, 2.0]],
        "labels": [1],
        "box": {"x0": 0.0, "y0": 0.0, "x1": 3.0, "y1": 4.0},
    }
    assert prompt_to_dict(Text("a", every=True)) == {"kind": "text", "words": "a", "every": True}


@pytest.mark.parametrize(
    "kind, holds", [("box", "x0, y0, x1, y1"), ("text", "words, every"), ("whole", "nothing more")]
)
def test_values_of_another_kind_are_told_what_this_one_holds(kind, holds):
    with pytest.raises(ValueError, match=f"a prompt of kind {kind} holds {holds}, not {{'a': 1}}"):
        prompt_from_dict({"kind": kind, "a": 1})


@pytest.mark.parametrize("values", [{"kind": "scribble"}, {}, {"kind": ["box"]}, "box", None])
def test_an_unknown_kind_names_the_known_ones(values):
    with pytest.raises(ValueError, match="unknown kind of prompt .*known: box, points, text, who"):
        prompt_from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "box", "x0": 1},
        {"kind": "whole", "x0": 1},
        {"kind": "text", "word": "a"},
        {"kind": "points", "xy": [[1, 2]], "box": {"x": 1}},
        {"kind": "points", "xy": [[1, 2]], "box": [0, 0, 9, 9]},
    ],
)
def test_values_of_another_kind_are_refused(values):
    with pytest.raises(ValueError, match=f"a prompt of kind {values['kind']} holds"):
        prompt_from_dict(values)


def test_json_is_checked_like_any_prompt():
    with pytest.raises(ValueError, match="are swapped"):
        prompt_from_dict({"kind": "box", "x0": 3, "y0": 0, "x1": 1, "y1": 1})


# Selections


def test_a_selection_comes_back_from_its_file(tmp_path):
    weights = (1, -0.5, 1, 1, 2, 1, 0)
    labels = ("cup", "", "Tür", "", "", "", "")
    selection = Selection("images/a.png", (50, 60), PROMPTS, weights, labels)
    path = selection.save(tmp_path / "new" / "selection.json")
    assert Selection.load(str(path)) == selection
    assert "Tür" in path.read_text(encoding="utf-8")


def test_weights_are_one_and_labels_empty_by_default():
    selection = Selection("a", (20, 30), [Whole(), Text("a star")])
    assert selection.weights == (1.0, 1.0)
    assert selection.labels == ("", "")
    assert selection.prompts == (Whole(), Text("a star"))


def test_one_prompt_may_stand_alone():
    assert Selection("a", (20, 30), Whole()).prompts == (Whole(),)


def test_a_selection_clips_its_prompts_to_its_image():
    assert Selection("a", np.array([20, 30]), Box(5, 5, 99, 99)).prompts == (Box(5, 5, 30, 20),)
    with pytest.raises(ValueError, match="is outside the image, which is 30 pixels wide"):
        Selection("a", (20, 30), Points(((3, 25),)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": ""}, "name of its image"),
        ({"image": None}, "name of its image"),
        ({"size": (20,)}, "size must be"),
        ({"size": (0, 30)}, "size must be"),
        ({"size": (20.5, 30)}, "size must be"),
        ({"prompts": ()}, "no prompt"),
        ({"weights": (1, 2)}, "as many weights and labels, not 2 and 1"),
        ({"labels": ("a", "b")}, "as many weights and labels, not 1 and 2"),
        ({"labels": "a"}, "labels must be several"),
        ({"labels": (3,)}, "labels must be words"),
        ({"weights": (NAN,)}, "weights must be finite"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(change, message):
    values = {"image": "a", "size": (20, 30), "prompts": (Whole(),)} | change
    with pytest.raises(ValueError, match=message):
        Selection(**values)


GOOD = {"image": "a", "size": [20, 30], "prompts": [{"kind": "whole"}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        json.dumps(GOOD | {"prompts": [{"kind": "scribble"}]}),
        json.dumps(GOOD | {"prompts": 3}),
        json.dumps(GOOD | {"colour": "red"}),
        json.dumps({"prompts": [{"kind": "whole"}]}),
        "\xff",
    ],
)
def test_a_file_that_holds_no_selection_is_named(tmp_path, text):
    path = tmp_path / "selection.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="selection.json holds no selection: "):
        Selection.load(path)


def test_a_selection_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        Selection.load(tmp_path / "nowhere.json")
