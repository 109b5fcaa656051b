"""The picker's objects as prompts, and back.

An object is what the browser knows of one thing picked, in JSON values: `box`
[x0, y0, x1, y1] or None, `points` [[x, y], ...], `labels` [1 or 0, ...], `text`. Its box and
points say where it is and its words then are its name; words alone are a text prompt. What a
loaded selection holds beyond that, `weight` and `every`, is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from regionlab.prompts import Box, Points, Prompt, Text


def empty_object() -> dict[str, Any]:
    """Return an object of which nothing is said yet."""
    return {"box": None, "points": [], "labels": [], "text": ""}


def object_to_prompt(marks: Mapping[str, Any]) -> Prompt | None:
    """Return the prompt of an object; None while nothing is said.

    Raises
    ------
    ValueError
        If it is no prompt, such as one of negative points only.
    """
    box = None if marks.get("box") is None else _to_box(marks["box"])
    if marks.get("points"):
        return Points(tuple(map(tuple, marks["points"])), marks.get("labels"), box)
    if box is not None:
        return box
    words = marks.get("text", "").strip()
    return Text(words, every=marks.get("every", False)) if words else None


def _to_box(sides: Sequence[float]) -> Box:
    if len(sides) != 4:
        raise ValueError(f"a box needs four numbers, not {sides!r}")
    return Box(*sides)


def object_to_label(marks: Mapping[str, Any]) -> str:
    """Return the name of an object: the words beside its box or points."""
    return marks.get("text", "").strip() if marks.get("points") or marks.get("box") else ""


def prompt_to_object(prompt: Prompt, label: str = "", weight: float = 1.0) -> dict[str, Any]:
    """Return the object that has this prompt.

    Raises
    ------
    ValueError
        If the picker has no way to show the prompt.
    """
    marks = {**empty_object(), "text": label}
    if weight != 1:
        marks["weight"] = weight
    if isinstance(prompt, Box):
        marks["box"] = prompt.xyxy.tolist()
    elif isinstance(prompt, Points):
        marks["box"] = None if prompt.box is None else prompt.box.xyxy.tolist()
        marks["points"] = [list(point) for point in prompt.xy]
        marks["labels"] = list(prompt.labels)
    elif isinstance(prompt, Text):
        marks["text"] = prompt.words
        if prompt.every:
            marks["every"] = True
    else:
        raise ValueError(f"the picker shows boxes, points and words, not {prompt!r}")
    return marks
