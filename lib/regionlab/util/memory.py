"""Out of memory: what NumPy, PIL, torch and CUDA say each in its own way, as one `MemoryError`."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

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


def name_picture(shape: tuple[int, ...]) -> str:
    """Return the size of an (H, W, ...) picture in words, for an error."""
    height, width = shape[:2]
    megapixels = height * width / 1e6
    return f"a picture of {width} x {height} pixels, {megapixels:.3g} megapixels"
