"""Text in figures and pages: names and words of others are written as they are, never as markup.

Matplotlib sets what stands between two `$` as mathematics, hides legend entries that begin with
`_`, and fails at half a surrogate pair, as file names may hold.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text


Part = TypeVar("Part", "Axes", "Figure")

MARKUP = re.compile(r"[|*`$]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~|(?<=\])[(\[:]")
LONGEST = 60  # characters of a name
FIRST_IDEOGRAPH = "\u2e80"  # from which on DejaVu Sans has no letters
IDEOGRAPHS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS",
)  # fmt: skip


def show_name(name: object, longest: int = LONGEST) -> str:
    """Return a name as one line that can be drawn: no control characters, cut where it is long."""
    line = " ".join(drop_controls(str(name)).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def show_entry(name: object, longest: int = LONGEST) -> str:
    """Return a name as the label of something in a legend, which would hide `_name`."""
    line = show_name(name, longest)
    return f"\u200b{line}" if line.startswith("_") else line


def show_lines(text: str, longest: int = 3 * LONGEST) -> str:
    """Return text of several lines, each as `show_name` does, for a title."""
    return "\n".join(show_name(line, longest) for line in text.split("\n"))


def show_names(names: Iterable[object], longest: int = LONGEST) -> list[str]:
    """Return each name as `show_name` does, for the ticks of an axis."""
    return [show_name(name, longest) for name in names]


def escape_markdown(text: str) -> str:
    """Return text as one line of Markdown that shows it, also in a table: nothing in it is markup.

    Underscores within a word and brackets without an address are none, and stay.
    """
    line = " ".join(drop_controls(text).split())
    line = re.sub(r"\\(?=[!-/:-@\[-`{-~])", r"\\\\", line)
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", line))
    return MARKUP.sub(r"\\\g<0>", line)


def write_plainly(part: Part) -> Part:
    """Let no text of a figure, or of one of its axes, be markup; the numbers of axes stay ours.

    Drawers call it when all is drawn, and `charts.save_figure` for what came after.
    """
    from matplotlib.text import Text

    axes = part.axes if hasattr(part, "axes") and isinstance(part.axes, list) else [part]
    numbers = {id(text) for ax in axes for text in _find_numbers(ax)}
    for text in part.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
            text.set_usetex(False)
            text.set_text(drop_controls(text.get_text()))
            if any(letter >= FIRST_IDEOGRAPH for letter in text.get_text()):
                families = (*text.get_fontfamily(), *_find_ideographs())
                text.set_fontfamily(list(dict.fromkeys(families)))
    return part


def _find_numbers(ax: "Axes") -> Iterator["Text | Artist"]:
    """Yield the tick labels that matplotlib writes itself: powers of ten are mathematics."""
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    for axis in (ax.xaxis, ax.yaxis):
        yield axis.get_offset_text()
        for which, formatter in (("major", axis.major), ("minor", axis.minor)):
            if isinstance(formatter.formatter, LogFormatter | ScalarFormatter):
                ticks = axis.get_major_ticks() if which == "major" else axis.get_minor_ticks()
                yield from (text for tick in ticks for text in (tick.label1, tick.label2))


def drop_controls(text: str) -> str:
    """Replace what has no glyph: half surrogates by the sign for it, control characters not."""
    return "".join(map(_show_letter, text)) if not text.isprintable() else text


def _show_letter(letter: str) -> str:
    if letter == "\n":
        return letter
    kind = unicodedata.category(letter)
    if kind in ("Cs", "Co", "Cn"):
        return "\ufffd"
    if kind == "Cf":
        return letter if letter in "\u200b\u200c\u200d" else ""
    return " " if kind in ("Cc", "Zl", "Zp") else letter


@cache
def _find_ideographs() -> tuple[str, ...]:
    """Return the fonts of this machine that have Chinese, Japanese or Korean letters."""
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return tuple(name for name in IDEOGRAPHS if name in there)
