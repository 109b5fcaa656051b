"""What matched, in figures and in the grid: outlines where the regions are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from regionlab.data.images import write_image
from regionlab.data.masks import mask_to_rle
from regionlab.data.prompts import Box, Points, Text, Whole
from regionlab.index.index import Index
from regionlab.models.segmenter import Region
from regionlab.search.regions import RegionRanking
from regionlab.viz import charts as figures
from regionlab.viz.grid import ResultGrid
from regionlab.viz.images import (
    MATCH_LINE,
    MATCH_TINT,
    draw_matches,
    draw_rivals,
    draw_search,
    draw_selection,
    object_color,
    tint_mask,
)

HEIGHT, WIDTH = 60, 100


def make_mask(x0, x1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:50, x0:x1] = True
    return mask


MASKS = [make_mask(0, 30), make_mask(10, 40), make_mask(60, 90)]  # of image 0, 1 and 1


@pytest.fixture
def image():
    return np.full((HEIGHT, WIDTH, 3), 200, np.uint8)


@pytest.fixture
def axes():
    fig, axes = plt.subplots(1, 4)
    yield axes
    plt.close(fig)


@pytest.fixture
def ranking(tmp_path):
    """Of two queries of two parts: images 1, 0 and nothing; then image 0, nothing, nothing."""
    for row in range(2):
        write_image(tmp_path / f"{row}.png", np.full((HEIGHT, WIDTH, 3), 100 * row, np.uint8))
    index = Index(
        tmp_path,
        {},
        tmp_path,
        pd.DataFrame({"image_id": ["0", "1"], "path": ["0.png", "1.png"],
                      "width": WIDTH, "height": HEIGHT}),
        np.eye(2, dtype=np.float32),
        pd.DataFrame(),
        pd.DataFrame({"row": [0, 1, 1], "rle": [mask_to_rle(mask)["counts"] for mask in MASKS]}),
        np.eye(3, dtype=np.float32),
    )  # fmt: skip
    return RegionRanking(
        index,
        ["first", "second"],
        np.array([[1, 0, -1], [0, -1, -1]]),
        np.array([[0.75, 0.5, -np.inf], [0.25, -np.inf, -np.inf]], np.float32),
        np.array([-1, -1]),
        np.array([[[2, 1], [-1, 0], [-1, -1]], [[0, -1], [-1, -1], [-1, -1]]]),
        {},
    )


def tints_of(ax):
    return [np.asarray(layer.get_array()) for layer in ax.images[1:]]


# Matches


def outline(mask, color):
    return tint_mask(mask, color, tint=MATCH_TINT, line=MATCH_LINE)


def test_matched_regions_have_the_colours_of_their_parts(axes, ranking):
    draw_matches(axes, ranking)
    (third, second), (first,) = tints_of(axes[0]), tints_of(axes[1])
    np.testing.assert_array_equal(third, outline(MASKS[2], object_color(0)))
    np.testing.assert_array_equal(second, outline(MASKS[1], object_color(1)))
    np.testing.assert_array_equal(first, outline(MASKS[0], object_color(1)))
    assert [len(ax.images) for ax in axes] == [3, 2, 0, 0]


def test_matches_are_drawn_over_the_ranking(axes, ranking):
    draw_matches(axes, ranking, relevant=np.array([False, True]))
    assert [ax.get_title() for ax in axes] == ["0.750", "0.500", "", ""]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in axes[:2]] == [100, 0]
    frames = [to_hex(ax.spines["left"].get_edgecolor()).upper() for ax in axes[:2]]
    assert frames == [figures.RIGHT, figures.WRONG]


def test_matches_are_those_of_the_query_asked_about(axes, ranking):
    draw_matches(axes, ranking, 1)
    (tint,) = tints_of(axes[0])
    np.testing.assert_array_equal(tint, outline(MASKS[0], object_color(0)))
    assert [len(ax.images) for ax in axes] == [2, 0, 0, 0]


def test_fewer_axes_show_the_best(axes, ranking):
    draw_matches(axes[:1], ranking)
    assert [len(ax.images) for ax in axes] == [3, 0, 0, 0]


def test_the_grid_shows_results_with_scores_and_the_regions_that_matched(ranking):
    grid = ResultGrid.from_ranking(ranking, columns=2, thumb=50)
    shown = ResultGrid(
        [ranking.index.path(1), ranking.index.path(0)],
        ["0.750", "0.500"],
        outlines=[[MASKS[2], MASKS[1]], [None, MASKS[0]]],
        columns=2,
        thumb=50,
    )
    assert grid.titles == shown.titles == ["0.750", "0.500"]
    assert grid.thumbs == shown.thumbs
    assert (grid.columns, grid.thumb) == (2, 50)


def test_the_grid_shows_the_query_asked_about(ranking):
    grid = ResultGrid.from_ranking(ranking, 1)
    outlined = ResultGrid([ranking.index.path(0)], outlines=[[MASKS[0]]])
    assert (grid.titles, grid.thumbs) == (["0.250"], outlined.thumbs)


# Selections


def test_a_selection_shows_the_image_and_a_title(axes, image):
    draw_selection(axes[0], image, Whole(), title="what is meant")
    (picture,) = axes[0].images
    np.testing.assert_array_equal(picture.get_array(), image)
    assert axes[0].get_title() == "what is meant"
    assert not axes[0].patches and not axes[0].lines and not axes[0].texts


def test_each_prompt_has_its_colour_and_the_mask_it_became(axes, image):
    prompts = [Box(0, 10, 30, 50), Box(10, 10, 40, 50), Box(60, 10, 90, 50)]
    regions = [Region(MASKS[0]), None, Region(MASKS[2])]
    draw_selection(axes[0], image, prompts, regions)
    first, third = tints_of(axes[0])
    np.testing.assert_array_equal(first, tint_mask(MASKS[0], object_color(0)))
    np.testing.assert_array_equal(third, tint_mask(MASKS[2], object_color(2)))
    colors = [to_rgb(box.get_edgecolor()) for box in axes[0].patches[1::2]]  # each on white
    assert colors == [to_rgb(object_color(number)) for number in range(3)]


def test_regions_may_be_fewer_than_prompts(axes, image):
    draw_selection(axes[0], image, [Whole(), Whole()], [Region(MASKS[0])])
    assert len(tints_of(axes[0])) == 1


def test_points_in_a_box_are_drawn_with_it(axes, image):
    draw_selection(axes[0], image, Points(((20, 12),), (0,), Box(10, 5, 40, 30)))
    assert axes[0].patches[-1].get_xy()[0].tolist() == [9.5, 4.5]
    assert [line.get_marker() for line in axes[0].lines] == ["o", "_"]


def test_a_label_stands_at_the_box_of_its_prompt_or_mask_or_in_the_corner(axes, image):
    click = Points(((70, 20),))
    in_box = Points(((70, 20),), box=Box(50, 5, 95, 55))
    prompts, regions = [click, in_box, Text("a cup"), click], [Region(MASKS[2])] * 2
    draw_selection(axes[0], image, prompts, regions, labels=["mask", "box", "unsaid", "corner"])
    assert [(text.get_text(), text.xy) for text in axes[0].texts] == [
        ("mask", (59.5, 9.5)),
        ("box", (49.5, 4.5)),
        ("“a cup”", (-0.5, -0.5)),
        ("corner", (-0.5, -0.5)),
    ]


def test_what_is_no_prompt_is_not_drawn(axes, image):
    with pytest.raises(ValueError, match="'a cup' is no prompt"):
        draw_selection(axes[0], image, ["a cup"])


# Whole searches


def test_a_search_is_drawn_from_prompt_to_results(axes, image, ranking):
    region = Region(MASKS[0])
    draw_search(axes, image, Box(0, 10, 30, 50), [region], ranking, title="box")
    assert [ax.get_title() for ax in axes] == ["box", "erased", "0.750", "0.500"]
    erased = np.asarray(axes[1].images[0].get_array())
    assert (erased[MASKS[0]] == 200).all() and (erased[~MASKS[0]] == 0).all()


def test_a_search_that_found_no_mask_has_nothing_erased(axes, image, ranking):
    draw_search(axes, image, Whole(), [None], ranking)
    assert not axes[1].images and not axes[1].axison


@pytest.mark.parametrize("ranks", [{"right": 3, "wrong": 8}, {"right": 8, "wrong": 3}])
def test_rivals_come_in_the_order_found(axes, image, ranks):
    rivals = {"right": image, "wrong": image // 2}
    draw_rivals(axes[:3], image, rivals, ranks, title="whole image")
    assert [ax.get_title() for ax in axes[:3]] == ["whole image", "rank 3", "rank 8"]
    frames = [to_hex(ax.spines["left"].get_edgecolor()).upper() for ax in axes[1:3]]
    colors = {"right": figures.RIGHT, "wrong": figures.WRONG}
    assert frames == [colors[side] for side in sorted(ranks, key=ranks.get)]
