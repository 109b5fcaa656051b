"""Figures of the audit: verdicts by paper, the papers' values beside the measured ones."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.claims.table import CONSISTENT, DIFFERENT, IMPOSSIBLE, PAPERS, UNKNOWN, VERDICTS
from regionlab.lettering import write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {CONSISTENT: "#009E73", DIFFERENT: "#E69F00", IMPOSSIBLE: "#D55E00", UNKNOWN: "0.75"}
NARROW = 0.03  # share of a bar that holds no label


def draw_verdicts(ax: "Axes", audited: pd.DataFrame):
    """Draw which share of each paper's numbers got which verdict, as lying stacked bars.

    The counts stand in the bars; where a part is too narrow, behind the bar.

    Parameters
    ----------
    audited
        From `audit`.
    """
    papers = audited.index.get_level_values("paper")
    counts = pd.crosstab(papers, audited["verdict"].to_numpy())
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    places, left = np.arange(len(counts)), np.zeros(len(counts))
    for verdict, share in counts.div(counts.sum(axis=1), axis=0).items():
        bars = ax.barh(places, share, 0.7, left=left, label=verdict, color=COLORS[verdict])
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

    Parameters
    ----------
    measured
        Rows of `measure` that are measured, of one unit; the 95 % interval is drawn where
        there is one. Claims are named by table, row and column.
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
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)
