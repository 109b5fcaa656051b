"""Figures for reports: draw on a given Axes, save with the record of the run."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regionlab.images import read_image
from regionlab.lettering import show_entry, show_lines, show_names, write_plainly
from regionlab.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from regionlab.search import Ranking


def save_figure(
    fig: "Figure", name: str, record: Record, *, caption: str = "", alt: str = ""
) -> Path:
    """Save a figure as PNG with its record beside it, and return the PNG's path.

    The same figure gives the same bytes with the same matplotlib. Create figures inside
    `plt.style.context("regionlab.paper")`: a style set at this point comes too late.

    Parameters
    ----------
    fig
        The figure; it stays open, so that a notebook still shows it.
    name
        File name without ending.
    record
        The record of the run, from `records.current()`.
    caption
        What the figure shows, for the gallery.
    alt
        The figure in words, for who cannot see it; the caption by default.

    Raises
    ------
    ValueError
        If the name holds anything but letters, digits and `. _ -`.
    """
    path = record.path_for(name, ".png")
    order = len({*path.parent.glob("*.png")} - {path})
    partial = path.with_suffix(".tmp")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        write_plainly(fig).savefig(partial, format="png", dpi=200, metadata={"Software": None})
    os.replace(partial, path)
    alt = alt or caption or name.replace("_", " ")
    figure = {"file": path.name, "caption": caption, "alt": alt, "order": order}
    record.save_beside(f"{path.stem}.json", {"figure": figure})
    return path


RIGHT, WRONG = "#009E73", "#D55E00"  # Okabe and Ito's green and vermilion


def draw_image(ax: "Axes", image: np.ndarray, title: str = "", *, color: str | None = None):
    """Show an (H, W, 3) uint8 RGB image, with a title above and a frame in `color`."""
    ax.imshow(image)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=color is not None, color=color, linewidth=2.5)
    ax.set_title(show_lines(title))
    return write_plainly(ax)


def draw_gallery(axes: Iterable["Axes"], images: Iterable[np.ndarray], titles: Iterable[str]):
    """Show one image an Axes, in order; Axes left over stay empty."""
    axes = list(axes)
    for ax in axes:
        ax.set_axis_off()
    for ax, image, title in zip(axes, images, titles, strict=False):
        ax.set_axis_on()
        draw_image(ax, image, title)
    return axes


def draw_ranking(
    axes: Sequence["Axes"],
    ranking: "Ranking",
    query: int = 0,
    *,
    relevant: np.ndarray | None = None,
):
    """Show a query's results, best first, with their scores (S2, figures 6 to 8).

    Parameters
    ----------
    axes
        One a result.
    ranking
        From `search`.
    query
        Which of its queries.
    relevant
        (n,) bool over the rows of the index: framed green where true, else red. None draws
        no frames.
    """
    rows = [row for row in ranking.rows[query] if row >= 0]
    draw_gallery(axes, [], [])
    for ax, row, score in zip(axes, rows, ranking.scores[query], strict=False):
        color = None if relevant is None else (RIGHT if relevant[row] else WRONG)
        ax.set_axis_on()
        draw_image(ax, read_image(ranking.index.path(row)), f"{score:.3f}", color=color)
    return axes


def draw_histograms(ax: "Axes", groups: Mapping[str, np.ndarray], *, label: str, bins: int = 60):
    """Draw the distributions of several groups over one another, each of area one."""
    edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins)
    for name, values in groups.items():
        ax.hist(
            values, edges, density=True, alpha=0.6, label=f"{show_entry(name)} (n={len(values):,})"
        )
    ax.set_xlabel(label)
    ax.set_ylabel("density")
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper left")
    return write_plainly(ax)


def draw_measures(ax: "Axes", groups: Mapping[str, Mapping[str, Mapping]]):
    """Draw measured quantities as bars with their 95 % intervals, groups side by side.

    Parameters
    ----------
    groups
        Group, then metric, then `{"value", "ci95"}`, from `bootstrap.summarise`; bars without
        "ci95" have no whisker.
    """
    metrics = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(groups)
    for number, (group, measures) in enumerate(groups.items()):
        places = [metrics.index(name) + (number + 0.5) * width - 0.4 for name in measures]
        values = [m["value"] for m in measures.values()]
        bars = {"yerr": find_reach(measures.values()), "error_kw": {"elinewidth": 0.9}}
        ax.bar(places, values, width, label=show_entry(group), **bars)
    ax.set_xticks(range(len(metrics)), show_names(metrics))
    ax.set_ylim(0, 1)
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)


def find_reach(measures: Iterable[Mapping]) -> np.ndarray:
    """Return how far each interval reaches below and above its value, (2, n); NaN for none."""
    reach = [np.subtract(m.get("ci95", (np.nan, np.nan)), m["value"]) for m in measures]
    return np.abs(reach).T


def draw_bars(ax: "Axes", measures: Mapping[str, Mapping], *, label: str):
    """Draw one measured quantity of several methods as lying bars with 95 % intervals.

    Parameters
    ----------
    measures
        Method to `{"value", "ci95"}`, from `bootstrap.summarise`.
    label
        Of the quantity.
    """
    values = [measure["value"] for measure in measures.values()]
    reach = find_reach(measures.values())
    places = np.arange(len(measures))
    ax.barh(places, values, 0.7, xerr=reach if len(values) else None, error_kw={"elinewidth": 0.9})
    ax.set_yticks(places, show_names(measures))
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.grid(axis="x")
    ax.set_xlabel(label)
    return write_plainly(ax)


def draw_similarities(
    ax: "Axes", similarities: np.ndarray, rows: Sequence[str], columns: Sequence[str]
):
    """Draw an (r, c) matrix of cosine similarities as a heat map (S0, figure 26)."""
    picture = ax.imshow(similarities, cmap="viridis", vmax=1)
    ax.set_xticks(range(len(columns)), show_names(columns), rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), show_names(rows))
    ax.figure.colorbar(picture, ax=ax, label="cosine similarity")
    return write_plainly(ax)


def draw_times(ax: "Axes", here: Mapping[str, float], published: Mapping[str, tuple[float, float]]):
    """Draw how long each step takes here, beside the range that a paper gives for it.

    Parameters
    ----------
    here
        Step to milliseconds.
    published
        Step to the lowest and highest milliseconds published; steps may be missing.
    """
    steps = list(here)
    for place, step in enumerate(steps):
        if step in published:
            ax.plot(published[step], [place, place], color="0.75", linewidth=6, label="published")
        ax.plot(here[step], place, "o", color="C0", label="here")
        ax.annotate(f"{here[step]:.3g} ms", (here[step], place), (0, 6), textcoords="offset points")
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(1, 1))
    ax.set_yticks(range(len(steps)), show_names(steps))
    ax.set_ylim(len(steps) - 0.5, -0.7)
    ax.set_xscale("log")
    ax.set_xlabel("milliseconds, logarithmic")
    return write_plainly(ax)
