"""RatingSheet: a widget to rate what methods found, blind, one page after the other."""

from collections.abc import Callable, Iterable
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from regionlab.studies.ratings import SCALE, RatingError, RatingStore, Task
from regionlab.viz.grid import PIXEL_RATIO, make_thumb, mark_region
from regionlab.viz.images import as_image, encode_image

HERE = Path(__file__).parent

Image = np.ndarray | Path | str  # (H, W, 3) uint8 RGB, or its file


class RatingSheet(anywidget.AnyWidget):
    """A rater's sheet: a query, what one method found for it, and five keys.

    1 to 5 rate, S skips, Backspace goes back to the answer before. Each answer is stored before the
    next page is shown; a rater who comes back goes on where they stopped. Nothing that the browser
    gets tells the method: its name is not sent, and answers are plain images in order.

    Parameters
    ----------
    book
        Where ratings are written.
    show_query
        Name of a query to its image and to what is outlined in it: a mask (H, W) bool, a box
        (4,) XYXY in pixels, or None.
    show_answers
        Names of a query and a method to the images found, best first.
    question
        What is asked of the rater.
    rater
        Who rates; asked for in the widget if empty.
    thumb
        Longer side of an image, in CSS pixels.

    Attributes
    ----------
    task
        What is rated at present; None before the start and after the end.
    """

    _esm = HERE / "rating.js"
    _css = HERE / "rating.css"

    question = traitlets.Unicode().tag(sync=True)
    scale = traitlets.List(traitlets.Unicode()).tag(sync=True)
    thumb = traitlets.Int(150, min=16).tag(sync=True)
    rater = traitlets.Unicode().tag(sync=True)
    query = traitlets.Bytes().tag(sync=True)
    answers = traitlets.List(traitlets.Bytes()).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    given = traitlets.Int(0).tag(sync=True)  # the rating to be changed, after going back
    error = traitlets.Unicode().tag(sync=True)
    event = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        book: RatingStore,
        show_query: Callable[[str], tuple[Image, np.ndarray | None]],
        show_answers: Callable[[str, str], Iterable[Image]],
        *,
        question: str = "How well do these pictures answer the query?",
        rater: str = "",
        thumb: int = 150,
    ):
        super().__init__(question=question, scale=list(SCALE.values()), thumb=thumb)
        self._book, self._show_query, self._show_answers = book, show_query, show_answers
        self.total = len(book.study)
        self.task: Task | None = None
        self.observe(self._answer, "event")
        if rater:
            self.start(rater)

    def start(self, rater: str) -> None:
        """Begin a rater's sheet, or go on with it; RatingError if the name is empty."""
        rater = rater.strip()
        self._book.enrol(rater)
        self.rater = rater
        self._turn_to(self._book.find_next(rater))

    def rate(self, rating: int | None) -> None:
        """Write down a rating of the page that is shown, None to skip it, and go on.

        RatingError if no page is shown, ValueError if the rating is none.
        """
        if self.task is None:
            raise RatingError("there is nothing to rate: start, or all is rated")
        self._book.rate(self.rater, self.task.position, rating)
        self._turn_to(self._book.find_next(self.rater))

    def go_back(self) -> None:
        """Show the page before again; its answer stands until there is another."""
        if self.position > 1:
            self._turn_to(self._book.get_sheet(self.rater)[self.position - 2])

    def _turn_to(self, task: Task | None) -> None:
        self.task = task
        if task is None:
            page = {"position": self.total + 1, "query": b"", "answers": [], "given": 0}
        else:
            given = self._book.get_answers(self.rater).get(task.position)
            page = {"position": task.position, "given": given or 0, **self._draw(task)}
        with self.hold_sync():
            for name, value in page.items():
                setattr(self, name, value)

    def _draw(self, task: Task) -> dict[str, bytes | list[bytes]]:
        picture, outline = self._show_query(task.query)
        answers = self._show_answers(task.query, task.method)
        side = PIXEL_RATIO * self.thumb
        query = mark_region(as_image(picture), outline, side)
        return {
            "query": encode_image(query, max(query.shape)),
            "answers": [make_thumb(as_image(answer), None, side) for answer in answers],
        }

    def _answer(self, change: dict) -> None:
        event, acts = change["new"], {"rate", "skip", "back"}
        try:
            if event.get("act") == "start":
                self.start(event["rater"])
            # A key pressed twice in haste is meant for a page that is gone.
            elif event.get("act") in acts and event["position"] == self.position:
                self._act(event)
            self.error = ""
        except (ValueError, OSError) as e:
            self.error = str(e)

    def _act(self, event: dict) -> None:
        if event["act"] == "back":
            self.go_back()
        else:
            self.rate(event["rating"] if event["act"] == "rate" else None)
