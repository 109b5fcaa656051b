"""FAISS: any index that an `index_factory` string describes, trained and kept in bounded memory."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.engine_base import (
    SLACK,
    Engine,
    EngineError,
    check_gallery,
    list_not_finite,
    refuse_not_finite,
)
from regionlab.engine_factory import parse_factory
from regionlab.engine_files import (
    find_place,
    fingerprint_vectors,
    open_site,
    read_manifest,
    write_manifest,
)
from regionlab.engine_names import EngineName
from regionlab.progress import progress

if TYPE_CHECKING:
    import faiss

FILE = "index.faiss"
CHUNK = 2**24  # numbers that are added at a time, 64 MiB
TRAINING = 2**28  # numbers that training sees at most, 1 GiB
PER_CENTROID = 64  # vectors that training sees; FAISS warns below 39
ANSWERS = 2**24  # rows asked for at a time, for all queries together


class FaissEngine(Engine):
    """Search an index of FAISS, by inner product (Douze et al., The Faiss library, 2024).

    Options of the name: `nprobe`, the cells of an IVF that are visited; `efSearch`, how widely
    an HNSW graph is searched; `quantizer_efSearch`, the same for the graph of an IVF's cells;
    and `k_factor`, how many candidates a result are compared by better vectors: those of the
    index's refinement, else the gallery's own. By default all are as in FAISS: 1, 16, 16, 1.

    Parameters
    ----------
    name
        `faiss:<index_factory string>?<options>`, taken apart.
    index
        Holds `vectors`, row i as number i.
    vectors, table
        As for `Engine`.
    """

    def __init__(
        self,
        name: EngineName,
        vectors: np.ndarray,
        index: "faiss.Index",
        *,
        bytes: int,
        table: pd.DataFrame | None = None,
    ):
        super().__init__(str(name), vectors, table)
        self.index = index
        self._bytes = bytes
        self.tune(name)

    @property
    def bytes(self) -> int:
        """Size of the index; memory is taken as it is used, the file being mapped."""
        return self._bytes

    def tune(self, name: EngineName) -> None:
        """Search with the options of a name; those it does not have are as in FAISS."""
        import faiss

        values = read_options(name)
        self.name, self._factor = str(name), values.pop("k_factor")
        if parse_factory(name.argument).refine:
            values["k_factor_rf"], self._factor = self._factor, 1
        for parameter, value in values.items():
            faiss.ParameterSpace().set_index_parameter(self.index, parameter, value)

    def _find(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, keep: np.ndarray | None
    ) -> Iterable[np.ndarray]:
        n = len(self.vectors)
        queries = np.ascontiguousarray(queries, np.float32)
        most = min(n, max(k + SLACK, ANSWERS // len(queries)))
        asked = (k + SLACK) * self._factor
        if keep is not None:  # so many that the filter may be expected to leave enough
            asked = int(asked * n / np.count_nonzero(keep))
        while True:
            asked = min(asked, most)
            rows = self.index.search(queries, asked)[1]
            exhausted = rows[:, -1] < 0
            rows[rows == exclude[:, None]] = -1
            if keep is not None:
                rows[(rows >= 0) & ~keep[rows]] = -1
            enough = exhausted | ((rows >= 0).sum(axis=1) >= k)
            if asked == most or enough.all():
                return (np.sort(found[found >= 0]) for found in rows)
            asked *= 4


def read_options(name: EngineName) -> dict[str, int]:
    """Return the options of a search with a name, FAISS's own values where it gives none.

    Raises
    ------
    ValueError
        If the index has no such option, or its value counts nothing.
    """
    known = parse_factory(name.argument).options
    name.check_options(known)
    return {option: name.get_count(option, default) for option, default in known.items()}


# Opening and building


def open_faiss(
    name: EngineName,
    vectors: np.ndarray,
    *,
    folder: Path | str | None,
    identity: str = "",
    table: pd.DataFrame | None = None,
) -> FaissEngine:
    """Open an index that was built from these vectors, as `open_engine` does."""
    check_gallery(vectors, table)
    read_options(name)
    place = find_place(folder, name.base)
    manifest = read_manifest(place, name.base, fingerprint_vectors(vectors, identity))
    index = _read(place / FILE, vectors.shape, manifest.get("bytes"))
    return FaissEngine(name, vectors, index, bytes=manifest["bytes"], table=table)


def _read(file: Path, shape: tuple[int, int], size: int) -> "faiss.Index":
    import faiss

    try:
        if file.stat().st_size != size:
            raise ValueError(f"{file.stat().st_size} bytes, not {size}")
        # Unlike IO_FLAG_MMAP it maps all kinds of index, and searches as fast as from memory.
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        if (index.ntotal, index.d) != shape:
            raise ValueError(f"{index.ntotal} x {index.d} vectors, not {shape[0]} x {shape[1]}")
    except (OSError, RuntimeError, ValueError) as e:
        raise EngineError(f"{file} is damaged ({_reason(e)}): build it again") from e
    return index


def build_faiss(
    name: EngineName,
    vectors: np.ndarray,
    *,
    folder: Path | str | None,
    identity: str = "",
    table: pd.DataFrame | None = None,
    seed: int = 0,
) -> FaissEngine:
    """Train, fill and write an index, and open it memory-mapped, as `build_engine` does.

    Training sees 64 vectors a centroid, drawn over the whole gallery, and at most 1 GiB.
    """
    check_gallery(vectors, table)
    read_options(name)
    place = find_place(folder, name.base)
    with open_site(place) as site:
        started = time.perf_counter()
        index = _fill(name.argument, vectors, seed)
        size = _write(index, site / FILE)
        write_manifest(
            site,
            engine=name.base,
            fingerprint=fingerprint_vectors(vectors, identity),
            count=len(vectors),
            dim=vectors.shape[1],
            bytes=size,
            seconds=round(time.perf_counter() - started, 3),
        )
        _read(site / FILE, vectors.shape, size)  # a full disk shows here at the latest
    return open_faiss(name, vectors, folder=folder, identity=identity, table=table)


def _fill(factory: str, vectors: np.ndarray, seed: int) -> "faiss.Index":
    import faiss

    n, d = vectors.shape
    cells = parse_factory(factory).cells
    if cells > n:
        raise ValueError(
            f"{factory!r} asks for {cells} cells, and there are {n} vectors: at most that many "
            f"cells can be had; for so few vectors, take 'Flat'"
        )
    try:
        index = faiss.index_factory(d, factory, faiss.METRIC_INNER_PRODUCT)
        sample, step = _draw_sample(vectors, cells, seed), max(1, CHUNK // d)
        if len(list_not_finite(sample)):  # FAISS would not say which row it is
            for _ in _read_finite(vectors, range(0, n, step), step):
                pass
        _train(index, sample)
        starts = progress(range(0, n, step), desc=f"add to {factory}")
        for rows in _read_finite(vectors, starts, step):
            index.add(rows)
    except RuntimeError as e:
        raise ValueError(
            f"FAISS refuses {factory!r} for {n} vectors of {d} dimensions: {_reason(e)}"
        ) from e
    return index


def _read_finite(vectors: np.ndarray, starts: Iterable[int], step: int) -> Iterator[np.ndarray]:
    """Yield the rows from each start on, `step` of them."""
    for start in starts:
        rows = np.ascontiguousarray(vectors[start : start + step], np.float32)
        refuse_not_finite(start + list_not_finite(rows))
        yield rows


def _draw_sample(vectors: np.ndarray, cells: int, seed: int) -> np.ndarray:
    """Draw rows for training, in their order so that a file is read from front to back."""
    n, d = vectors.shape
    size = min(n, max(cells * PER_CENTROID, 2**14), max(TRAINING // d, cells))
    rows = np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
    return np.ascontiguousarray(vectors[rows], np.float32)


def _train(index: "faiss.Index", sample: np.ndarray) -> None:
    """Train an index; PCA first, and without its shift, which would change inner products."""
    import faiss

    inner = faiss.downcast_index(getattr(index, "base_index", index))
    if isinstance(inner, faiss.IndexPreTransform):
        transform = faiss.downcast_VectorTransform(inner.chain.at(0))
        if isinstance(transform, faiss.PCAMatrix):
            transform.train(sample)
            faiss.copy_array_to_vector(np.zeros(transform.d_out, np.float32), transform.b)
    index.train(sample)


def _write(index: "faiss.Index", file: Path) -> int:
    import faiss

    try:
        faiss.write_index(index, str(file))
    except RuntimeError as e:
        raise OSError(f"FAISS could not write {file.name}: {_reason(e)}") from e
    return file.stat().st_size


def _reason(error: Exception) -> str:
    """Return what FAISS says, without the place in its sources."""
    return str(error).rpartition("Error: ")[2].strip() or repr(error)
