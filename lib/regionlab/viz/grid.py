"""Widgets of results: a grid of thumbnails, one with feedback, and one that follows a picker."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets
from ipywidgets import HTML, VBox
from scipy.ndimage import binary_dilation

from regionlab.data.images import make_thumbnail
from regionlab.search.feedback import FeedbackSession
from regionlab.viz.images import MATCH_TINT, as_image, encode_image, object_color, tint_mask
from regionlab.viz.picker import RegionPicker

if TYPE_CHECKING:
    from regionlab.models.segmenter import Region
    from regionlab.search.regions import RegionRanking


HERE = Path(__file__).parent
PIXEL_RATIO = 2  # thumbnails stay sharp on dense screens
MATCH_LINE = 3  # pixels of a thumbnail that an outline is wide
LINE = 2  # pixels of each of the two lines around a marked part
LIGHT, DARK = 255, 0  # without a hue, which would lean people towards it

Outline = np.ndarray  # (H, W) bool mask, or (4,) box XYXY in pixels of its image


def mark_region(image: np.ndarray, outline: Outline | None, side: int) -> np.ndarray:
    """Shrink an image and draw a double line around a part of it, light within dark.

    The lines lie outside of the part; where it reaches the image's edge, a white margin gives them
    room. ValueError as of `__fit_outline`.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB, as is the result.
    outline
        A mask (H, W) bool, a box (4,) XYXY in pixels, or None for nothing.
    side
        Pixels that the longer side has at most, without the margin.
    """
    small = make_thumbnail(image, side)
    if outline is None:
        return small
    mask = _fit_outline(np.asarray(outline), image.shape[:2], small.shape[:2])
    margin = 2 * LINE
    room = np.pad(mask, margin)
    marked = np.pad(small, ((margin, margin), (margin, margin), (0, 0)), constant_values=LIGHT)
    square = np.ones((3, 3), bool)
    near = binary_dilation(room, square, iterations=LINE)
    marked[binary_dilation(near, square, iterations=LINE) & ~near] = DARK
    marked[near & ~room] = LIGHT
    reaches_edge = mask[[0, -1]].any() or mask[:, [0, -1]].any()
    return marked if reaches_edge else marked[margin:-margin, margin:-margin]


def _fit_outline(outline: Outline, size: tuple[int, int], small: tuple[int, int]) -> np.ndarray:
    """Return a mask or box of an image of `size` as a mask of its thumbnail of `small` (h, w).

    ValueError if it is neither a (H, W) bool mask like its image nor a (4,) box.
    """
    height, width = size
    # Image coordinates of the centres of the thumbnail's pixels.
    y = (np.arange(small[0]) + 0.5) * height / small[0]
    x = (np.arange(small[1]) + 0.5) * width / small[1]
    if outline.shape == (4,):
        x0, y0, x1, y1 = outline
        return ((y0 <= y) & (y < y1))[:, None] & ((x0 <= x) & (x < x1))
    if outline.shape != size or outline.dtype != bool:
        raise ValueError(
            f"an outline must be a ({height}, {width}) bool mask like its image, or a (4,) box, "
            f"not {outline.shape} {outline.dtype}"
        )
    return outline[y.astype(int)][:, x.astype(int)]


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
        Number of the result clicked last, from 0; None before.
    event
        What was clicked last of the thumbs and their buttons: `act`, one of "judge" (with the
        result's `number` and `liked`: True, False, or None for taken back), "undo" and "rank";
        `count` makes each another. See `FeedbackGrid`.
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
        columns: int = 5,
        thumb: int = 160,
        **shown: Any,
    ):
        super().__init__(columns=columns, thumb=thumb)
        self.show(images, titles, **shown)

    @classmethod
    def from_ranking(cls, ranking: "RegionRanking", query: int = 0, **options) -> "ResultGrid":
        """Show a query's results, from `search_regions`, with scores and matched regions."""
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
            For each image what matched: a mask (H, W) bool, a box (4,) XYXY in pixels, several in
            the colours of the picker's objects (None keeps a colour unused), or None.
        frames
            For each image a colour such as "#009E73", or None.
        liked
            For each image whether it is liked, None if not said; without it there are no thumbs.

        Raises
        ------
        ImageError
            If an image cannot be read.
        ValueError
            If the numbers of values differ, or as of `mark_region`.
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
            mask = _fit_outline(np.asarray(outline), image.shape[:2], small.shape[:2])
            layer = tint_mask(mask, object_color(number), tint=MATCH_TINT, line=MATCH_LINE)
            small = _lay_over(small, layer)
    return encode_image(small, side)


def _lay_over(image: np.ndarray, layer: np.ndarray) -> np.ndarray:
    opacity = layer[..., 3:] / 255
    return np.uint8((1 - opacity) * image + opacity * layer[..., :3] + 0.5)


class FeedbackGrid(ResultGrid):
    """The results of a query, to be liked or disliked; "rank again" puts them in a new order.

    Thumbs and undo change the judgements alone, so that nothing moves under the mouse. Titles
    tell the score and, where it is another, the rank before any feedback.

    Parameters
    ----------
    session
        Whose results; the attribute holds all judgements made so far.
    k
        How many results.
    new_only
        Show only images that are not judged yet.
    options
        `columns` and `thumb`.
    """

    def __init__(
        self, session: FeedbackSession, *, k: int = 10, new_only: bool = False, **options: int
    ):
        self.session, self.k, self.new_only = session, k, new_only
        super().__init__(**options)
        self.rank()
        self.observe(self._answer, "event")

    def rank(self) -> None:
        """Show the results in the order that the judgements so far have made."""
        ranking = self.session.rank(self.k, new_only=self.new_only)
        self._ids = ranking.table()["image_id"].tolist()
        images, outlines = self.read_ranking(ranking)
        self.show(images, self._title(ranking), outlines=outlines, liked=[None] * len(images))
        self._show_judgements()

    def _title(self, ranking) -> list[str]:
        before = {row: i for i, row in enumerate(self.session.before.rows[0].tolist(), 1)}
        places = [before[row] for row in ranking.rows[0].tolist()]
        now = enumerate(zip(ranking.scores[0], places, strict=True), 1)
        return [
            f"{score:.3f}" + (f" (was {place})" if place != number else "")
            for number, (score, place) in now
        ]

    def _answer(self, change: dict) -> None:
        event = change["new"]
        if event.get("act") == "judge":
            image_id = self._ids[event["number"]]
            self.session = self.session.judge(image_id, event["liked"])
        elif event.get("act") == "undo" and self.session.history:
            self.session = self.session.undo()
        elif event.get("act") == "rank":
            self.rank()
        self._show_judgements()

    def _show_judgements(self) -> None:
        said = self.session.judgements
        liked = sum(said.values())
        with self.hold_sync():
            self.liked = [said.get(image_id) for image_id in self._ids]
            self.can_undo = bool(self.session.history)
            self.status = f"{liked} liked, {len(said) - liked} disliked" if said else ""


class LiveResults(VBox):
    """A `FeedbackGrid` below a picker, that follows what is drawn.

    Parameters
    ----------
    picker
        Whose regions are searched with.
    ask
        From the regions that were found, one at least, to the search with them.
    options
        Of `FeedbackGrid`.

    Attributes
    ----------
    grid
        The results shown now, with the judgements made on them; None without a region.
    """

    def __init__(
        self, picker: RegionPicker, ask: "Callable[[list[Region]], FeedbackSession]", **options: Any
    ):
        super().__init__()
        self.grid: FeedbackGrid | None = None
        self._picker, self._ask_for, self._options = picker, ask, options
        self.search()
        picker.observe(self._follow, "objects")  # comes after the picker's own, which finds masks

    def _follow(self, _change: object) -> None:
        try:
            self.search()
        except Exception as e:  # raised here, it would only reach a log that nobody reads
            self.grid, self.children = None, [HTML(escape(f"error: {e}"))]

    def search(self) -> None:
        """Search with the regions that the picker holds now."""
        regions = self._picker.regions
        self.grid = FeedbackGrid(self._ask_for(regions), **self._options) if regions else None
        self.children = [self.grid or HTML("No region yet: draw a box, click or type words.")]
