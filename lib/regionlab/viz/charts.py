"""Charts and image panels on matplotlib Axes, and `figure`, which makes and saves one."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd

from regionlab.data.images import read_image
from regionlab.runs.record import Record, current
from regionlab.studies.claims.table import (
    CONSISTENT,
    DIFFERENT,
    IMPOSSIBLE,
    PAPERS,
    UNKNOWN,
    VERDICTS,
)
from regionlab.studies.ratings import SCALE
from regionlab.util.files import atomic_write
from regionlab.util.lettering import show_entry, show_lines, show_name, show_names, write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from regionlab.search.images import Ranking


RIGHT, WRONG = "#009E73", "#D55E00"  # Okabe and Ito's green and vermilion
MARKER_AREAS = 20, 260  # areas of the smallest and largest marker, in square points
ROUND_STYLES = {"feedback": "o-", "none": "o:", "frozen": "o-", "gain": "o-"}
SHIFT = 0.08  # of a round, so that intervals do not cover each other
VERDICT_COLORS = {CONSISTENT: RIGHT, DIFFERENT: "#E69F00", IMPOSSIBLE: WRONG, UNKNOWN: "0.75"}
NARROW = 0.03  # share of a bar that holds no label


def save_figure(
    fig: "Figure", name: str, record: Record, *, caption: str = "", alt: str = ""
) -> Path:
    """Save a figure as PNG with its record beside it, and return the PNG's path.

    The same figure gives the same bytes with the same matplotlib. Create figures inside
    `plt.style.context("regionlab.paper")`: a style set at this point comes too late.

    Parameters
    ----------
    name
        File name without ending, of letters, digits and `. _ -`; else ValueError.
    caption, alt
        What the figure shows, for the gallery, and in words for those who cannot see it.
    """
    path = record.path_for(name, ".png")
    order = len({*path.parent.glob("*.png")} - {path})
    with warnings.catch_warnings(), atomic_write(path, "wb") as file:
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        write_plainly(fig).savefig(file, format="png", dpi=200, metadata={"Software": None})
    alt = alt or caption or name.replace("_", " ")
    figure = {"file": path.name, "caption": caption, "alt": alt, "order": order}
    record.save_beside(f"{path.stem}.json", {"figure": figure})
    return path


@contextmanager
def figure(
    name: str,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float],
    caption: str,
    record: Record | None = None,
    **options: Any,
) -> Iterator["Axes | np.ndarray"]:
    """Draw a figure for reports: `with figure("recall", size=(7, 2.6), caption=...) as ax:`.

    It has the style "regionlab.paper" and is saved by `save_figure` when the block ends; it stays
    open, so that a notebook shows it.

    Parameters
    ----------
    rows, columns, options
        As for `plt.subplots`: one Axes, or an array of them.
    size
        Width and height in inches.
    record
        Of the run; None for the current one.
    """
    import matplotlib.pyplot as plt

    with plt.style.context("regionlab.paper"):
        fig, axes = plt.subplots(rows, columns, figsize=size, **options)
        yield axes
    save_figure(fig, name, record or current(fresh=False), caption=caption)


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
    """Show a query's results, one an Axes, best first, with their scores (S2, figures 6 to 8).

    `relevant`, (n,) bool over the rows of the index, frames in green where true, else in red.
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

    `groups`: group to metric to `{"value", "ci95"}`, from `mean_with_ci`; no "ci95", no whisker.
    """
    metrics = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(groups)
    for number, (group, measures) in enumerate(groups.items()):
        places = [metrics.index(name) + (number + 0.5) * width - 0.4 for name in measures]
        values = [m["value"] for m in measures.values()]
        bars = {"yerr": _find_reach(measures.values()), "error_kw": {"elinewidth": 0.9}}
        ax.bar(places, values, width, label=show_entry(group), **bars)
    ax.set_xticks(range(len(metrics)), show_names(metrics))
    ax.set_ylim(0, 1)
    ax.grid(axis="y")
    return _finish(ax)


def _finish(ax: "Axes") -> "Axes":
    """Put the legend beside the axes, each label once, and let no text be markup."""
    entries = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(entries.values(), entries, loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)


def _find_reach(measures: Iterable[Mapping]) -> np.ndarray:
    """Return how far each interval reaches below and above its value, (2, n); NaN for none."""
    reach = [np.subtract(m.get("ci95", (np.nan, np.nan)), m["value"]) for m in measures]
    return np.abs(reach).T


def draw_bars(ax: "Axes", measures: Mapping[str, Mapping], *, label: str):
    """Draw one quantity of several methods as lying bars with 95 % intervals.

    `measures`: method to `{"value", "ci95"}`, from `mean_with_ci`; `label` names the quantity.
    """
    values = [measure["value"] for measure in measures.values()]
    reach = _find_reach(measures.values())
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
    heat = ax.imshow(similarities, cmap="viridis", vmax=1)
    ax.set_xticks(range(len(columns)), show_names(columns), rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), show_names(rows))
    ax.figure.colorbar(heat, ax=ax, label="cosine similarity")
    return write_plainly(ax)


def draw_times(ax: "Axes", here: Mapping[str, float], published: Mapping[str, tuple[float, float]]):
    """Draw how long each step takes here, in milliseconds, beside the range that a paper gives.

    `published`: step to its lowest and highest milliseconds; steps may be missing.
    """
    steps = list(here)
    for place, step in enumerate(steps):
        if step in published:
            ax.plot(published[step], [place, place], color="0.75", linewidth=6, label="published")
        ax.plot(here[step], place, "o", color="C0", label="here")
        ax.annotate(f"{here[step]:.3g} ms", (here[step], place), (0, 6), textcoords="offset points")
    ax.set_yticks(range(len(steps)), show_names(steps))
    ax.set_ylim(len(steps) - 0.5, -0.7)
    ax.set_xscale("log")
    ax.set_xlabel("milliseconds, logarithmic")
    return _finish(ax)


def draw_train_and_test(
    ax: "Axes",
    train: Mapping[str, float],
    test: Mapping[str, Mapping],
    *,
    published: Mapping[str, float] | None = None,
):
    """Draw the accuracy of each probe on both sides; the line between them is what it memorised.

    `train` and `published` (S3's, may lack some): probe to accuracy; `test`: probe to
    `{"value", "ci95"}`, from `summarise_confusion`.
    """
    places = np.arange(len(test))
    learned = [train[name] for name in test]
    values = [measure["value"] for measure in test.values()]
    reach = _find_reach(test.values())
    ax.hlines(places, values, learned, color="0.75", linewidth=2.5)
    ax.plot(learned, places, "o", color="C0", markerfacecolor="white", label="train")
    ax.errorbar(values, places, xerr=reach, fmt="o", color="C0", label="test", elinewidth=0.9)
    if published:
        known = [name for name in test if name in published]
        spots = [list(test).index(name) for name in known]
        ax.plot([published[n] for n in known], spots, "x", color=WRONG, label="S3, its data")
    ax.set_yticks(places, show_names(test))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.02)
    ax.set_xlabel("accuracy")
    ax.grid(axis="x")
    return _finish(ax)


def draw_gammas(
    ax: "Axes",
    gammas: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    marks: Mapping[str, float],
):
    """Draw accuracy over the gamma of the kernel, (g,) positive, with the values that have a name.

    `curves`: name to (g,) accuracies; `marks`: name to gamma, such as "auto".
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
    return _finish(ax)


def draw_confusion(ax: "Axes", confusion: pd.DataFrame):
    """Draw the shares of each true class (rows) that were labelled as each class (columns)."""
    counts = confusion.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heat = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
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
    ax.figure.colorbar(heat, ax=ax, label="share of the true class", shrink=0.7)
    return write_plainly(ax)


def draw_tradeoff(
    ax: "Axes", table: pd.DataFrame, *, chosen: str | None = None, target: float | None = None
):
    """Draw recall over milliseconds a query: a curve each index, markers as large as its memory.

    Settings that are slower than another of the same index without finding more are left out.

    Parameters
    ----------
    table
        Of a `Recommendation`; engines that were not measured are left out.
    chosen
        Engine to mark by a ring.
    target
        Recall that was asked for, drawn as a line.
    """
    measured = table[table["recall"].notna()]
    for factory, curve in measured.groupby("factory", sort=False):
        curve = _take_front(curve)
        label = f"{show_entry(factory)}, {describe_bytes(curve['bytes'].iloc[0])}"
        (line,) = ax.plot(curve["milliseconds"], curve["recall"], linewidth=1)
        areas = _scale_areas(curve["bytes"], measured["bytes"])
        ax.scatter(
            curve["milliseconds"], curve["recall"], areas,
            color=line.get_color(), alpha=0.8, linewidth=0, label=label,
        )  # fmt: skip
    for _, row in measured[measured["engine"] == chosen].iterrows():
        ax.plot(row["milliseconds"], row["recall"], "o", ms=17, mfc="none", mec="black", mew=0.8)
    if target is not None:
        ax.axhline(target, color="0.5", linewidth=0.8, linestyle="--")
    ax.set_xscale("log")
    ax.set(xlabel="milliseconds a query, logarithmic", ylabel="recall, worst kind of query")
    ax.grid(axis="y")
    return _finish(ax)


def _take_front(curve: pd.DataFrame) -> pd.DataFrame:
    """Return the settings that find more than every faster one."""
    curve = curve.sort_values("milliseconds")
    return curve[curve["recall"] > curve["recall"].cummax().shift(fill_value=-1)]


def describe_bytes(count: float) -> str:
    """Return a number of bytes in words, such as "1.5 GB" (10^9)."""
    power = 0
    while count >= 999.5 and power < 5:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _scale_areas(sizes: pd.Series, all_sizes: pd.Series) -> np.ndarray:
    """Return marker areas in proportion to bytes, none too small to see."""
    small, large = MARKER_AREAS
    return np.maximum(small, large * sizes.to_numpy() / all_sizes.max())


def draw_rounds(
    ax: "Axes",
    rounds_of: Mapping[str, Sequence[Mapping[str, Mapping]]],
    measures: Sequence[str],
    *,
    label: str,
):
    """Draw measures before feedback and after each round as lines with 95 % intervals.

    `rounds_of`: method, a colour each, to what `summarise_rounds` returns; `measures`: which of its
    measures, of which "none" is drawn dotted; `label` names the quantity.
    """
    for number, (method, rounds) in enumerate(rounds_of.items()):
        for measure in measures:
            known = [i for i, after in enumerate(rounds) if measure in after]
            found = [rounds[i][measure] for i in known]
            values = [one["value"] for one in found]
            reach = _find_reach(found)
            places = np.array(known) + SHIFT * (number - (len(rounds_of) - 1) / 2)
            name = show_entry(method) + (", no feedback" if measure == "none" else "")
            ax.errorbar(
                places, values, reach, fmt=ROUND_STYLES[measure], color=f"C{number}",
                label=name, markersize=3, linewidth=1, elinewidth=0.8,
            )  # fmt: skip
    ax.set_xticks(range(max(map(len, rounds_of.values()))))
    ax.set_xlabel("rounds of judgements")
    ax.set_ylabel(label)
    ax.grid(axis="y")
    return write_plainly(ax)


def draw_ratings(
    ax: "Axes", measured: Mapping[str, Mapping], *, printed: Mapping[str, float] | None = None
):
    """Draw each method's mean rating with its 95 % interval, beside what a paper prints.

    `measured`: from `summarise_ratings`; `printed`: method to mean, methods may be missing.
    """
    means = [one["value"] for one in measured.values()]
    reach = _find_reach(measured.values())
    places = np.arange(len(measured))
    ax.errorbar(means, places, xerr=reach, fmt="o", color="C0", label="here")
    for place, method in zip(places, measured, strict=True):
        if printed and method in printed:
            ax.plot(printed[method], place, "D", color=WRONG, label="printed")
    ax.set_yticks(places, show_names(measured))
    ax.invert_yaxis()
    ax.set_xlim(0.9, 5.1)
    ax.set_xticks(list(SCALE), [f"{rating}\n{word}" for rating, word in SCALE.items()])
    ax.set_xlabel("mean rating")
    ax.grid(axis="x")
    return _finish(ax)


def draw_counts(ax: "Axes", counts: "pd.DataFrame"):
    """Draw the share of each rating by method, from `count_ratings`, as stacked bars."""
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
    return _finish(ax)


def draw_verdicts(ax: "Axes", audited: pd.DataFrame):
    """Draw which share of each paper's numbers, from `audit`, got which verdict, as stacked bars.

    The counts stand in the bars; where a part is too narrow, behind the bar.
    """
    papers = audited.index.get_level_values("paper")
    counts = pd.crosstab(papers, audited["verdict"].to_numpy())
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    places, left = np.arange(len(counts)), np.zeros(len(counts))
    for verdict, share in counts.div(counts.sum(axis=1), axis=0).items():
        bars = ax.barh(places, share, 0.7, left=left, label=verdict, color=VERDICT_COLORS[verdict])
        wide = [n if part > NARROW else "" for n, part in zip(counts[verdict], share, strict=True)]
        ax.bar_label(bars, wide, label_type="center", fontsize=7)
        left += share.to_numpy()
    for place, (_, row) in zip(places, counts.iterrows(), strict=True):
        narrow = row[(row > 0) & (row / row.sum() <= NARROW)]
        text = ", ".join(f"{verdict} {count}" for verdict, count in narrow.items())
        ax.annotate(text, (1, place), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_yticks(places, [f"{PAPERS[short]} ({short})" for short in counts.index])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the printed numbers; counts in the bars")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=7, columnspacing=1)
    return write_plainly(ax)


def draw_dumbbells(ax: "Axes", measured: pd.DataFrame):
    """Draw the paper's and the measured value of each claim, joined by a line.

    `measured`: rows of `measure` of one unit; with the 95 % interval where there is one.
    """
    places = np.arange(len(measured))
    ends = measured[["paper_value", "measured"]].to_numpy()
    ax.hlines(places, ends.min(axis=1), ends.max(axis=1), color="0.8", linewidth=1.5)
    ax.hlines(places, measured["low"], measured["high"], color="C0", linewidth=2.5, alpha=0.5)
    ax.plot(ends[:, 0], places, "o", color="0.35", fillstyle="none", label="paper")
    ax.plot(ends[:, 1], places, "o", color="C0", label="here")
    names = measured.index.droplevel("paper")
    ax.set_yticks(places, [", ".join(parts) for parts in names], fontsize=6.5)
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.grid(axis="x")
    return _finish(ax)
