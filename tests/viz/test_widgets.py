"""The widgets as Python objects: what the browser sets, what the kernel answers."""

import json
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from regionlab.data.images import ImageError, write_image
from regionlab.data.prompts import Box, Points, Selection, Text, Whole
from regionlab.models.segmenter import Region
from regionlab.viz.grid import ResultGrid
from regionlab.viz.images import OBJECT_COLORS, draw_selection, object_color, tint_mask
from regionlab.viz.picker import RegionPicker

HEIGHT, WIDTH = 30, 50


def an_object(box=None, points=(), labels=(), text=""):
    return {"box": box, "points": list(points), "labels": list(labels), "text": text}


BOX = an_object(box=[5, 4, 30, 24])
CLICK = an_object(points=[[10.25, 12]], labels=[1])
CLICKS = an_object(box=[5, 4, 30, 24], points=[[10, 12], [40, 2]], labels=[1, 0])
WORDS = an_object(text=" a red circle ")
EMPTY = an_object()
ONLY_NEGATIVE = an_object(points=[[10, 12]], labels=[0])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def asked(segmenter, monkeypatch):
    """The prompts that the segmenter is asked for, as they come."""
    prompts, segment = [], segmenter.segment

    def note(image, prompt, **options):
        prompts.append(prompt)
        return segment(image, prompt, **options)

    monkeypatch.setattr(segmenter, "segment", note)
    return prompts


def decode(data):
    return np.array(Image.open(BytesIO(data)))


# Prompts


def test_objects_become_prompts_and_empty_ones_are_left_out(image):
    picker = RegionPicker(image)
    assert picker.prompts == []
    picker.objects = [BOX, EMPTY, CLICK, CLICKS, WORDS]
    assert picker.prompts == [
        Box(5, 4, 30, 24),
        Points(((10.25, 12),), (1,)),
        Points(((10, 12), (40, 2)), (1, 0), Box(5, 4, 30, 24)),
        Text("a red circle"),
    ]


def test_words_beside_marks_are_the_name_of_the_object(image):
    picker = RegionPicker(image, name="7.png")
    picker.objects = [{**BOX, "text": "chair"}, {**CLICK, "text": "table"}, WORDS]
    assert picker.selection.labels == ("chair", "table", "")
    assert picker.selection.prompts == (
        Box(5, 4, 30, 24),
        Points(((10.25, 12),)),
        Text("a red circle"),
    )


def test_a_box_over_the_edge_is_clipped_to_the_image(image):
    picker = RegionPicker(image)
    picker.objects = [an_object(box=[-3, 4, 60, 24])]
    assert picker.prompts == [Box(0, 4, WIDTH, 24)]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (ONLY_NEGATIVE, "object 2: only negative points"),
        (an_object(points=[[WIDTH, 3]], labels=[1]), r"object 2: point \(50, 3\) is outside"),
        (an_object(box=[9, 9, 9, 20]), "object 2: .* has no area"),
        (an_object(box=[60, 4, 70, 24]), "object 2: .* is outside the image"),
        (an_object(box=[5, 4]), r"object 2: a box needs four numbers, not \[5, 4\]"),
        (an_object(points=[[float("nan"), 3]], labels=[1]), "object 2: .* finite"),
    ],
)
def test_marks_that_are_no_prompt_are_named_in_error_and_stay(image, marks, message):
    picker = RegionPicker(image)
    picker.objects = [BOX, marks]
    assert picker.objects == [BOX, marks]
    with pytest.raises(ValueError, match=message):
        _ = picker.prompts
    with pytest.raises(ValueError, match=message):
        raise ValueError(picker.error)
    picker.objects = [BOX]
    assert picker.error == ""


# Pictures


def test_the_size_is_the_true_one_and_the_picture_sent_is_smaller(tmp_path):
    write_image(tmp_path / "wide.png", np.zeros((10, 4000, 3), np.uint8))
    picker = RegionPicker(tmp_path / "wide.png")
    assert (picker.width, picker.height) == (4000, 10)
    assert decode(picker.picture).shape == (4, 1600, 3)
    assert picker.name == str(tmp_path / "wide.png")


def test_an_image_of_one_pixel_can_be_picked(segmenter):
    picker = RegionPicker(np.zeros((1, 1, 3), np.uint8))
    picker.objects = [an_object(box=[0, 0, 1, 1])]
    assert picker.prompts == [Box(0, 0, 1, 1)]


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(ImageError, match="file not found"):
        RegionPicker(tmp_path / "none.png")
    with pytest.raises(ValueError, match="must be .H, W, 3. uint8"):
        RegionPicker(np.zeros((4, 4)))


# Masks


def test_masks_are_drawn_in_the_colours_of_their_objects(image, segmenter):
    picker = RegionPicker(image, segmenter=segmenter)
    picker.objects = [BOX, EMPTY, CLICK]
    assert picker.colors == list(OBJECT_COLORS)
    assert [mask is None for mask in picker.masks] == [False, True, False]
    for number, region in zip((0, 2), picker.regions, strict=True):
        expected = segmenter.segment(image, picker.prompts[number // 2]).mask
        np.testing.assert_array_equal(region.mask, expected)
        layer = decode(picker.masks[number])
        np.testing.assert_array_equal(layer[..., 3] > 0, expected)
        assert layer[expected][0, :3] / 255 == pytest.approx(to_rgb(picker.colors[number]))


def test_only_a_changed_object_is_segmented_again(image, segmenter, asked):
    picker = RegionPicker(image, segmenter=segmenter)
    picker.objects = [BOX]
    picker.objects = [BOX, EMPTY]
    picker.objects = [BOX, CLICK]
    picker.objects = [{**BOX, "text": "chair"}, CLICK]
    assert asked == [Box(5, 4, 30, 24), Points(((10.25, 12),))]
    picker.objects = [CLICK]  # its colour changes, its mask does not
    assert len(asked) == 2
    assert decode(picker.masks[0])[..., :3].max((0, 1)) / 255 == pytest.approx(
        to_rgb(picker.colors[0])
    )


def test_a_failing_prompt_is_told_in_error_and_others_keep_their_masks(image, segmenter):
    picker = RegionPicker(image, segmenter=segmenter)
    picker.objects = [BOX, ONLY_NEGATIVE]
    assert picker.error.startswith("object 2: only negative points")
    assert [mask is None for mask in picker.masks] == [False, True]
    assert len(picker.regions) == 1
    assert picker.status == ""


def test_a_failing_model_is_told_in_error(image, segmenter, monkeypatch):
    def fail(image, prompt):
        raise RuntimeError("out of memory")

    picker = RegionPicker(image, segmenter=segmenter)
    with monkeypatch.context() as patch:
        patch.setattr(segmenter, "segment", fail)
        picker.objects = [BOX]
    assert picker.error == "object 1: out of memory"
    assert picker.prompts == [Box(5, 4, 30, 24)]
    picker.objects = [BOX, EMPTY]  # asked again, now that it works
    assert picker.error == ""
    assert len(picker.regions) == 1


def test_without_a_segmenter_there_are_prompts_and_no_masks(image):
    picker = RegionPicker(image)
    picker.objects = [BOX, WORDS]
    assert picker.masks == [None, None]
    assert picker.regions == []
    assert picker.error == ""


def test_words_without_an_encoder_are_kept_and_find_no_mask(image, segmenter, asked):
    picker = RegionPicker(image, segmenter=segmenter)
    picker.objects = [WORDS]
    assert picker.prompts == [Text("a red circle")]
    assert picker.masks == [None]
    assert picker.error == ""
    assert asked == []


@pytest.fixture
def find_words(monkeypatch):
    """Stands in for the search by words: two regions for cats, nothing else is found."""
    asked = []

    def find(image, text, segmenter, encoder):
        asked.append(text)
        if "cat" not in text.words:
            raise ValueError(f"no region looks like {text.words}")
        halves = np.arange(WIDTH) < 10, np.arange(WIDTH) > 40
        return [Region(np.tile(half, (HEIGHT, 1)), prompt=text) for half in halves]

    monkeypatch.setattr("regionlab.regions.grounding.find_words", find)
    return asked


def test_words_find_their_masks_with_an_encoder(image, segmenter, encoder, find_words):
    picker = RegionPicker(image, segmenter=segmenter, encoder=encoder)
    picker.objects = [{**an_object(text="cats"), "every": True}]
    assert find_words == [Text("cats", every=True)]
    assert len(picker.regions) == 2
    columns = (decode(picker.masks[0])[..., 3] > 0).all(0)
    assert columns.tolist() == [x < 10 or x > 40 for x in range(WIDTH)]


def test_what_was_not_found_is_not_looked_for_at_every_click(image, segmenter, encoder, find_words):
    picker = RegionPicker(image, segmenter=segmenter, encoder=encoder)
    picker.objects = [WORDS]
    picker.objects = [WORDS, BOX]
    assert picker.error == "object 1: no region looks like a red circle"
    assert len(find_words) == 1
    picker.objects = [an_object(text="cat"), BOX]
    assert picker.error == ""


# Selections


def test_a_selection_comes_back_from_its_file(image, tmp_path):
    picker = RegionPicker(image, name="7.png")
    picker.objects = [{**BOX, "text": "chair"}, CLICKS, CLICK, WORDS]
    picker.save(tmp_path / "selection.json")
    other = RegionPicker(image, name="7.png")
    other.load(tmp_path / "selection.json")
    assert other.selection == picker.selection
    assert other.objects == [
        {**BOX, "text": "chair"},
        CLICKS,
        CLICK,
        {**WORDS, "text": "a red circle"},
    ]
    assert other.active == 3


def test_what_the_picker_does_not_show_of_a_selection_is_kept(image):
    selection = Selection(
        "7.png", (HEIGHT, WIDTH), (Box(1, 2, 3, 4), Text("cat", every=True)), weights=(1.0, -0.5)
    )
    picker = RegionPicker(image, name="7.png")
    picker.load(selection)
    json.dumps(picker.objects)
    assert picker.selection == selection


def test_loading_finds_the_masks(image, segmenter):
    picker = RegionPicker(image, segmenter=segmenter)
    picker.load(Selection("image", (HEIGHT, WIDTH), (Box(5, 4, 30, 24),)))
    assert len(picker.regions) == 1


def test_a_selection_for_another_size_is_refused_and_changes_nothing(image):
    picker = RegionPicker(image)
    picker.objects = [BOX]
    with pytest.raises(ValueError, match="for 50 x 31 pixels, this is 50 x 30"):
        picker.load(Selection("image", (HEIGHT + 1, WIDTH), (Box(1, 2, 3, 4),)))
    with pytest.raises(ValueError, match=r"boxes, points and words, not Whole"):
        picker.load(Selection("image", (HEIGHT, WIDTH), (Whole(),)))
    assert picker.objects == [BOX]


def test_an_empty_selection_cannot_be_saved(image, tmp_path):
    with pytest.raises(ValueError, match="no prompt"):
        RegionPicker(image).save(tmp_path / "selection.json")
    assert not list(tmp_path.iterdir())


def test_every_valid_selection_is_written_along(image, tmp_path):
    file = tmp_path / "selection.json"
    picker = RegionPicker(image, name="7.png", save_to=file)
    assert not file.exists()
    picker.objects = [BOX]
    assert Selection.load(file) == picker.selection
    picker.objects = [BOX, CLICK]
    valid = picker.selection
    picker.objects = [BOX, CLICK, ONLY_NEGATIVE]
    assert Selection.load(file) == valid
    picker.objects = [EMPTY]
    assert Selection.load(file) == valid
    assert picker.error == ""


def test_a_selection_that_cannot_be_written_is_told_in_error(image, tmp_path):
    (tmp_path / "file").touch()
    picker = RegionPicker(image, save_to=tmp_path / "file" / "selection.json")
    picker.objects = [BOX]
    assert picker.error.startswith("not saved: ")
    assert picker.prompts == [Box(5, 4, 30, 24)]


# Static pictures


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_masks_get_a_solid_outline_around_a_tint():
    mask = np.zeros((8, 9), bool)
    mask[2:7, 3:8] = True
    layer = tint_mask(mask, "#E69F00")
    assert layer[2, 3].tolist() == [0xE6, 0x9F, 0x00, 255]
    assert layer[4, 5].tolist() == [0xE6, 0x9F, 0x00, 102]
    assert layer[0, 0, 3] == 0
    assert (layer[..., 3] == 102).sum() == 3 * 3
    assert (tint_mask(mask, "#E69F00", line=2)[..., 3] == 102).sum() == 1


def test_colours_come_round_again():
    assert object_color(0) == object_color(len(OBJECT_COLORS)) == OBJECT_COLORS[0]


def test_a_drawn_selection_has_the_colours_places_and_names_of_the_picker(ax, image):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 10:20] = True
    prompts = [Box(5, 4, 30, 24), Points(((10, 12), (40, 2)), (1, 0)), Text("a cat")]
    draw_selection(ax, image, prompts, [None, None, Region(mask)], labels=["<b>", "", ""])
    box = ax.patches[-1]
    # The centre of the first pixel is 0 to matplotlib, its left edge is 0 to us.
    assert box.get_xy()[:3].tolist() == [[4.5, 3.5], [29.5, 3.5], [29.5, 23.5]]
    assert to_rgb(box.get_edgecolor()) == to_rgb(object_color(0))
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(9.5, 11.5), (39.5, 1.5)]
    assert [to_rgb(dot.get_markerfacecolor()) for dot in dots] == [
        to_rgb(object_color(1)),
        (1, 1, 1),
    ]
    assert [line.get_marker() for line in ax.lines if line not in dots] == ["+", "_"]
    np.testing.assert_array_equal(ax.images[1].get_array(), tint_mask(mask, object_color(2)))
    assert [(text.get_text(), text.xy) for text in ax.texts] == [
        ("<b>", (4.5, 3.5)),
        ("“a cat”", (9.5, 9.5)),
    ]


def test_a_picker_draws_its_selection_with_the_masks_found(ax, image, segmenter):
    picker = RegionPicker(image, segmenter=segmenter)
    picker.objects = [EMPTY, WORDS, BOX]
    picker.draw(ax)
    np.testing.assert_array_equal(
        ax.images[1].get_array(), tint_mask(picker.regions[0].mask, object_color(1))
    )
    assert len(ax.images) == 2


# Results


def test_results_are_thumbnails_with_titles(image, tmp_path):
    write_image(tmp_path / "a.png", image)
    grid = ResultGrid([image, tmp_path / "a.png"], ["0.9 <b>", "0.5"], columns=2, thumb=20)
    assert grid.titles == ["0.9 <b>", "0.5"]
    assert [decode(thumb).shape for thumb in grid.thumbs] == [(24, 40, 3)] * 2
    assert grid.frames == [None, None]
    assert grid.chosen is None


def test_showing_others_forgets_what_was_chosen(image):
    grid = ResultGrid([image, image])
    grid.chosen = 1
    grid.show([image], ["one"], frames=["#009E73"])
    assert (grid.titles, grid.frames, grid.chosen) == (["one"], ["#009E73"], None)
    assert len(grid.thumbs) == 1


def test_outlines_follow_masks_and_boxes_in_the_objects_colours():
    white = np.full((60, 100, 3), 255, np.uint8)
    mask = np.zeros((60, 100), bool)
    mask[10:50, 10:40] = True
    outlines = [mask, np.array([50.0, 10, 90, 50])]
    (thumb,) = ResultGrid([white], outlines=[outlines], thumb=50).thumbs  # as large as the image
    pixels = decode(thumb).astype(int)
    for x, color in ((10, object_color(0)), (50, object_color(1))):
        edge = 255 * np.array(to_rgb(color))
        assert np.abs(pixels[30, x + 1] - edge).max() < 40
        assert pixels[30, x + 15].min() > 245  # in its own colour
    assert pixels[5].min() > 245
    assert pixels[30, 95].min() > 245


def test_outlines_shrink_with_their_image():
    white = np.full((600, 1000, 3), 255, np.uint8)
    (thumb,) = ResultGrid([white], outlines=[np.array([500, 0, 1000, 600])], thumb=50).thumbs
    pixels = decode(thumb)
    assert pixels.shape == (60, 100, 3)
    assert pixels[30, 44].min() > 245
    assert pixels[30, 51].min() < 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"titles": ["a", "b"]}, "1 images need as many titles, not 2"),
        ({"frames": []}, "1 images need as many frames, not 0"),
        ({"outlines": [None, None]}, "1 images need as many outlines, not 2"),
        ({"outlines": [np.zeros((3, 4), bool)]}, r"\(30, 50\) bool mask .* not \(3, 4\) bool"),
        ({"outlines": [np.zeros((30, 50))]}, r"bool mask .* not \(30, 50\) float64"),
    ],
)
def test_results_that_do_not_fit_are_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        ResultGrid([image], **options)


def test_a_grid_without_results_is_empty():
    assert ResultGrid().thumbs == []
