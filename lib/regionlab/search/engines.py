"""Engines: nearest neighbours by cosine, behind one face, with the same answers.

| name | finds | keeps |
|---|---|---|
| `exact` | all | nothing: it reads the vectors |
| `faiss:<index_factory string>` | `Flat` all, others nearly all | a file, mapped |
| `chroma` | nearly all | a folder |
| `chroma:<host>:<port>` | nearly all | a collection on a server (`chroma run --path FOLDER`) |

Options follow a question mark: `faiss:IVF256,SQ8?nprobe=16&k_factor=4`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regionlab.search.autotune import Recommendation, recommend
from regionlab.search.engine import ROUNDING, Engine, EngineError, EngineName, parse_name
from regionlab.search.exact import ExactEngine

__all__ = [
    "ROUNDING",
    "Engine",
    "EngineError",
    "ExactEngine",
    "Recommendation",
    "build_engine",
    "open_engine",
    "recommend",
]


def build_engine(
    name: str,
    vectors: np.ndarray,
    *,
    folder: Path | str | None = None,
    identity: str = "",
    table: pd.DataFrame | None = None,
    ids: Sequence[str] | None = None,
    fresh: bool = False,
) -> Engine:
    """Return an engine over vectors: the one that is kept in a folder, else a new one.

    Parameters
    ----------
    name
        `exact`, `faiss:<index_factory string>`, `chroma` or `chroma:<host>:<port>`, each with
        `?option=value&...` if wanted.
    vectors
        (n, d) float32, one unit vector a row; may be memory-mapped, and is read in chunks.
    folder
        Where engines are kept; each has a folder in it by its name. Not for `exact` and servers.
    identity
        What stands for the contents of the vectors, such as the id of an index. If it is empty,
        all of them are read to know whether a kept engine is theirs.
    table
        n rows, what `where` can ask about.
    ids
        n different names of the rows, by which Chroma keeps them; row numbers if not given.
    fresh
        Build a FAISS index again, whatever is kept.

    Raises
    ------
    ValueError
        If the name or an option is unknown, FAISS refuses the factory string, or there are
        fewer vectors than centroids.
    EngineError
        If a folder cannot be written, a server does not answer, or a collection is of another
        width, space or gallery.
    """
    parsed = parse_name(name)
    if parsed.kind == "chroma":
        return _open_chroma(parsed, vectors, folder, identity, table, ids, build=True)
    if parsed.kind == "faiss" and not fresh:
        try:
            return open_engine(name, vectors, folder=folder, identity=identity, table=table)
        except EngineError:  # none yet, of older vectors, or damaged
            pass
    if parsed.kind == "faiss":
        from regionlab.search.faiss import build_faiss

        return build_faiss(parsed, vectors, folder=folder, identity=identity, table=table)
    return open_engine(name, vectors, table=table)


def open_engine(
    name: str,
    vectors: np.ndarray,
    *,
    folder: Path | str | None = None,
    identity: str = "",
    table: pd.DataFrame | None = None,
    ids: Sequence[str] | None = None,
) -> Engine:
    """Open an engine that was built; parameters as for `build_engine`.

    Raises
    ------
    EngineError
        If there is none, it is of other vectors, damaged or incomplete.
    ValueError
        If the name or an option is unknown.
    """
    parsed = parse_name(name)
    if parsed.kind == "chroma":
        return _open_chroma(parsed, vectors, folder, identity, table, ids, build=False)
    if parsed.kind == "faiss":
        from regionlab.search.faiss import open_faiss

        return open_faiss(parsed, vectors, folder=folder, identity=identity, table=table)
    parsed.check_options(())
    return ExactEngine(vectors, table=table)


def _open_chroma(
    parsed: EngineName, vectors, folder, identity, table, ids, *, build: bool
) -> Engine:
    from regionlab.search.chroma import open_chroma

    return open_chroma(
        parsed, vectors, folder=folder, identity=identity, table=table, ids=ids, build=build
    )
