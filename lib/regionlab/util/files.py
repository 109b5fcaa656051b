"""Write JSON and text files in one step, so that nothing is ever half written, and hash files."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal


def to_json(value: Any, where: str = "") -> Any:
    """Return plain JSON values for numbers, text, arrays, paths and what nests them.

    Raises
    ------
    ValueError
        If a value is NaN, infinite or of another type; the message names its key.
    """
    if isinstance(value, Mapping):
        return {str(k): to_json(v, f"{where}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if type(value).__module__ == "numpy":
        return to_json(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: leave it out, or say why in words")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"{where} is a {type(value).__name__}, which JSON cannot hold")


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step, so that a killed run never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step; what is no Unicode, as in file names, is escaped."""
    with atomic_write(path, errors="backslashreplace") as file:
        file.write(text)


@contextmanager
def atomic_write(
    path: Path, mode: Literal["w", "wb"] = "w", *, errors: str | None = None
) -> Iterator[IO[Any]]:
    """Open a file to write that takes its place at `path` in one step, or not at all.

    Text is UTF-8. A killed run leaves at most a hidden file beside it, and an error none.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(partial, mode, encoding=encoding, errors=errors) as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
