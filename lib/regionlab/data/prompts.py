"""Prompts: which part of an image is meant, by box, points, words or all of it.

Plain frozen values in pixels of the image, x right and y down, checked when they are made (an
`InputError` says what is wrong); to and from JSON, so that a selection made by hand can be
replayed.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from regionlab.util.errors import InputError, MissingFileError
from regionlab.util.files import to_json, write_json
from regionlab.util.paths import expand


@dataclass(frozen=True)
class Box:
    """A box in pixels with an area, right and bottom exclusive (S0, equation 1)."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self):
        values = _to_numbers((self.x0, self.y0, self.x1, self.y1), "a box")
        for side, value in zip(("x0", "y0", "x1", "y1"), values, strict=True):
            object.__setattr__(self, side, value)
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise InputError(
                f"the corners of {self} are swapped: x0 < x1 and y0 < y1 are needed; "
                "Box.from_corners takes any two opposite corners"
            )
        if self.x1 == self.x0 or self.y1 == self.y0:
            raise InputError(f"{self} has no area")

    @classmethod
    def from_corners(cls, a: tuple[float, float], b: tuple[float, float]) -> "Box":
        """Make the box between any two opposite corners (x, y)."""
        (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(a, b, strict=True))
        return cls(x0, y0, x1, y1)

    @property
    def xyxy(self) -> np.ndarray:
        """The sides as (4,) float64: left, top, right, bottom."""
        return np.array([self.x0, self.y0, self.x1, self.y1])


@dataclass(frozen=True)
class Points:
    """Clicks inside (1) and outside (0) of what is meant, and at choice a box around it.

    Without a box, at least one must be inside: nothing says else what is meant.
    """

    xy: tuple[tuple[float, float], ...]  # in pixels
    labels: tuple[int, ...] | None = None  # 1 or 0 for each; by default all 1
    box: Box | None = None  # SAM takes points and a box together

    def __post_init__(self):
        xy = [_to_numbers(point, "a point") for point in _to_tuple(self.xy, "points")]
        wrong = [point for point in xy if len(point) != 2]
        if wrong or not xy:
            raise InputError(f"points must be ((x, y), ...), at least one, not {self.xy!r}")
        labels = (1,) * len(xy) if self.labels is None else _to_tuple(self.labels, "labels")
        if len(labels) != len(xy) or any(label not in (0, 1) for label in labels):
            raise InputError(f"{len(xy)} point(s) need as many labels of 1 or 0, not {labels!r}")
        if self.box is not None and not isinstance(self.box, Box):
            raise InputError(f"the box of points must be a Box, not {self.box!r}")
        if not any(labels) and self.box is None:
            raise InputError("only negative points: add a positive one, or a box")
        object.__setattr__(self, "xy", tuple(xy))
        object.__setattr__(self, "labels", tuple(int(label) for label in labels))


@dataclass(frozen=True)
class Text:
    """Words for what is meant."""

    words: str  # at least one, as said to CLIP, such as "a red circle"
    every: bool = False  # all masks above a threshold instead of the best one

    def __post_init__(self):
        if not isinstance(self.words, str) or not self.words.strip():
            raise InputError(f"a text prompt needs at least one word, not {self.words!r}")
        if not isinstance(self.every, bool):
            raise InputError(f"every must be True or False, not {self.every!r}")


@dataclass(frozen=True)
class Whole:
    """The whole image."""


Prompt = Box | Points | Text | Whole
KINDS = {"box": Box, "points": Points, "text": Text, "whole": Whole}


def as_prompts(prompts: Prompt | Iterable[Prompt]) -> list[Prompt]:
    """Return prompts as a list, be it one or several; InputError for none or something else."""
    prompts = [prompts] if isinstance(prompts, Prompt) else _to_tuple(prompts, "prompts")
    for prompt in prompts:
        if not isinstance(prompt, Prompt):
            raise InputError(f"{prompt!r} is no prompt: say Box, Points, Text or Whole")
    if not prompts:
        raise InputError("no prompt: say what is meant by a Box, Points, Text or Whole")
    return list(prompts)


def fit_prompt(prompt: Prompt, size: tuple[int, int]) -> Prompt:
    """Return the prompt as it lies in an image of this height and width.

    A box partly outside is clipped; InputError for one that is wholly outside, or for a point.
    """
    if isinstance(prompt, Box):
        return _clip_box(prompt, size)
    if not isinstance(prompt, Points):
        return prompt
    height, width = size
    for x, y in prompt.xy:
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"point ({x:g}, {y:g}) is outside the image, {_say_size(size)}")
    return prompt if prompt.box is None else replace(prompt, box=_clip_box(prompt.box, size))


def prompt_to_dict(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as JSON values: `{"kind": "box", "x0": 1.0, ...}`."""
    kind = next(kind for kind, cls in KINDS.items() if type(prompt) is cls)
    return {"kind": kind, **to_json(asdict(prompt))}


def prompt_from_dict(values: Mapping[str, Any]) -> Prompt:
    """Make the prompt that `prompt_to_dict` wrote; InputError for any other values."""
    kind = values.get("kind") if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or kind not in list(KINDS):
        raise InputError(f"unknown kind of prompt {kind!r}; known: {', '.join(KINDS)}")
    cls = KINDS[kind]
    rest = {key: value for key, value in values.items() if key != "kind"}
    try:
        if rest.get("box") is not None:
            rest["box"] = Box(**rest["box"])
        return cls(**rest)
    except TypeError as e:
        known = ", ".join(field.name for field in fields(cls)) or "nothing more"
        raise InputError(f"a prompt of kind {kind} holds {known}, not {rest}") from e


@dataclass(frozen=True)
class Selection:
    """What somebody selected on an image: one prompt an object, clipped to the image."""

    image: str  # an id or a path, as the caller names it
    size: tuple[int, int]  # height and width in pixels
    prompts: tuple[Prompt, ...]
    weights: tuple[float, ...] = ()  # of each prompt; negative for "without that"; by default 1
    labels: tuple[str, ...] = ()  # a word for each; by default ""

    def __post_init__(self):
        if not isinstance(self.image, str) or not self.image:
            raise InputError(f"a selection needs the name of its image, not {self.image!r}")
        size = _check_size(self.size)
        prompts = tuple(fit_prompt(prompt, size) for prompt in as_prompts(self.prompts))
        weights = _to_numbers(self.weights, "weights") or (1.0,) * len(prompts)
        labels = _to_tuple(self.labels, "labels") or ("",) * len(prompts)
        if not len(prompts) == len(weights) == len(labels):
            raise InputError(
                f"{len(prompts)} prompt(s) need as many weights and labels, "
                f"not {len(weights)} and {len(labels)}"
            )
        if not all(isinstance(label, str) for label in labels):
            raise InputError(f"labels must be words, not {labels!r}")
        values = {"size": size, "prompts": prompts, "weights": weights, "labels": labels}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def save(self, path: Path | str) -> Path:
        """Write the selection as JSON, in one step, and return the file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["prompts"] = [prompt_to_dict(prompt) for prompt in self.prompts]
        file = expand(path)
        write_json(file, to_json(values))
        return file

    @classmethod
    def load(cls, path: Path | str) -> "Selection":
        """Read a selection that `save` wrote.

        Raises
        ------
        MissingFileError
            If there is no such file.
        InputError
            If it holds no selection; names the file.
        """
        try:
            values = json.loads(expand(path).read_text(encoding="utf-8"))
            prompts = tuple(prompt_from_dict(prompt) for prompt in values.pop("prompts"))
            return cls(prompts=prompts, **values)
        except FileNotFoundError as e:
            raise MissingFileError(f"no such selection: {path}") from e
        except (AttributeError, KeyError, TypeError, ValueError) as e:  # of any other JSON
            raise InputError(f"{path} holds no selection: {e}") from e


def _clip_box(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    if box.x0 >= width or box.y0 >= height or box.x1 <= 0 or box.y1 <= 0:
        raise InputError(f"{box} is outside the image, {_say_size(size)}")
    return Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))


def _say_size(size: tuple[int, int]) -> str:
    return f"which is {size[1]} pixels wide and {size[0]} high"


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    values = _to_numbers(size, "a size")
    if len(values) != 2 or any(value < 1 or value != int(value) for value in values):
        raise InputError(f"a size must be (height, width) in whole pixels, not {size!r}")
    return int(values[0]), int(values[1])


def _to_tuple(values: Iterable, name: str) -> tuple:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be several, not {values!r}")
    return tuple(values)


def _to_numbers(values: Iterable, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in _to_tuple(values, name))
    except (TypeError, ValueError) as e:
        raise InputError(f"{name} must be numbers, not {values!r}") from e
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{name} must be finite numbers, not {numbers}")
    return numbers
