"""regionlab: region-based image retrieval with CLIP and SAM, in notebooks.

The names here are what a notebook needs; each is imported when it is first used, so that
`import regionlab` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "RegionlabError": "util.errors",
    "add_regions": "index.build",
    "build_index": "index.build",
    "create_composer": "compose.composers",
    "evaluate": "metrics.ranking",
    "find_regions": "regions.grounding",
    "load_collection": "data.registry",
    "load_encoder": "models.registry",
    "load_segmenter": "models.registry",
    "measure_ranking": "metrics.ranking",
    "open_index": "index.build",
    "search_image": "search.images",
    "search_indexed": "search.images",
    "search_regions": "search.regions",
    "search_text": "search.images",
    "search_vectors": "search.images",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
