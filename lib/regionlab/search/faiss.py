"""FAISS: any index that an `index_factory` string describes, trained and kept in bounded memory."""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, log2, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.search.engine import (
    SLACK,
    Engine,
    EngineName,
    check_gallery,
    find_place,
    fingerprint_vectors,
    read_manifest,
    staged_site,
    write_manifest,
)
from regionlab.search.exact import EngineError, list_not_finite, refuse_not_finite
from regionlab.util.progress import progress

if TYPE_CHECKING:
    import faiss


# FAISS crashes or never returns on some strings that its own parser lets pass (HNSW1, NSG1).
_CODE = r"Flat|SQ(?:4|6|8|fp16|bf16)|PQ[1-9]\d*(?:x(?:[4-9]|1[0-2]))?(?:fs)?"
GRAMMAR = re.compile(
    r"(?:(?:OPQ[1-9]\d*(?:_(?P<opq>[1-9]\d*))?|(?:PCAR?|RR)(?P<width>[1-9]\d*)),)?"
    r"(?:IVF(?P<cells>\d+)(?P<quantizer>_HNSW(?P<links>\d*))?,)?"
    rf"(?:HNSW(?P<graph>\d*)(?:[,_](?P<node>{_CODE}))?|(?P<code>{_CODE}))"
    rf"(?:,(?:R(?P<flat>Flat)|Refine\((?P<refine>{_CODE})\)))?"
)
ALLOWED = (
    "[OPQ<m>_<d>,|PCAR<d>,|RR<d>,] then one of Flat, SQ8, SQfp16, PQ<m>, IVF<cells>,<one of "
    "these>, IVF<cells>_HNSW<m>,<one of these>, HNSW<m>; then [,RFlat|,Refine(SQfp16)]"
)
BITS = {"Flat": 32, "SQ4": 4, "SQ6": 6, "SQ8": 8, "SQfp16": 16, "SQbf16": 16}  # a dimension
LINKS = 32  # of HNSW where the string gives none
# FAISS's guidelines: vectors up to here, cells and how they are found.
CELLS = ((10**7, "IVF65536_HNSW32"), (10**8, "IVF262144_HNSW32"))
MOST_CELLS = "IVF1048576_HNSW32"
FILE = "index.faiss"
CHUNK = 2**24  # numbers that are added at a time, 64 MiB
TRAINING = 2**28  # numbers that training sees at most, 1 GiB
PER_CENTROID = 64  # vectors that training sees; FAISS warns below 39
ANSWERS = 2**24  # rows asked for at a time, for all queries together


@dataclass(frozen=True)
class Factory:
    """What a factory string asks for."""

    text: str
    width: int | None  # dimensions after the rotation in front; None where they stay
    cells: int  # of the inverted file, 0 for none
    cell_links: int  # a vector of the HNSW graph that finds cells, 0 for none
    links: int  # a vector of the HNSW graph that finds vectors, 0 for none
    code: str  # how a vector is kept
    refine: str  # and once more for the last comparison, "" for none

    @property
    def options(self) -> dict[str, int]:
        """Options of a search, with FAISS's own values."""
        has = {"nprobe": self.cells, "quantizer_efSearch": self.cell_links, "efSearch": self.links}
        known = {"nprobe": 1, "quantizer_efSearch": 16, "efSearch": 16}
        return {"k_factor": 1} | {name: known[name] for name in known if has[name]}


def parse_factory(text: str) -> Factory:
    """Read a factory string of FAISS; ValueError if it is none of those in `ALLOWED`."""
    found = GRAMMAR.fullmatch(text)
    if found is None or found["cells"] and found["graph"] is not None:
        raise ValueError(f"the factory string {text!r} is not one of: {ALLOWED}")
    part = found.groupdict()
    cells = int(part["cells"] or 0)
    if part["cells"] and not cells:
        raise ValueError(f"{text!r} asks for 0 cells")
    width = int(part["width"] or part["opq"] or 0) or None
    links = [_read_links(text, part[graph]) for graph in ("links", "graph")]
    code = part["code"] or part["node"] or "Flat"
    return Factory(text, width, cells, *links, code, part["flat"] or part["refine"] or "")


def _read_links(text: str, links: str | None) -> int:
    if links is None:
        return 0
    if links and not 4 <= int(links) <= 512:
        raise ValueError(f"{text!r}: HNSW takes 4 to 512 links a vector, got {links}")
    return int(links or LINKS)


def estimate_bytes(text: str, n: int, d: int) -> int:
    """Compute the bytes of an index of `n` vectors of `d` dimensions.

    A vector takes its code (Flat 4d, SQ8 d, PQ m bits/8), 8 for its number in an inverted file,
    8m + 16 for m links of HNSW, and its second code; the rest are centroids and rotation.
    """
    factory = parse_factory(text)
    width = factory.width or d
    code, codebook = _count_code_bytes(factory.code, width)
    each = code + 8 * bool(factory.cells) + _count_link_bytes(factory.links)
    each += _count_code_bytes(factory.refine, d)[0] if factory.refine else 0
    centroid = 4 * width + _count_link_bytes(factory.cell_links)
    rotation = 4 * d * width if factory.width or text.startswith("OPQ") else 0
    return n * each + factory.cells * centroid + rotation + codebook


def _count_link_bytes(links: int) -> int:
    return 8 * links + 16 if links else 0


def _count_code_bytes(code: str, d: int) -> tuple[int, int]:
    """Return the bytes of a vector's code, and of the codebook."""
    if not code.startswith("PQ"):
        return ceil(d * BITS[code] / 8), 0
    parts, _, bits = code[2:].removesuffix("fs").partition("x")
    return ceil(int(parts) * int(bits or 8) / 8), 4 * d * 2 ** int(bits or 8)


def list_factories(n: int, d: int, memory: float | None = None) -> list[str]:
    """Return the factory strings that FAISS's guidelines suggest, the largest first.

    Up to a million vectors have about 4 sqrt(n) cells, a power of two; more have 65,536 and
    so on, found by an HNSW graph. The codes that are tightest, which take long to train, are
    listed where nothing else fits in `memory` bytes.
    """
    if n < 1000:
        return ["Flat"]  # nothing is gained by cells of a handful of vectors
    cells = f"IVF{2 ** round(log2(4 * sqrt(n)))}"
    if n > 10**6:
        cells = next((some for most, some in CELLS if n <= most), MOST_CELLS)
    parts = max(m for m in range(1, max(d // 4, 1) + 1) if d % m == 0)
    factories = ["HNSW32", f"{cells},Flat", f"{cells},SQ8", f"{cells},PQ{parts}"]
    fits = memory is None or any(estimate_bytes(f, n, d) <= memory for f in factories)
    tight = max(m for m in range(1, max(d // 16, 1) + 1) if d % m == 0)
    return factories if fits else [*factories, f"OPQ{tight},{cells},PQ{tight}"]


def list_settings(text: str) -> Iterator[dict[str, int]]:
    """Yield options for an index, ever more careful ones.

    Codes that lose something get more candidates for the exact scores at the end.
    """
    factory = parse_factory(text)
    factors = (10, 100) if "PQ" in factory.code else (1,) if factory.code == "Flat" else (4,)
    widths = [{}]
    if factory.cells:
        widths = [{"nprobe": 2**i} for i in range(int(log2(factory.cells)) + 1)]
    if factory.links:
        widths = [{"efSearch": 2**i} for i in range(4, 11)]
    for factor, width in product(factors, widths):
        yield width | ({"k_factor": factor} if factor > 1 else {})


class FaissEngine(Engine):
    """Search an index of FAISS, by inner product (Douze et al., The Faiss library, 2024).

    Options of the name: `nprobe`, the cells of an IVF that are visited; `efSearch`, how widely
    an HNSW graph is searched; `quantizer_efSearch`, the same for the graph of an IVF's cells;
    and `k_factor`, how many candidates a result are compared by better vectors: those of the
    index's refinement, else the gallery's own. By default all are as in FAISS: 1, 16, 16, 1.
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
        self.index, self.bytes = index, bytes  # memory is taken as it is used: the file is mapped
        self.tune(name)

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
    """Return the options of a search with a name, FAISS's own values where it gives none."""
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
    import faiss

    check_gallery(vectors, table)
    read_options(name)
    place = find_place(folder, name.base)
    with staged_site(place) as site:
        started = time.perf_counter()
        index = _fill(name.argument, vectors, seed)
        try:
            faiss.write_index(index, str(site / FILE))
        except RuntimeError as e:
            raise OSError(f"FAISS could not write {FILE}: {_reason(e)}") from e
        size = (site / FILE).stat().st_size
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


def _reason(error: Exception) -> str:
    """Return what FAISS says, without the place in its sources."""
    return str(error).rpartition("Error: ")[2].strip() or repr(error)
