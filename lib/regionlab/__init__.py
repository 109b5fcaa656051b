"""regionlab: region-based image retrieval with CLIP and SAM, in notebooks.

The names here are what a notebook needs; each is imported when it is first used, so that
`import regionlab` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "add_regions": "index_regions",
    "build_index": "index",
    "create_composer": "compose",
    "evaluate": "evaluation",
    "find_regions": "words",
    "load_collection": "datasets",
    "load_encoder": "encoders",
    "load_segmenter": "segmenters",
    "measure_ranking": "evaluation",
    "open_index": "index",
    "search_image": "search",
    "search_indexed": "search",
    "search_regions": "region_search",
    "search_text": "search",
    "search_vectors": "search",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
