"""LiveResults: what a picker's selection brings back, found anew at every change."""

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, VBox

from regionlab.feedback import FeedbackSession
from regionlab.widgets.feedback import FeedbackGrid
from regionlab.widgets.picker import RegionPicker

if TYPE_CHECKING:
    from regionlab.masking import Region


class LiveResults(VBox):
    """A `FeedbackGrid` below a picker, that follows what is drawn.

    Parameters
    ----------
    picker
        Whose regions are searched with.
    ask
        From the regions that were found, one at least, to the search with them.
    options
        Of `FeedbackGrid`: `k`, `new_only`, `columns` and `thumb`.

    Attributes
    ----------
    grid
        The results shown now, with the judgements made on them; None without a region.
    """

    def __init__(
        self,
        picker: RegionPicker,
        ask: "Callable[[list[Region]], FeedbackSession]",
        **options: Any,
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
