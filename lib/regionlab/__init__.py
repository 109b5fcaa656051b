"""Region-based image retrieval with CLIP and SAM: index, search, measure, draw."""

__version__ = "0.1.0"
