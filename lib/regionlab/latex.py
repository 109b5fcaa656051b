"""LaTeX for papers: text that is safe to set, and tables with booktabs' rules."""

import re
from collections.abc import Iterable, Sequence

from regionlab.lettering import drop_controls

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
