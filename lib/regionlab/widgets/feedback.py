"""FeedbackGrid: results with thumbs, and a ranking that learns from them."""

from regionlab.feedback import FeedbackSession
from regionlab.widgets.grid import ResultGrid


class FeedbackGrid(ResultGrid):
    """The results of a query, to be liked or disliked; "rank again" puts them in a new order.

    Thumbs and undo change the judgements alone, so that nothing moves under the mouse. Titles
    tell the score and, where it is another, the rank before any feedback.

    Parameters
    ----------
    session
        Whose results; may hold judgements already.
    k
        How many results.
    new_only
        Show only images that are not judged yet.
    options
        `columns` and `thumb`.

    Attributes
    ----------
    session
        With all judgements made so far.
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
