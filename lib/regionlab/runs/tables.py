"""Tables for reports and papers: CSV and LaTeX, with the record of the run beside them.

tables.save_table(frame, "02_table", record, caption="Retrieval on Toybox.")
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionlab.runs.record import Record
from regionlab.util.files import write_text
from regionlab.util.lettering import drop_controls

if TYPE_CHECKING:
    import pandas as pd


SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "[": "{[}", "]": "{]}", "*": "{*}",  # after the end of a row they would be its options
    "–": "--", "—": "---", "…": r"\dots{}", "“": "``", "”": "''", "‘": "`", "’": "'",
    "·": r"$\cdot$", "×": r"$\times$", "±": r"$\pm$", "−": "$-$", "→": r"$\to$",
    "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$",
    "²": "$^2$", "³": "$^3$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$",
    "δ": r"$\delta$", "ε": r"$\epsilon$", "λ": r"$\lambda$", "μ": r"$\mu$", "π": r"$\pi$",
    "σ": r"$\sigma$", "τ": r"$\tau$", "φ": r"$\phi$",
    "\n": " ", "\r": " ", "\t": " ",
})  # fmt: skip
LONG_TEXT = 40  # characters from which a column is broken into lines
PAGE_ROWS = 45  # rows from which a table is broken into pages


def escape_latex(text: str) -> str:
    """Return text in which nothing is a command to LaTeX, in one line.

    Greek letters and common signs become LaTeX's; other letters stay as they are, which
    LuaLaTeX and XeLaTeX set, and pdfLaTeX where its font has them.
    """
    return drop_controls(text).translate(SPECIAL)


def number_to_latex(text: str) -> str:
    """Return a printed number, or an interval, with LaTeX's minus and power of ten."""
    text = re.sub(r"(?<=\d)e([+-])0*(\d+)", _to_power, escape_latex(text))
    return re.sub(r"(?<![{\w])-(?=\d)", "$-$", text)


def _to_power(exponent: re.Match) -> str:
    return rf"$\times10^{{{exponent[1].strip('+')}{exponent[2]}}}$"


def table_to_latex(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    *,
    caption: str,
    label: str,
) -> str:
    """Return a table with caption and label, for packages booktabs and longtable.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells as text, not yet escaped.
    numeric
        Which columns are numbers, set to the right.
    caption, label
        Of the table; the label gets `tab:` in front.
    """
    title = f"\\caption{{{escape_latex(caption)}}}\n\\label{{tab:{label}}}"
    setters = [number_to_latex if number else escape_latex for number in numeric]
    lines = [_join(setter(cell) for setter, cell in zip(setters, row, strict=True)) for row in rows]
    parts = {"head": _join(map(escape_latex, head)), "rows": "".join(lines)}
    if len(rows) > PAGE_ROWS:
        return LONG_TABLE.format(columns=_columns(rows, numeric), title=title, **parts)
    return TABLE.format(columns=_columns(rows, numeric), title=title, **parts)


def _columns(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Return how columns are set: numbers to the right, long text broken into lines."""
    long = [
        not number and any(len(row[column]) > LONG_TEXT for row in rows)
        for column, number in enumerate(numeric)
    ]
    broken = f"p{{{0.8 / max(sum(long), 1):.2f}\\linewidth}}"
    kinds = zip(numeric, long, strict=True)
    return "".join("r" if number else broken if wide else "l" for number, wide in kinds)


def _join(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\\n"


TABLE = r"""% \usepackage{{booktabs}}
\begin{{table}}
\centering
{title}
\begin{{tabular}}{{{columns}}}
\toprule
{head}\midrule
{rows}\bottomrule
\end{{tabular}}
\end{{table}}
"""
LONG_TABLE = r"""% \usepackage{{booktabs,longtable}}
\begin{{longtable}}{{{columns}}}
{title} \\
\toprule
{head}\midrule
\endhead
{rows}\bottomrule
\end{{longtable}}
"""


def save_table(
    frame: "pd.DataFrame", name: str, record: Record, *, caption: str = "", digits: int = 3
) -> Path:
    """Save a table as CSV and LaTeX with its record beside it, and return the CSV's path.

    The CSV has all digits; LaTeX, gallery and report have rounded numbers. A measured
    quantity, `{"value", "ci95", "n"}` from `stats.mean_with_ci`, may be a cell: it is
    shown with its interval, and gets columns of its own for low, high and n in the CSV.

    Parameters
    ----------
    frame
        Any table; its index becomes the first columns, unless it only counts rows.
    name
        File name without ending, such as "02_table"; not that of a figure.
    record
        The record of the run, from `records.current()`.
    caption
        What the table shows.
    digits
        Digits behind the point of a number that is no whole one.

    Raises
    ------
    ValueError
        If the name is taken by a figure or holds anything but letters, digits and `. _ -`;
        if the table has no columns, or two of one name; if a cell is anything but a number,
        text, a measured quantity, a list of these, or missing.
    """
    path = record.path_for(name, ".csv")
    flat = flatten_frame(frame)
    head = list(flat)
    rows = [[show_cell(cell, digits) for cell in row] for row in flat.to_numpy(object)]
    numeric = [all(map(_is_numeric, flat[column])) for column in head]
    order = _find_order(path)
    latex = table_to_latex(head, rows, numeric, caption=caption, label=path.stem)
    write_text(path, _spread(flat).to_csv(index=False, lineterminator="\n"))
    write_text(path.with_suffix(".tex"), latex)
    files = {"csv": path.name, "tex": f"{path.stem}.tex", "caption": caption, "order": order}
    table = {**files, "head": head, "rows": rows, "numeric": numeric}
    record.save_beside(f"{path.stem}.json", {"table": table})
    return path


def _find_order(path: Path) -> int:
    """Return the place of a table among those of its run: a table saved again keeps its own."""
    beside = path.with_suffix(".json")
    if beside.is_file():
        return json.loads(beside.read_text(encoding="utf-8"))["table"]["order"]
    return len(list(path.parent.glob("*.csv")))


def flatten_frame(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with its index as first columns and plain text as names.

    An index without name that only counts rows is left out. The levels of a name are joined
    with a comma.

    Raises
    ------
    ValueError
        If there are no columns, or two would have one name.
    """
    import pandas as pd

    if not len(frame.columns):
        raise ValueError("the table has no columns")
    columns = {}
    if not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None):
        for level, name in enumerate(frame.index.names):
            columns[name or ""] = frame.index.get_level_values(level).tolist()
    for place, name in enumerate(frame.columns):
        name = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        if name in columns:
            raise ValueError(f"two columns are named {name!r}")
        columns[name] = frame.iloc[:, place].tolist()
    return pd.DataFrame(columns, dtype=object)


def _spread(flat: "pd.DataFrame") -> "pd.DataFrame":
    """Give measured quantities a column each for value, low, high and n."""
    import pandas as pd

    columns = {}
    for name in flat:
        cells = flat[name].tolist()
        if not any(isinstance(cell, Mapping) for cell in cells):
            columns[name] = [_one_line_end(cell) for cell in cells]
            continue
        parts = [cell if isinstance(cell, Mapping) else {"value": cell} for cell in cells]
        ends = [part.get("ci95", (None, None)) for part in parts]
        columns[name] = [part["value"] for part in parts]
        columns[f"{name}, low"], columns[f"{name}, high"] = map(list, zip(*ends, strict=True))
        columns[f"{name}, n"] = [part.get("n") for part in parts]
    return pd.DataFrame(columns, dtype=object)


def _one_line_end(cell: Any) -> Any:
    """Return text with newlines for carriage returns, which older Pythons write without quotes."""
    return "\n".join(re.split("\r\n?", cell)) if isinstance(cell, str) else cell


def show_cell(cell: Any, digits: int = 3) -> str:
    """Return a cell as text: numbers rounded, measured quantities with their interval.

    Numbers that `digits` would show as 0, and those from 100, have four significant digits;
    from 1,000 to a billion they are whole.

    Raises
    ------
    ValueError
        If the cell is anything but a number, text, a measured quantity, a list of these, or
        missing.
    """
    if type(cell).__module__ == "numpy":
        cell = cell.tolist()
    if isinstance(cell, Mapping) and "value" in cell:
        shown = show_cell(cell["value"], digits)
        return f"{shown} {show_cell(cell['ci95'], digits)}" if "ci95" in cell else shown
    if isinstance(cell, list | tuple):
        return f"[{', '.join(show_cell(item, digits) for item in cell)}]"
    if _is_missing(cell):
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return _show_float(cell, digits)
    if isinstance(cell, str | Path):
        return " ".join(drop_controls(str(cell)).split())
    raise ValueError(f"a {type(cell).__name__} cannot be a cell of a table: {cell!r}")


def _show_float(number: float, digits: int) -> str:
    if number == 0 or 10**-digits <= abs(number) < 100:
        return f"{number:.{digits}f}"
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e9 else f"{number:.4g}"


def _is_missing(cell: Any) -> bool:
    """Say whether a cell holds nothing: None, NaN or pandas' NA."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or cell != cell


def _is_numeric(cell: Any) -> bool:
    """Say whether a cell is set to the right, as numbers and what is missing among them."""
    if isinstance(cell, bool):
        return False
    return isinstance(cell, Number | Mapping | list | tuple) or _is_missing(cell)
