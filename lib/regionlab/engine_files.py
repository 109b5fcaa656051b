"""The folder of an engine: its manifest, whose vectors it holds, and how it comes into place."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from regionlab.engine_base import EngineError

SCHEMA = 1
MANIFEST = "engine.json"


def fingerprint_vectors(vectors: np.ndarray, identity: str = "") -> str:
    """Hash whose vectors these are, so that an engine of others is known.

    Parameters
    ----------
    vectors
        (n, d) float32; may be memory-mapped.
    identity
        What stands for their contents, such as the id of an index: then a thousand rows are
        read. All are read if it is empty.
    """
    digest = hashlib.sha256(f"{vectors.shape} {identity}".encode())
    step = max(len(vectors) // 1000, 1) if identity else 1
    for start in range(0, len(vectors), 1000 * step):
        rows = vectors[start : start + 1000 * step : step]
        digest.update(np.ascontiguousarray(rows, np.float32).tobytes())
    return digest.hexdigest()[:16]


def find_place(folder: Path | str | None, base: str) -> Path:
    """Return the folder of one engine in the folder of all; the same base, the same place.

    Raises
    ------
    ValueError
        If there is no folder.
    """
    if folder is None:
        raise ValueError(f"{base} is kept on disk: name a folder for it")
    readable = re.sub(r"[^A-Za-z0-9_,.-]+", "-", base)[:60]
    return Path(folder).expanduser() / f"{readable}.{hashlib.sha256(base.encode()).hexdigest()[:6]}"


@contextmanager
def open_site(place: Path) -> Iterator[Path]:
    """Make a folder beside its place, which it takes in one move when all has gone well.

    Raises
    ------
    EngineError
        If the folder cannot be written, the disk is full, or another process is building the
        same engine; what was there before stays.
    """
    site = place.with_name(f".{place.name}.building")
    try:
        site.mkdir(parents=True, exist_ok=True)
        with FileLock(site / "lock", timeout=0, fallback_to_soft=False):
            try:
                shutil.rmtree(site / "new", ignore_errors=True)
                (site / "new").mkdir()
                yield site / "new"
                _swap(site / "new", place, site / "old")
            finally:
                shutil.rmtree(site, ignore_errors=True)
    except Timeout as e:
        raise EngineError(f"another process is building {place}: wait until it is done") from e
    except OSError as e:
        raise EngineError(
            f"the engine cannot be written to {place}: {e.strerror or e}. What was there is not "
            "lost: make room, let it be written to, or name another folder"
        ) from e


def _swap(new: Path, place: Path, old: Path) -> None:
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    new.rename(place)


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write what an engine is into its folder."""
    text = json.dumps({"schema": SCHEMA, **facts}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(place: Path, name: str, fingerprint: str) -> dict[str, Any]:
    """Read what an engine is.

    Raises
    ------
    EngineError
        If there is none, it is damaged, of another version, or of other vectors.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        schema, written = manifest["schema"], manifest["fingerprint"]
    except (FileNotFoundError, NotADirectoryError) as e:
        raise EngineError(f"no engine {name} at {place}: build it") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EngineError(f"the engine at {place} is damaged ({e!r}): build it again") from e
    if schema != SCHEMA:
        raise EngineError(
            f"the engine at {place} has schema {schema}, not {SCHEMA}: build it again"
        )
    if written != fingerprint:
        raise EngineError(f"the engine at {place} is of other vectors: build it again")
    return manifest
