"""Drawing: what stands on the axes, not how it looks."""

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from regionlab.data.images import write_image
from regionlab.runs.record import RUN_VARIABLE, current
from regionlab.util import paths
from regionlab.viz import charts as figures


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    yield current()
    plt.close("all")


def test_a_figure_is_drawn_in_the_style_of_reports_and_saved(record):
    with figures.figure("bars", 1, 2, size=(4, 2), caption="Two.", record=record) as axes:
        with plt.style.context("regionlab.paper"):
            style = dict(plt.rcParams)
        assert dict(plt.rcParams) == style
        axes[0].plot([0, 1])
    saved = json.loads((record.results_folder / "bars.json").read_text())
    assert saved["figure"]["caption"] == "Two."
    assert Image.open(record.results_folder / "bars.png").size == (800, 400)


def test_a_figure_whose_drawing_fails_is_not_saved(record):
    with pytest.raises(KeyError), figures.figure("bars", size=(4, 2), caption="", record=record):
        raise KeyError
    assert not record.results_folder.exists()


def test_figure_is_the_one_that_plain_lines_make(record):
    groups = {"own": np.array([0.1, 0.2, 0.9]), "other": np.linspace(0, 1, 50)}
    with plt.style.context("regionlab.paper"):
        fig, axes = plt.subplots(1, 2, figsize=(5, 2), sharex=True)
        figures.draw_histograms(axes[0], groups, label="cosine", bins=10)
    plain = figures.save_figure(fig, "plain", record)
    with figures.figure("made", 1, 2, size=(5, 2), caption="What is shown.", sharex=True) as axes:
        figures.draw_histograms(axes[0], groups, label="cosine", bins=10)
    made = plain.with_name("made.png")
    assert made.read_bytes() == plain.read_bytes()
    beside = json.loads(made.with_suffix(".json").read_text(encoding="utf-8"))
    assert beside["figure"]["caption"] == beside["figure"]["alt"] == "What is shown."
    assert len(plt.get_fignums()) == 2  # for the notebook to show


def test_figure_keeps_the_notes_of_its_record(record):
    record.add(collection="toybox")
    with figures.figure("noted", size=(2, 1), caption="Nothing."):
        pass
    assert record.read()["extras"] == {"collection": "toybox"}


@pytest.fixture
def axes():
    fig, axes = plt.subplots(1, 4)
    yield axes
    plt.close(fig)


@pytest.fixture
def ranking(tmp_path):
    for row in range(3):
        write_image(tmp_path / f"{row}.png", np.full((4, 6, 3), 80 * row, np.uint8))
    index = SimpleNamespace(path=lambda row: tmp_path / f"{row}.png")
    rows, scores = np.array([[2, 0, -1]]), np.array([[0.75, 0.5, -np.inf]])
    return SimpleNamespace(index=index, rows=rows, scores=scores)


def test_ranking_shows_results_in_order_with_scores(axes, ranking):
    figures.draw_ranking(axes, ranking)
    assert [ax.get_title() for ax in axes] == ["0.750", "0.500", "", ""]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in axes[:2]] == [160, 0]
    assert not axes[2].images and not axes[2].axison


def test_ranking_frames_relevant_results_green_and_others_red(axes, ranking):
    figures.draw_ranking(axes, ranking, relevant=np.array([False, True, True]))
    colors = [to_hex(ax.spines["left"].get_edgecolor()).upper() for ax in axes[:2]]
    assert colors == [figures.RIGHT, figures.WRONG]
    assert axes[0].spines["left"].get_visible()


def test_gallery_leaves_spare_axes_empty(axes):
    figures.draw_gallery(axes, [np.zeros((2, 2, 3), np.uint8)], ["one"])
    assert [ax.axison for ax in axes] == [True, False, False, False]


def test_histograms_have_area_one_and_say_how_many(axes):
    groups = {"own": np.array([0.1, 0.2, 0.9]), "other": np.linspace(0, 1, 50)}
    ax = figures.draw_histograms(axes[0], groups, label="cosine", bins=10)
    areas = [sum(bar.get_width() * bar.get_height() for bar in bars) for bars in ax.containers]
    assert areas == pytest.approx([1, 1])
    assert [text.get_text() for text in ax.get_legend().texts] == ["own (n=3)", "other (n=50)"]


def test_measures_stand_at_their_values_with_their_intervals(axes):
    groups = {"text": {"mAP": {"value": 0.5, "ci95": [0.4, 0.7]}}, "image": {}}
    ax = figures.draw_measures(axes[0], groups)
    assert ax.containers[1][0].get_height() == 0.5
    low, high = ax.collections[0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.4, 0.7))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["mAP"]


def test_times_stand_beside_the_published_range_where_there_is_one(axes):
    ax = figures.draw_times(axes[0], {"embed": 3.0, "read": 1.0}, {"embed": (85, 120)})
    lines = [
        (line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines
    ]
    assert lines == [
        ("published", [85, 120], [0, 0]), ("here", [3.0], [0]), ("here", [1.0], [1]),
    ]  # fmt: skip
    assert [text.get_text() for text in ax.get_legend().texts] == ["published", "here"]


def test_bars_lie_at_their_values_with_their_intervals_the_first_on_top(axes):
    measures = {"erase": {"value": 0.5, "ci95": [0.4, 0.7]},
                "crop": {"value": 0.25, "ci95": [0.25, 0.25]}}  # fmt: skip
    ax = figures.draw_bars(axes[0], measures, label="mAP")
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.25]
    ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert ends == [pytest.approx([0.4, 0.7]), pytest.approx([0.25, 0.25])]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["erase", "crop"]
    assert ax.yaxis_inverted()
    assert (ax.get_xlim()[0], ax.get_xlabel()) == (0, "mAP")


def test_without_measures_there_are_no_bars(axes):
    assert not figures.draw_bars(axes[0], {}, label="mAP").patches


def test_similarities_are_a_map_with_names_on_both_sides(axes):
    similarities = np.array([[0.75, 0.25, -0.5], [0.25, 0.5, 0.0]])
    ax = figures.draw_similarities(axes[0], similarities, ["a", "b"], ["x", "y", "z"])
    (picture,) = ax.images
    np.testing.assert_array_equal(picture.get_array(), similarities)
    assert picture.get_clim() == (-0.5, 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y", "z"]
    assert picture.colorbar.ax.get_ylabel() == "cosine similarity"
