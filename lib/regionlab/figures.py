"""Figures for reports: draw on a given Axes, save with the record of the run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from regionlab.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    fig.savefig(partial, format="png", dpi=200, metadata={"Software": None})
    os.replace(partial, path)
    alt = alt or caption or name.replace("_", " ")
    figure = {"file": path.name, "caption": caption, "alt": alt, "order": order}
    record.save_beside(f"{path.stem}.json", {"figure": figure})
    return path
