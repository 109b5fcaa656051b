"""Draw composed retrieval: what was asked, what came back, and which changes are understood."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.composed_data import ComposedFeatures
from regionlab.composed_evaluation import rank_gallery
from regionlab.figures import RIGHT, draw_gallery, draw_image
from regionlab.images import read_image
from regionlab.lettering import show_name, show_names, write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_TEXT = 240  # letters
LINE = 22  # letters a line of a sentence under a picture


def draw_composed(
    axes: "Sequence[Axes]", part: ComposedFeatures, composed: np.ndarray, query: int
) -> "Sequence[Axes]":
    """Draw a reference with its words, and the first images found, the target framed in green.

    Parameters
    ----------
    axes
        The first takes the reference, the others a result each; the reference is left out.
    part
        Triplets and features.
    composed
        (q, d) float32 unit vectors of all its queries.
    query
        Which one is drawn.
    """
    triplets = part.triplets
    row = triplets.queries.iloc[query]
    own = triplets.reference_rows[query : query + 1]
    rows, scores = rank_gallery(
        composed[query : query + 1], part.gallery, k=len(axes) - 1, exclude=own
    )
    draw_image(axes[0], read_image(triplets.files[row["reference"]]))
    said = "\n".join(textwrap.wrap(show_name(triplets.texts()[query], LONGEST_TEXT), LINE))
    axes[0].set_xlabel(said, fontsize="small")
    write_plainly(axes[0])
    draw_gallery(axes[1:], [], [])
    for ax, found, score in zip(axes[1:], rows[0], scores[0], strict=False):
        color = RIGHT if found == triplets.target_rows[query] else None
        ax.set_axis_on()
        draw_image(ax, read_image(triplets.files[triplets.gallery[found]]), f"{score:.2f}",
                   color=color)  # fmt: skip
    return axes


def draw_shares(ax: "Axes", shares: pd.DataFrame, *, label: str) -> "Axes":
    """Draw a table of shares in [0, 1] as a heat map with its numbers in percent."""
    picture = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shares.shape):
        value = shares.iloc[row, column]
        color = "white" if value > 0.6 else "black"
        ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=color)
    ax.set_xticks(range(shares.shape[1]), show_names(shares.columns))
    ax.set_yticks(range(shares.shape[0]), show_names(shares.index))
    write_plainly(ax.figure.colorbar(picture, ax=ax, label=label).ax)
    return write_plainly(ax)
