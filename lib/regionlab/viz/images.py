"""Draw images with prompts, masks and results on Axes, and encode them for a browser."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_erosion

from regionlab.compose.benchmark import ComposedFeatures
from regionlab.compose.protocols import rank_gallery
from regionlab.data.images import JPEG_QUALITY, make_thumbnail, read_image
from regionlab.data.prompts import Box, Points, Prompt, Text, Whole, as_prompts
from regionlab.util.lettering import show_name, show_names, write_plainly
from regionlab.viz.charts import RIGHT, WRONG, draw_gallery, draw_image, draw_ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from regionlab.models.segmenter import Region
    from regionlab.search.regions import RegionRanking


# Okabe and Ito's colours without black, which is lost on an image; the picker has the same.
OBJECT_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
TINT = 0.4  # opacity inside a mask
MATCH_TINT = 0.0  # the colours of what was found should be seen
MATCH_LINE = 3  # pixels, as images of results are small
LONGEST_TEXT = 240  # letters
LINE = 22  # letters a line of a sentence under an image
LONG_SIDE_PER_LINE = 250  # a mask's outline grows with the image


def object_color(number: int) -> str:
    """Return the colour of an object, counted from 0; they come round again."""
    return OBJECT_COLORS[number % len(OBJECT_COLORS)]


def tint_mask(
    mask: np.ndarray, color: str, *, tint: float = TINT, line: int | None = None
) -> np.ndarray:
    """Turn a mask, (H, W) bool, into a see-through layer, (H, W, 4) uint8 RGBA, of a `color`.

    `tint` is the opacity inside, in [0, 1]; the solid outline just inside the edge is `line` pixels
    wide, by default the wider the larger the mask.
    """
    line = line or max(1, round(max(mask.shape) / LONG_SIDE_PER_LINE))
    inner = binary_erosion(mask, iterations=line)
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[mask, :3] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    layer[mask, 3] = 255
    layer[inner, 3] = round(255 * tint)
    return layer


def draw_selection(
    ax: "Axes",
    image: np.ndarray,
    prompts: Prompt | Iterable[Prompt],
    regions: "Sequence[Region | None]" = (),
    *,
    labels: Sequence[str] = (),
    title: str = "",
):
    """Show an (H, W, 3) uint8 RGB image with its prompts, an object a colour, as the picker does.

    Parameters
    ----------
    regions
        For each prompt what it became, its mask drawn as a tint; None where there is none.
    labels
        For each prompt a name to write beside it; a text prompt has its words.
    """
    draw_image(ax, image, title)
    for number, prompt in enumerate(as_prompts(prompts)):
        color = object_color(number)
        region = regions[number] if number < len(regions) else None
        if region is not None:
            ax.imshow(tint_mask(region.mask, color))
        _draw_prompt(ax, prompt, color)
        label = labels[number] if number < len(labels) else ""
        if label := f"“{prompt.words}”" if isinstance(prompt, Text) else label:
            _write_label(ax, show_name(label), _find_corner(prompt, region), color)
    return write_plainly(ax)


def draw_matches(
    axes: "Sequence[Axes]",
    ranking: "RegionRanking",
    query: int = 0,
    *,
    relevant: np.ndarray | None = None,
):
    """Draw a query's results as `draw_ranking` does, with the regions that matched."""
    draw_ranking(axes, ranking, query, relevant=relevant)
    for ax, row, matched in zip(axes, ranking.rows[query], ranking.regions[query], strict=False):
        for part, region in enumerate(matched):
            if row >= 0 and region >= 0:
                mask = ranking.index.region_mask(region)
                ax.imshow(tint_mask(mask, object_color(part), tint=MATCH_TINT, line=MATCH_LINE))
    return axes


def draw_search(
    axes: "Sequence[Axes]",
    image: np.ndarray,
    prompts: Prompt | Iterable[Prompt],
    regions: "Sequence[Region | None]",
    ranking: "RegionRanking",
    *,
    relevant: np.ndarray | None = None,
    title: str = "",
):
    """Draw a search from prompt to results: S0's panels, figures 3 to 23, in one line.

    The first Axes takes the image with its prompts and masks, the second the image with the
    background erased (S0, equation 3), the others a result of the first query each.
    """
    from regionlab.models.segmenter import erase_background  # late: it loads SAM

    draw_selection(axes[0], image, prompts, regions, title=title)
    masks = [region.mask for region in regions if region is not None]
    if masks:
        draw_image(axes[1], erase_background(image, np.any(masks, axis=0)), "erased")
    else:
        axes[1].set_axis_off()
    draw_matches(axes[2:], ranking, relevant=relevant)
    return axes


def draw_rivals(
    axes: "Sequence[Axes]",
    image: np.ndarray,
    rivals: Mapping[str, np.ndarray],
    ranks: Mapping[str, int],
    *,
    prompt: Prompt | None = None,
    title: str = "",
):
    """Draw a query and its right and wrong rival on three Axes in the order found (S1, figure 4).

    `rivals` and `ranks` have the image and the rank of "right", framed in green, and of "wrong", in
    red; without a `prompt` the whole image was asked for.
    """
    draw_selection(axes[0], image, prompt or Whole(), title=title)
    for ax, side in zip(axes[1:], sorted(ranks, key=lambda side: ranks[side]), strict=True):
        color = RIGHT if side == "right" else WRONG
        draw_image(ax, rivals[side], f"rank {ranks[side]}", color=color)
    return axes


def _draw_prompt(ax: "Axes", prompt: Prompt, color: str) -> None:
    if isinstance(prompt, Points):
        if prompt.box is not None:
            _draw_box(ax, prompt.box, color)
        for point, label in zip(prompt.xy, prompt.labels, strict=True):
            _draw_point(ax, point, label, color)
    elif isinstance(prompt, Box):
        _draw_box(ax, prompt, color)


def _draw_box(ax: "Axes", box: Box, color: str) -> None:
    # imshow puts the centre of the first pixel at 0; our coordinates start at its edge.
    x, y = np.array([box.x0, box.x1, box.x1, box.x0]), np.array([box.y0, box.y0, box.y1, box.y1])
    for line, width in (("white", 2.8), (color, 1.6)):
        ax.fill(x - 0.5, y - 0.5, fill=False, edgecolor=line, linewidth=width)


def _draw_point(ax: "Axes", point: tuple[float, float], label: int, color: str) -> None:
    x, y = point[0] - 0.5, point[1] - 0.5
    face, edge = (color, "white") if label else ("white", color)
    ax.plot(x, y, "o", color=face, markeredgecolor=edge, markersize=8, markeredgewidth=1.5)
    ax.plot(x, y, "+" if label else "_", color="black", markersize=5, markeredgewidth=1.2)


def _find_corner(prompt: Prompt, region: "Region | None") -> tuple[float, float]:
    """Return where a label goes: the top left of the box, the mask or the image."""
    box = prompt if isinstance(prompt, Box) else getattr(prompt, "box", None)
    if box is None and region is not None:
        box = Box(*region.box)
    return (0, 0) if box is None else (box.x0, box.y0)


def _write_label(ax: "Axes", text: str, corner: tuple[float, float], color: str) -> None:
    style = {"boxstyle": "square,pad=0.2", "facecolor": color, "edgecolor": "none"}
    place = {"xytext": (1.5, -1.5), "textcoords": "offset points", "ha": "left", "va": "top"}
    corner = (corner[0] - 0.5, corner[1] - 0.5)
    ax.annotate(text, corner, fontsize="small", color="black", bbox=style, **place)


def as_image(image: np.ndarray | Path | str) -> np.ndarray:
    """Return an (H, W, 3) uint8 RGB image, read from its file where a path is given."""
    return image if isinstance(image, np.ndarray) else read_image(image)


def encode_image(image: np.ndarray, side: int) -> bytes:
    """Encode an (H, W, 3) uint8 image as JPEG, shrunk so that no side exceeds `side`."""
    # Full colour resolution: small drawings would get smeared edges.
    options = {"quality": JPEG_QUALITY, "subsampling": 0}
    return _encode(make_thumbnail(image, side), "JPEG", **options)


def encode_mask(mask: np.ndarray, color: str, side: int) -> bytes:
    """Encode an (H, W) bool mask as a see-through PNG in `color`, no side above `side`."""
    step = -(-max(mask.shape) // side)
    return _encode(tint_mask(mask[::step, ::step], color), "PNG", compress_level=1)


def _encode(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def draw_composed(
    axes: "Sequence[Axes]", part: ComposedFeatures, composed: np.ndarray, query: int
) -> "Sequence[Axes]":
    """Draw a reference with its words, and the first images found, the target framed in green.

    `composed`: (q, d) float32 unit vectors of all queries of `part`; `query` is the one drawn.
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
    heat = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shares.shape):
        value = shares.iloc[row, column]
        color = "white" if value > 0.6 else "black"
        ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=color)
    ax.set_xticks(range(shares.shape[1]), show_names(shares.columns))
    ax.set_yticks(range(shares.shape[0]), show_names(shares.index))
    write_plainly(ax.figure.colorbar(heat, ax=ax, label=label).ax)
    return write_plainly(ax)
