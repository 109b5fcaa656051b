"""Draw what engines cost: recall against time a query, with the memory they take."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionlab.lettering import show_entry, write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = 20, 260  # areas of the smallest and largest marker, in square points


def draw_tradeoff(
    ax: "Axes", table: pd.DataFrame, *, chosen: str | None = None, target: float | None = None
):
    """Draw recall over milliseconds a query: a curve each index, markers as large as its memory.

    Settings that are slower than another of the same index without finding more are left out.

    Parameters
    ----------
    table
        Of a `Recommendation`; engines that were not measured are left out.
    chosen
        Engine to mark by a ring.
    target
        Recall that was asked for, drawn as a line.
    """
    measured = table[table["recall"].notna()]
    for factory, curve in measured.groupby("factory", sort=False):
        curve = _take_front(curve)
        label = f"{show_entry(factory)}, {describe_bytes(curve['bytes'].iloc[0])}"
        (line,) = ax.plot(curve["milliseconds"], curve["recall"], linewidth=1)
        areas = _scale_areas(curve["bytes"], measured["bytes"])
        ax.scatter(
            curve["milliseconds"], curve["recall"], areas,
            color=line.get_color(), alpha=0.8, linewidth=0, label=label,
        )  # fmt: skip
    for _, row in measured[measured["engine"] == chosen].iterrows():
        ax.plot(row["milliseconds"], row["recall"], "o", ms=17, mfc="none", mec="black", mew=0.8)
    if target is not None:
        ax.axhline(target, color="0.5", linewidth=0.8, linestyle="--")
    ax.set_xscale("log")
    ax.set(xlabel="milliseconds a query, logarithmic", ylabel="recall, worst kind of query")
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return write_plainly(ax)


def _take_front(curve: pd.DataFrame) -> pd.DataFrame:
    """Return the settings that find more than every faster one."""
    curve = curve.sort_values("milliseconds")
    return curve[curve["recall"] > curve["recall"].cummax().shift(fill_value=-1)]


def describe_bytes(count: float) -> str:
    """Return a number of bytes in words, such as "1.5 GB" (10^9)."""
    power = 0
    while count >= 999.5 and power < 5:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _scale_areas(sizes: pd.Series, all_sizes: pd.Series) -> np.ndarray:
    """Return marker areas in proportion to bytes, none too small to see."""
    small, large = SIZES
    return np.maximum(small, large * sizes.to_numpy() / all_sizes.max())
