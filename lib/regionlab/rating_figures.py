"""Figures about ratings: means with intervals, and how often each rating was given."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from regionlab.lettering import show_names, write_plainly
from regionlab.ratings import SCALE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PRINTED = "#D55E00"


def draw_ratings(
    ax: "Axes", measured: Mapping[str, Mapping], *, printed: Mapping[str, float] | None = None
):
    """Draw each method's mean rating with its 95 % interval, beside what a paper prints.

    Parameters
    ----------
    measured
        From `rating_study.summarise_ratings`.
    printed
        Method to the mean that a paper prints; methods may be missing.
    """
    means = [one["value"] for one in measured.values()]
    reach = np.abs([np.subtract(one["ci95"], one["value"]) for one in measured.values()]).T
    places = np.arange(len(measured))
    ax.errorbar(means, places, xerr=reach, fmt="o", color="C0", label="here")
    for place, method in zip(places, measured, strict=True):
        if printed and method in printed:
            ax.plot(printed[method], place, "D", color=PRINTED, label="printed")
    ax.set_yticks(places, show_names(measured))
    ax.invert_yaxis()
    ax.set_xlim(0.9, 5.1)
    ax.set_xticks(list(SCALE), [f"{rating}\n{word}" for rating, word in SCALE.items()])
    ax.set_xlabel("mean rating")
    ax.grid(axis="x")
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)


def draw_counts(ax: "Axes", counts: "pd.DataFrame"):
    """Draw the share of each rating by method as stacked bars.

    Parameters
    ----------
    counts
        From `rating_study.count_ratings`.
    """
    shares = counts.div(counts.sum(axis=1), axis=0)
    colors = matplotlib.colormaps["cividis"](np.linspace(0.05, 0.95, len(SCALE)))
    places, left = np.arange(len(shares)), np.zeros(len(shares))
    for color, (rating, word) in zip(colors, SCALE.items(), strict=True):
        ax.barh(places, shares[rating], 0.7, left, color=color, label=f"{rating} {word}")
        left += shares[rating].to_numpy()
    ax.set_yticks(places, show_names(shares.index))
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of ratings")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)
