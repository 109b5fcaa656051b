"""Widgets for JupyterLab and Voila: pick regions, look through results and judge them, rate."""

from regionlab.viz.grid import FeedbackGrid, LiveResults, ResultGrid
from regionlab.viz.picker import RegionPicker
from regionlab.viz.rating import RatingSheet

__all__ = ["FeedbackGrid", "LiveResults", "RatingSheet", "RegionPicker", "ResultGrid"]
