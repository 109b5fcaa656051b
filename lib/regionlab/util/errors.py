"""Errors that regionlab raises on purpose: of values, of missing packages, of memory."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from numbers import Integral
from types import ModuleType


class RegionlabError(Exception):
    """What a user can set right: the message names the value and what is allowed.

    The command line tells errors of this kind in one sentence; any other exception is a bug and
    shows its traceback.
    """


class InputError(RegionlabError, ValueError):
    """A value that was given cannot be used."""


class MissingFileError(RegionlabError, FileNotFoundError):
    """A file or folder that was named is not there."""


class NotAFolderError(RegionlabError, NotADirectoryError):
    """A folder was named, and a file is there."""


# Values


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise InputError if a value is not among the known ones."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def check_count(name: str, value: int) -> None:
    """Raise InputError if a value is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")


# Packages that only an extra brings


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


# Memory: what NumPy, PIL, torch and CUDA say each in its own way

# Of RuntimeErrors: torch on a processor, on Windows, on GPUs, and C++ beneath it.
SAYINGS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "alloc_failed",
    "bad_alloc",
    "cannot allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, of the machine or of the GPU, was not enough."""
    if isinstance(error, RuntimeError):
        return any(saying in str(error).lower() for saying in SAYINGS)
    return isinstance(error, MemoryError)


@contextmanager
def named_memory_error(what: str) -> Iterator[None]:
    """Turn what says out of memory into a MemoryError that names what was too large.

    Raises
    ------
    MemoryError
        "out of memory: <what> (<the first line of what was said>)".
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e) or str(e).startswith("out of memory: "):
            raise
        said = (str(e).strip() or type(e).__name__).splitlines()[0]
        traceback.clear_frames(e.__traceback__)  # they hold what did not fit
        raise MemoryError(f"out of memory: {what} ({said})") from None


def name_image(shape: tuple[int, ...]) -> str:
    """Return the size of an (H, W, ...) image in words, for an error."""
    height, width = shape[:2]
    megapixels = height * width / 1e6
    return f"a picture of {width} x {height} pixels, {megapixels:.3g} megapixels"
