"""ResultGrid: pictures found, with scores and outlines of what matched."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import numpy as np
import traitlets

from regionlab.images import make_thumbnail
from regionlab.region_figures import MATCH_TINT, object_color, tint_mask
from regionlab.widgets.marking import Outline, fit_outline
from regionlab.widgets.pictures import as_image, encode_image

if TYPE_CHECKING:
    from regionlab.region_search import RegionRanking

HERE = Path(__file__).parent
PIXEL_RATIO = 2  # thumbnails stay sharp on dense screens
LINE = 3  # pixels of a thumbnail that an outline is wide


class ResultGrid(anywidget.AnyWidget):
    """Results as a grid of thumbnails; a click on one sets `chosen`.

    Parameters
    ----------
    images, titles, outlines, frames, liked
        As for `show`.
    columns
        Thumbnails a row; they shrink where there is little room.
    thumb
        Longer side of a thumbnail, in CSS pixels.

    Attributes
    ----------
    chosen
        Number of the result clicked last, from 0; None before. `grid.observe(callback,
        "chosen")` tells of it.
    event
        What was clicked last of the thumbs and the buttons that come with them: `act`, one of
        "judge" (with the result's `number` and `liked`: True, False, or None for taken back),
        "undo" and "rank"; `count` makes each another. What follows is up to who observes it,
        see `FeedbackGrid`.
    """

    _esm = HERE / "grid.js"
    _css = HERE / "grid.css"

    thumbs = traitlets.List(traitlets.Bytes()).tag(sync=True)
    titles = traitlets.List(traitlets.Unicode()).tag(sync=True)
    frames = traitlets.List(traitlets.Unicode(allow_none=True)).tag(sync=True)
    columns = traitlets.Int(5, min=1).tag(sync=True)
    thumb = traitlets.Int(160, min=16).tag(sync=True)
    chosen = traitlets.Int(None, allow_none=True).tag(sync=True)
    liked = traitlets.List(
        traitlets.Bool(allow_none=True), default_value=None, allow_none=True
    ).tag(sync=True)
    event = traitlets.Dict().tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        images: Iterable[np.ndarray | Path | str] = (),
        titles: Iterable[str] = (),
        *,
        outlines: "Sequence[Outline | Sequence[Outline] | None] | None" = None,
        frames: Sequence[str | None] | None = None,
        liked: Sequence[bool | None] | None = None,
        columns: int = 5,
        thumb: int = 160,
    ):
        super().__init__(columns=columns, thumb=thumb)
        self.show(images, titles, outlines=outlines, frames=frames, liked=liked)

    @classmethod
    def from_ranking(cls, ranking: "RegionRanking", query: int = 0, **options) -> "ResultGrid":
        """Show a query's results with their scores and the regions that matched.

        Parameters
        ----------
        ranking
            From `search_regions`.
        query
            Which of its queries.
        options
            `columns` and `thumb`.
        """
        paths, outlines = cls.read_ranking(ranking, query)
        scores = [f"{score:.3f}" for score in ranking.scores[query][: len(paths)]]
        return cls(paths, scores, outlines=outlines, **options)

    @staticmethod
    def read_ranking(ranking: "RegionRanking", query: int = 0) -> tuple[list[Path], list]:
        """Return the images of a query's results and the regions that matched, for `show`."""
        found = [row for row in ranking.rows[query] if row >= 0]
        outlines = [
            [ranking.index.region_mask(region) if region >= 0 else None for region in regions]
            for regions in ranking.regions[query][: len(found)]
        ]
        return [ranking.index.path(row) for row in found], outlines

    def show(
        self,
        images: Iterable[np.ndarray | Path | str],
        titles: Iterable[str] = (),
        *,
        outlines: "Sequence[Outline | Sequence[Outline] | None] | None" = None,
        frames: Sequence[str | None] | None = None,
        liked: Sequence[bool | None] | None = None,
    ) -> None:
        """Show these results in place of the ones before.

        Parameters
        ----------
        images
            Paths, or (H, W, 3) uint8 RGB arrays, best first.
        titles
            Plain text under each, such as its score; none, or one an image.
        outlines
            For each image what matched: a mask (H, W) bool, a box (4,) XYXY in pixels, several
            of them in the colours of the picker's objects (None among them keeps a colour
            unused), or None.
        frames
            For each image a colour such as "#009E73", or None.
        liked
            For each image whether it is liked, or None where that is not said yet: each result
            then has a thumb up and one down. Without it there are no thumbs.

        Raises
        ------
        ImageError
            If an image cannot be read.
        ValueError
            If there are not as many titles, outlines, frames or likes as images, an outline is
            neither mask nor box, or a mask is not of its image's size.
        """
        images = list(images)
        titles = list(titles) or [""] * len(images)
        frames = [None] * len(images) if frames is None else list(frames)
        outlines = [None] * len(images) if outlines is None else list(outlines)
        given = {"titles": titles, "frames": frames, "outlines": outlines, "liked": liked}
        for name, values in given.items():
            if values is not None and len(values) != len(images):
                raise ValueError(f"{len(images)} images need as many {name}, not {len(values)}")
        side = PIXEL_RATIO * self.thumb
        pairs = zip(images, outlines, strict=True)
        thumbs = [make_thumb(as_image(image), outline, side) for image, outline in pairs]
        with self.hold_sync():
            self.thumbs, self.titles, self.frames, self.chosen = thumbs, titles, frames, None
            self.liked = None if liked is None else list(liked)


def make_thumb(image: np.ndarray, outlines: "Outline | Sequence | None", side: int) -> bytes:
    """Return a JPEG of the image with its outlines, no side above `side` pixels.

    What lies within an outline is seen in its own colours, as people judge them.
    """
    single = outlines is None or (isinstance(outlines, np.ndarray) and outlines.ndim < 3)
    small = make_thumbnail(image, side)
    for number, outline in enumerate([outlines] if single else outlines):
        if outline is not None:
            mask = fit_outline(np.asarray(outline), image.shape[:2], small.shape[:2])
            layer = tint_mask(mask, object_color(number), tint=MATCH_TINT, line=LINE)
            small = _lay_over(small, layer)
    return encode_image(small, side)


def _lay_over(image: np.ndarray, layer: np.ndarray) -> np.ndarray:
    opacity = layer[..., 3:] / 255
    return np.uint8((1 - opacity) * image + opacity * layer[..., :3] + 0.5)
