"""FAISS's factory strings: what they ask for, which options they take, how many bytes it takes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2, sqrt

# FAISS crashes or never returns on some strings that its own parser lets pass (HNSW1, NSG1).
_CODE = r"Flat|SQ(?:4|6|8|fp16|bf16)|PQ[1-9]\d*(?:x(?:[4-9]|1[0-2]))?(?:fs)?"
GRAMMAR = re.compile(
    r"(?:(?:OPQ[1-9]\d*(?:_(?P<opq>[1-9]\d*))?|(?:PCAR?|RR)(?P<width>[1-9]\d*)),)?"
    r"(?:IVF(?P<cells>\d+)(?P<quantizer>_HNSW(?P<links>\d*))?,)?"
    rf"(?:HNSW(?P<graph>\d*)(?:[,_](?P<node>{_CODE}))?|(?P<code>{_CODE}))"
    rf"(?:,(?:(?P<flat>RFlat)|Refine\((?P<refine>{_CODE})\)))?"
)
ALLOWED = (
    "[OPQ<m>_<d>,|PCAR<d>,|RR<d>,] then one of Flat, SQ8, SQfp16, PQ<m>, IVF<cells>,<one of "
    "these>, IVF<cells>_HNSW<m>,<one of these>, HNSW<m>; then [,RFlat|,Refine(SQfp16)]"
)
LINKS = 32  # of HNSW where the string gives none
# FAISS's guidelines: vectors up to here, cells and how they are found.
CELLS = ((10**7, "IVF65536_HNSW32"), (10**8, "IVF262144_HNSW32"))
MOST_CELLS = "IVF1048576_HNSW32"


@dataclass(frozen=True)
class Factory:
    """What a factory string asks for.

    Attributes
    ----------
    text
        The string.
    width
        Dimensions after the rotation in front; None where they stay.
    cells, cell_links, links
        Cells of the inverted file; links a vector of the HNSW graph that finds cells, or
        vectors; 0 where there is none.
    code, refine
        How a vector is kept, and once more for the last comparison; refine may be empty.
    """

    text: str
    width: int | None
    cells: int
    cell_links: int
    links: int
    code: str
    refine: str

    @property
    def options(self) -> dict[str, int]:
        """Options of a search, with FAISS's own values."""
        options = {"k_factor": 1}
        if self.cells:
            options["nprobe"] = 1
        if self.cell_links:
            options["quantizer_efSearch"] = 16
        if self.links:
            options["efSearch"] = 16
        return options


def parse_factory(text: str) -> Factory:
    """Read a factory string of FAISS.

    Raises
    ------
    ValueError
        If it is none of those in `ALLOWED`.
    """
    found = GRAMMAR.fullmatch(text)
    if found is None or found["cells"] and found["graph"] is not None:
        raise ValueError(f"the factory string {text!r} is not one of: {ALLOWED}")
    part = found.groupdict()
    width = part["width"] or part["opq"]
    links = [_read_links(text, part[graph]) for graph in ("links", "graph")]
    code = part["code"] or part["node"] or "Flat"
    refine = "Flat" if part["flat"] else part["refine"] or ""
    cells = -1 if part["cells"] is None else int(part["cells"])
    if cells == 0:
        raise ValueError(f"{text!r} asks for 0 cells")
    return Factory(text, int(width) if width else None, max(cells, 0), *links, code, refine)


def _read_links(text: str, links: str | None) -> int:
    if links is None:
        return 0
    if links and not 4 <= int(links) <= 512:
        raise ValueError(f"{text!r}: HNSW takes 4 to 512 links a vector, got {links}")
    return int(links or LINKS)


def estimate_bytes(text: str, n: int, d: int) -> int:
    """Compute the bytes of an index of `n` vectors of `d` dimensions.

    A vector takes its code (Flat 4d, SQ8 d, PQ m bits/8), 8 for its number in an inverted
    file, 8m + 16 for m links of HNSW, and its second code; the rest are centroids and rotation.

    Raises
    ------
    ValueError
        As `parse_factory`.
    """
    factory = parse_factory(text)
    width = factory.width or d
    each = _count_code_bytes(factory.code, width)
    each += 8 if factory.cells else 0
    each += 8 * factory.links + 16 if factory.links else 0
    each += _count_code_bytes(factory.refine, d) if factory.refine else 0
    centroid = 4 * width + (8 * factory.cell_links + 16 if factory.cell_links else 0)
    rotation = 4 * d * width if factory.width or text.startswith("OPQ") else 0
    return (
        n * each + factory.cells * centroid + rotation + _count_codebook_bytes(factory.code, width)
    )


def _count_code_bytes(code: str, d: int) -> int:
    if code.startswith("PQ"):
        parts, bits = _split_pq(code)
        return ceil(parts * bits / 8)
    bits = {"Flat": 32, "SQ4": 4, "SQ6": 6, "SQ8": 8, "SQfp16": 16, "SQbf16": 16}[code]
    return ceil(d * bits / 8)


def _count_codebook_bytes(code: str, d: int) -> int:
    return 4 * d * 2 ** _split_pq(code)[1] if code.startswith("PQ") else 0


def _split_pq(code: str) -> tuple[int, int]:
    """Return the number of parts and the bits of each."""
    parts, _, bits = code[2:].removesuffix("fs").partition("x")
    return int(parts), int(bits or 8)


def list_factories(n: int, d: int, memory: float | None = None) -> list[str]:
    """Return the factory strings that FAISS's guidelines suggest, the largest first.

    Up to a million vectors have about 4 sqrt(n) cells, a power of two; more have 65,536 and
    so on, found by an HNSW graph. The codes that are tightest are listed where nothing else
    fits, for they take long to train.

    Parameters
    ----------
    memory
        Bytes that an index may take; None for any number.
    """
    if n < 1000:
        return ["Flat"]  # nothing is gained by cells of a handful of vectors
    cells = _suggest_cells(n)
    parts = max(m for m in range(1, max(d // 4, 1) + 1) if d % m == 0)
    factories = ["HNSW32", f"{cells},Flat", f"{cells},SQ8", f"{cells},PQ{parts}"]
    fits = memory is None or any(estimate_bytes(f, n, d) <= memory for f in factories)
    tight = max(m for m in range(1, max(d // 16, 1) + 1) if d % m == 0)
    return factories if fits else [*factories, f"OPQ{tight},{cells},PQ{tight}"]


def _suggest_cells(n: int) -> str:
    if n <= 10**6:
        return f"IVF{2 ** round(log2(4 * sqrt(n)))}"
    return next((cells for most, cells in CELLS if n <= most), MOST_CELLS)


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
    for factor in factors:
        for width in widths:
            yield width | ({"k_factor": factor} if factor > 1 else {})
