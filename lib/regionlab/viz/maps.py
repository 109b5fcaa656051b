"""Draw maps of vectors and clouds of words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.util.lettering import show_entry, show_lines, show_name, write_plainly
from regionlab.viz.charts import draw_image
from regionlab.viz.images import OBJECT_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLORS = (*OBJECT_COLORS, "#000000")
MARKERS = "o^sD"
MOST = len(MARKERS) * len(COLORS)  # labels that can be told apart
INKS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7")  # dark enough for small words
LONGEST_WORD = 30  # characters: longer ones find no room
CLOUD = {"width": 600, "height": 300, "scale": 3}  # laid out small, drawn three times as large


def draw_map(ax: "Axes", positions: np.ndarray, labels: Sequence[str], *, title: str = ""):
    """Draw images as points, (n, 2) positions, with a colour and a marker a label (S2, figure 9).

    The most frequent labels have a look of their own, and their own colour if all are names of
    colours; the rest, and images without a label (""), are grey.
    """
    labels = np.asarray(labels)
    named = pd.Series(labels[labels != ""]).value_counts(sort=True).index[:MOST]
    rest = ~np.isin(labels, named)
    size = float(np.clip(4000 / len(labels), 2, 18))
    ax.scatter(*positions[rest].T, s=size, color="0.8", linewidths=0)
    for label, style in _choose_looks(sorted(named)).items():
        ax.scatter(*positions[labels == label].T, s=size, label=show_entry(label), **style)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color="0.8")
    ax.set_title(show_lines(title))
    return write_plainly(ax)


def _choose_looks(labels: Sequence[str]) -> dict[str, dict]:
    from matplotlib.colors import CSS4_COLORS

    if set(labels) <= CSS4_COLORS.keys():
        edge = {"edgecolors": "0.5", "linewidths": 0.3}  # white has to be seen too
        return {label: {"color": label, **edge} for label in labels}
    looks = [(color, marker) for marker in MARKERS for color in COLORS]
    return {
        label: {"color": color, "marker": marker, "linewidths": 0}
        for label, (color, marker) in zip(labels, looks, strict=False)
    }


def draw_word_cloud(ax: "Axes", counts: Mapping[str, int], *, seed: int, most: int = 100):
    """Draw words in sizes that follow their counts (S2, figure 5); ValueError if there are none.

    `seed` is of places and colours, `most` how many words at most.
    """
    from wordcloud import WordCloud

    if not counts:
        raise ValueError("there are no words to draw")
    words: dict[str, int] = {}
    for word, count in counts.items():
        shown = show_name(word, LONGEST_WORD)
        words[shown] = words.get(shown, 0) + count
    cloud = WordCloud(
        **CLOUD, max_words=most, background_color="white", random_state=seed,
        color_func=lambda *_, random_state, **__: random_state.choice(INKS),
    )  # fmt: skip
    draw_image(ax, cloud.generate_from_frequencies(words).to_array())
    return ax
