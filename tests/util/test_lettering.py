"""Names and words of others in figures: drawn as they are, whatever they hold."""

import re
import warnings
from html import unescape
from io import BytesIO
from types import SimpleNamespace

import matplotlib.pyplot as plt
import mistune
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text as Lettering

from regionlab.data.images import write_image
from regionlab.data.prompts import Box, Text
from regionlab.runs.record import Record
from regionlab.studies.ratings import SCALE
from regionlab.util.lettering import (
    LONGEST,
    escape_markdown,
    show_entry,
    show_lines,
    show_name,
    write_plainly,
)
from regionlab.viz import charts as figures
from regionlab.viz.charts import (
    draw_confusion,
    draw_counts,
    draw_gammas,
    draw_ratings,
    draw_rounds,
    draw_tradeoff,
    draw_train_and_test,
)
from regionlab.viz.images import draw_composed, draw_selection, draw_shares
from regionlab.viz.maps import draw_map, draw_word_cloud

HOSTILE = [
    "a $5 and a $10 bill", "cost_$x^$", "$\\frac{$", "\\$x_1$", "_hidden", "__", "50 % & #1", "{0}",
    "%s %d", "a\nb", "a\tb\r", "\ud83d", "bell\x07\0", "\u202etfel", "猫の写真", "💩", "x" * 500,
    "<b>", "$$", "–", "",
]  # fmt: skip
TABLED = [name for name in HOSTILE if name != "\ud83d"]  # pandas refuses half a surrogate pair
PICTURE = np.full((8, 8, 3), 200, np.uint8)
MEASURE = {"value": 0.5, "ci95": [0.4, 0.6], "n": 9}


def measures(names):
    return dict.fromkeys(names, MEASURE)


def draw_all_titles(ax):
    for name in HOSTILE:
        figures.draw_image(ax, PICTURE, name)
    return figures.draw_image(ax, PICTURE, "\n".join(HOSTILE[:10]))


def draw_boxes(ax):
    boxes = [Box(0, 0, 4, 4)] * len(HOSTILE)
    words = [Text(name) for name in HOSTILE if name.strip("\x07\0 \n\t\r")]
    draw_selection(ax, PICTURE, boxes, labels=HOSTILE)
    return draw_selection(ax, PICTURE, words, title="cost_$x^$")


def draw_curves(ax):
    table = pd.DataFrame({"factory": TABLED, "engine": TABLED})
    numbers = {"recall": 0.9, "milliseconds": 1.0, "bytes": 1000}
    return draw_tradeoff(ax, table.assign(**numbers), chosen=HOSTILE[0])


def draw_rated(ax):
    counts = pd.DataFrame(1, index=TABLED, columns=list(SCALE))
    return draw_counts(ax, counts)


SQUARE = pd.DataFrame(np.eye(len(TABLED)), index=TABLED, columns=TABLED)
MANY = np.repeat(TABLED, 3)
DRAWERS = {
    "titles": draw_all_titles,
    "boxes": draw_boxes,
    "histograms": lambda ax: figures.draw_histograms(
        ax, {name: np.arange(5.0) for name in HOSTILE}, label="cost_$x^$"
    ),
    "measures": lambda ax: figures.draw_measures(ax, {n: measures(HOSTILE[:5]) for n in HOSTILE}),
    "bars": lambda ax: figures.draw_bars(ax, measures(HOSTILE), label="cost_$x^$"),
    "similarities": lambda ax: figures.draw_similarities(ax, np.eye(9), HOSTILE[:9], HOSTILE[9:18]),
    "times": lambda ax: figures.draw_times(ax, dict.fromkeys(HOSTILE, 3.0), {"_hidden": (1, 2)}),
    "map": lambda ax: draw_map(ax, np.random.rand(len(MANY), 2), MANY, title="cost_$x^$"),
    "cloud": lambda ax: draw_word_cloud(ax, dict.fromkeys(HOSTILE, 3), seed=0),
    "shares": lambda ax: draw_shares(ax, SQUARE, label="cost_$x^$"),
    "engines": draw_curves,
    "rounds": lambda ax: draw_rounds(
        ax, {name: [{"gain": MEASURE}] * 2 for name in HOSTILE}, ["gain"], label="$^$"
    ),
    "train and test": lambda ax: draw_train_and_test(
        ax, dict.fromkeys(HOSTILE, 0.9), measures(HOSTILE), published={"_hidden": 0.7}
    ),
    "gammas": lambda ax: draw_gammas(
        ax, [0.1, 1.0], {name: [0.1, 0.2] for name in HOSTILE}, {name: 0.5 for name in HOSTILE}
    ),
    "confusion": lambda ax: draw_confusion(ax, SQUARE),
    "means": lambda ax: draw_ratings(ax, measures(HOSTILE), printed={"_hidden": 2.0}),
    "counts": draw_rated,
}  # fmt: skip


def save(fig):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing|Tight layout|constrained_layout")
        fig.savefig(BytesIO(), format="png")
    plt.close(fig)


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


@pytest.mark.parametrize("drawer", DRAWERS)
def test_hostile_names_are_drawn_and_no_mathematics(ax, drawer):
    DRAWERS[drawer](ax)
    save(ax.figure)
    dollars = [t for t in ax.findobj(Lettering) if "$" in t.get_text()]
    ours = [t for t in dollars if r"\mathdefault" in t.get_text()]
    assert not [t.get_text() for t in dollars if t not in ours and t.get_parse_math()]
    assert all(t.get_parse_math() for t in ours)


def test_sentences_of_composed_queries_are_drawn_as_they_are(ax, tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    triplets = SimpleNamespace(
        queries=pd.DataFrame({"reference": [0]}), reference_rows=np.array([0]),
        target_rows=np.array([1]), files=[tmp_path / "a.png"] * 2, gallery=np.array([0, 1]),
        texts=lambda: ["make it cost_$x^$ \ud83d " + "and more " * 100],
    )  # fmt: skip
    part = SimpleNamespace(triplets=triplets, gallery=np.eye(2, dtype=np.float32))
    draw_composed([ax, ax.figure.add_subplot()], part, np.eye(2, dtype=np.float32)[:1], 0)
    save(ax.figure)
    assert ax.get_xlabel().startswith("make it cost_$x^$")


@pytest.mark.parametrize("name", ["_hidden", "__", "_"])
def test_a_legend_shows_names_that_begin_with_an_underscore(ax, name):
    figures.draw_measures(ax, {name: {"hit": MEASURE}, "other": {"hit": MEASURE}})
    (hidden, _) = (text.get_text() for text in ax.get_legend().get_texts())
    assert hidden.replace("\u200b", "") == name


def test_powers_of_ten_stay_mathematics(ax):
    figures.draw_times(ax, {"a": 0.01, "b": 1000.0}, {})
    write_plainly(ax)
    ax.figure.canvas.draw()
    labels = [t for t in ax.get_xticklabels() if t.get_text()]
    assert labels
    assert all(t.get_parse_math() and "10^{" in t.get_text() for t in labels)


def test_what_a_notebook_writes_on_a_figure_is_plain_once_saved(tmp_path):
    record = Record(tmp_path)
    record.update(notebook="01_x", run="01_x")
    fig, ax = plt.subplots()
    ax.set_title("query: cost_$x^$ 猫 \ud83d\x07")
    fig.suptitle("$^$")
    ax.plot([0, 1], label="$^$")
    ax.legend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save_figure(fig, "a", record)
    plt.close(fig)
    assert ax.get_title() == "query: cost_$x^$ 猫 \ufffd "


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a $5 bill", "a $5 bill"),
        ("a\nb\tc\r\n d", "a b c d"),
        ("bell\x07s", "bell s"),
        ("\ud83dx", "\ufffdx"),
        ("\u202eevil\u200f", "evil"),
        ("αβ猫é", "αβ猫é"),
        (7, "7"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * (LONGEST - 1) + "…"),
    ],
)
def test_a_name_becomes_one_line_that_can_be_drawn(name, shown):
    assert show_name(name) == shown


def test_titles_keep_their_lines():
    assert show_lines("a\tb\nc") == "a b\nc"


def test_only_legend_entries_that_would_be_hidden_are_changed():
    assert (show_entry("_a"), show_entry("a_")) == ("\u200b_a", "a_")


MARKDOWN = [
    *HOSTILE, "a|b", "*a*", "**a**", "_a_", "a_b", "__a__", "`a`", "``", "[a](b)", "![a](b)",
    "[a][b]", "[a]: b", "<b>a</b>", "<!-- results:x -->", "a < b > c", "&lt;", "&amp; & x",
    "\\*a\\*", "\\", "a\\|b", "~~a~~", "~a", "$a$ $b$", "$$a$$", "c:\\new", "#1",
    "hit@1 [0.500, 1.000]",
]  # fmt: skip


@pytest.mark.parametrize("text", MARKDOWN)
def test_markdown_shows_the_text_itself(text):
    render = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "math"])
    page = render(f"| {escape_markdown(text)} |\n| --- |\n| {escape_markdown(text)} |\n")
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", page)
    shown = " ".join(show_name(text, 1000).split())
    assert [unescape(cell) for cell in cells] == [shown, shown]


@pytest.mark.parametrize("text", ["hit@1", "a_b.c-d", "0.667 [0.500, 1.000]", "< 0.001", "α ≥ β"])
def test_markdown_of_our_own_numbers_and_names_stays(text):
    assert escape_markdown(text) == text
