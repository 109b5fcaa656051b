"""Widgets for JupyterLab and Voila: pick regions of a picture, look through results."""

from regionlab.widgets.grid import ResultGrid
from regionlab.widgets.picker import RegionPicker

__all__ = ["RegionPicker", "ResultGrid"]
