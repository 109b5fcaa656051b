"""Figures about relevance feedback: measures round by round."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from regionlab.lettering import show_entry, write_plainly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"feedback": "o-", "none": "o:", "frozen": "o-", "gain": "o-"}
SHIFT = 0.08  # of a round, so that intervals do not cover each other


def draw_rounds(
    ax: "Axes",
    rounds_of: Mapping[str, Sequence[Mapping[str, Mapping]]],
    measures: Sequence[str],
    *,
    label: str,
):
    """Draw measures before feedback and after each round as lines with 95 % intervals.

    Parameters
    ----------
    rounds_of
        Method to what `feedback_study.summarise_rounds` returns; a colour each.
    measures
        Which of its measures; "none" is drawn dotted.
    label
        Of the quantity.
    """
    for number, (method, rounds) in enumerate(rounds_of.items()):
        for measure in measures:
            known = [i for i, after in enumerate(rounds) if measure in after]
            found = [rounds[i][measure] for i in known]
            values = [one["value"] for one in found]
            reach = np.abs([np.subtract(one["ci95"], one["value"]) for one in found]).T
            places = np.array(known) + SHIFT * (number - (len(rounds_of) - 1) / 2)
            name = show_entry(method) + (", no feedback" if measure == "none" else "")
            ax.errorbar(
                places, values, reach, fmt=STYLES[measure], color=f"C{number}",
                label=name, markersize=3, linewidth=1, elinewidth=0.8,
            )  # fmt: skip
    ax.set_xticks(range(max(map(len, rounds_of.values()))))
    ax.set_xlabel("rounds of judgements")
    ax.set_ylabel(label)
    ax.grid(axis="y")
    return write_plainly(ax)
