"""Widgets for JupyterLab and Voila: pick regions, look through results and judge them, rate."""

from regionlab.widgets.feedback import FeedbackGrid
from regionlab.widgets.grid import ResultGrid
from regionlab.widgets.live import LiveResults
from regionlab.widgets.picker import RegionPicker
from regionlab.widgets.rating import RatingSheet

__all__ = ["FeedbackGrid", "LiveResults", "RatingSheet", "RegionPicker", "ResultGrid"]
