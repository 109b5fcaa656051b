"""Import packages that only some of regionlab needs, and name the extra that brings them."""

from importlib import import_module
from types import ModuleType

from regionlab.util.errors import RegionlabError


class MissingExtraError(RegionlabError, ImportError):
    """A package of an optional extra is not installed."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Return a module of an extra, such as `import_extra("chromadb", "chroma")`.

    Raises
    ------
    MissingExtraError
        If it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs {e.name}, which the extra {extra!r} brings: "
            f"pip install 'regionlab[{extra}]'"
        ) from e
