"""Draw what probes read: train against test, the width of the kernel, what is confused."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.figures import find_reach
from regionlab.lettering import show_entry, show_name, show_names, write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = "#D55E00"  # Okabe and Ito's vermilion


def draw_train_and_test(
    ax: "Axes",
    train: Mapping[str, float],
    test: Mapping[str, Mapping],
    *,
    published: Mapping[str, float] | None = None,
):
    """Draw the accuracy of each probe on both sides; the line between them is what it memorised.

    Parameters
    ----------
    train
        Probe to accuracy.
    test
        Probe to `{"value", "ci95"}`, from `summarise_confusion`.
    published
        Probe to the accuracy that a paper gives; probes may be missing.
    """
    places = np.arange(len(test))
    learned = [train[name] for name in test]
    values = [measure["value"] for measure in test.values()]
    reach = find_reach(test.values())
    ax.hlines(places, values, learned, color="0.75", linewidth=2.5)
    ax.plot(learned, places, "o", color="C0", markerfacecolor="white", label="train")
    ax.errorbar(values, places, xerr=reach, fmt="o", color="C0", label="test", elinewidth=0.9)
    if published:
        known = [name for name in test if name in published]
        spots = [list(test).index(name) for name in known]
        ax.plot([published[n] for n in known], spots, "x", color=PAPER, label="S3, its data")
    ax.set_yticks(places, show_names(test))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.02)
    ax.set_xlabel("accuracy")
    ax.grid(axis="x")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)


def draw_gammas(
    ax: "Axes",
    gammas: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    marks: Mapping[str, float],
):
    """Draw accuracy over the gamma of the kernel, with the values that have a name.

    Parameters
    ----------
    gammas
        (g,) positive.
    curves
        Name to (g,) accuracies.
    marks
        Name to gamma, such as "auto".
    """
    for name, values in curves.items():
        ax.plot(gammas, values, "o-", label=show_entry(name))
    for name, gamma in marks.items():
        ax.axvline(gamma, color="0.5", linewidth=0.8, linestyle="--")
        ax.annotate(
            show_name(name), (gamma, 1), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", color="0.35",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set(xlabel="γ, logarithmic", ylabel="accuracy", ylim=(0, 1.02))
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)


def draw_confusion(ax: "Axes", confusion: pd.DataFrame):
    """Draw the shares of each true class (rows) that were labelled as each class (columns)."""
    counts = confusion.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(len(confusion)), show_names(confusion.columns), rotation=90)
    ax.set_yticks(range(len(confusion)), show_names(confusion.index))
    if len(confusion) > 12:
        ax.tick_params(labelsize=6)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        size = 8 if len(confusion) <= 12 else 5
        ax.text(
            column, row, counts[row, column], ha="center", va="center", color=color, fontsize=size
        )
    ax.set(xlabel="labelled as", ylabel="true class")
    ax.figure.colorbar(picture, ax=ax, label="share of the true class", shrink=0.7)
    return write_plainly(ax)
