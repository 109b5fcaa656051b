"""RegionPicker: a widget to prompt an image with boxes, points and words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from regionlab.data.prompts import Box, Points, Prompt, Selection, Text, fit_prompt
from regionlab.viz.images import (
    OBJECT_COLORS,
    as_image,
    draw_selection,
    encode_image,
    encode_mask,
    object_color,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Region, Segmenter


HERE = Path(__file__).parent
SHOWN_SIDE = 1600  # pixels of the longer side that the browser gets of the image
MASK_SIDE = 800  # and of a mask


def _empty_object() -> dict[str, Any]:
    """Return an object of which nothing is said yet."""
    return {"box": None, "points": [], "labels": [], "text": ""}


def _object_to_prompt(marks: Mapping[str, Any]) -> Prompt | None:
    """Return the prompt of an object, None while nothing is said; ValueError if it is none."""
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


def _object_to_label(marks: Mapping[str, Any]) -> str:
    """Return the name of an object: the words beside its box or points."""
    return marks.get("text", "").strip() if marks.get("points") or marks.get("box") else ""


def _prompt_to_object(prompt: Prompt, label: str = "", weight: float = 1.0) -> dict[str, Any]:
    """Return the object that has this prompt; ValueError if the picker cannot show it."""
    marks = {**_empty_object(), "text": label}
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


class RegionPicker(anywidget.AnyWidget):
    """An image on which boxes, points and words pick objects (S0, section 3).

    Drag a box, click inside the object, right-click outside of it, or type words. Coordinates are
    pixels of the image, x right and y down, to a hundredth, however large it is shown. A mask
    depends on its object's prompt alone: a saved selection gives the same masks. ImageError or
    ValueError if there is no (H, W, 3) uint8 image.

    Parameters
    ----------
    image
        A path, or an (H, W, 3) uint8 RGB array.
    segmenter
        Turns each prompt into a mask at once, which is drawn over the image.
    encoder
        Lets words find masks too; needs the segmenter.
    name
        What a saved selection calls the image; by default the path as given, or "image".
    save_to
        File to which a valid selection is written whenever it changes: what a page without cells,
        as in Voila, leaves behind.

    Attributes
    ----------
    objects
        One dict an object: `box`, `points`, `labels`, `text`, and at choice `weight` and `every`.
        Assign a new list to change it; `picker.observe(callback, "objects")` tells of changes.
    active
        Number of the object being picked, from 0.
    masks
        For each object its mask as PNG, or None.
    error, status
        What went wrong, and what goes on, as shown in the widget.
    """

    _esm = HERE / "picker.js"
    _css = HERE / "picker.css"

    picture = traitlets.Bytes().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)
    colors = traitlets.List(traitlets.Unicode(), list(OBJECT_COLORS)).tag(sync=True)
    objects = traitlets.List(traitlets.Dict()).tag(sync=True)
    active = traitlets.Int(0).tag(sync=True)
    masks = traitlets.List(traitlets.Bytes(allow_none=True)).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        image: np.ndarray | Path | str,
        *,
        segmenter: "Segmenter | None" = None,
        encoder: "Encoder | None" = None,
        name: str | None = None,
        save_to: Path | str | None = None,
    ):
        self.image = as_image(image)
        self.segmenter = segmenter
        self.encoder = encoder
        self.name = name or ("image" if isinstance(image, np.ndarray) else str(image))
        self.save_to = save_to
        # Of each object, in order: its prompt, and the regions found or why there are none.
        self._answers: list[tuple[Prompt, list[Region] | str]] = []
        height, width = self.image.shape[:2]
        picture = encode_image(self.image, SHOWN_SIDE)
        super().__init__(picture=picture, width=width, height=height, objects=[_empty_object()])

    @property
    def prompts(self) -> list[Prompt]:
        """The prompt of each object but empty ones; ValueError says which is none."""
        return [prompt for _, prompt in self._filled()]

    @property
    def selection(self) -> Selection:
        """What is selected, with names and weights; ValueError if nothing is, or as `prompts`."""
        filled = self._filled()
        return Selection(
            self.name,
            self.image.shape[:2],
            tuple(prompt for _, prompt in filled),
            weights=tuple(marks.get("weight", 1.0) for marks, _ in filled),
            labels=tuple(_object_to_label(marks) for marks, _ in filled),
        )

    @property
    def regions(self) -> "list[Region]":
        """The regions found so far, in the objects' order; none without a segmenter."""
        found = (answer for _, answer in self._answers if not isinstance(answer, str))
        return [region for regions in found for region in regions]

    def save(self, path: Path | str) -> Path:
        """Write the selection as JSON; errors as of `selection`."""
        return self.selection.save(path)

    def load(self, selection: Selection | Path | str) -> None:
        """Show a selection, or the one in a file, in place of what is picked.

        ValueError if it is for an image of another size, or holds what the picker cannot show.
        """
        if not isinstance(selection, Selection):
            selection = Selection.load(selection)
        if tuple(selection.size) != self.image.shape[:2]:
            (h, w), (height, width) = selection.size, self.image.shape[:2]
            raise ValueError(f"the selection is for {w} x {h} pixels, this is {width} x {height}")
        parts = zip(selection.prompts, selection.labels, selection.weights, strict=True)
        with self.hold_trait_notifications():
            self.objects = [_prompt_to_object(*part) for part in parts]
            self.active = len(self.objects) - 1

    def draw(self, ax: "Axes", *, title: str = "") -> "Axes":
        """Draw the selection as a static image, see `images.draw_selection`."""
        selection = self.selection
        first = {region.prompt: region for region in reversed(self.regions)}
        regions = [first.get(prompt) for prompt in selection.prompts]
        return draw_selection(
            ax, self.image, selection.prompts, regions, labels=selection.labels, title=title
        )

    def _filled(self) -> list[tuple[dict[str, Any], Prompt]]:
        """Return each object that says something, with its prompt."""
        filled = []
        for number, marks in enumerate(self.objects, 1):
            try:
                prompt = self._to_prompt(marks)
            except ValueError as e:
                raise ValueError(f"object {number}: {e}") from e
            if prompt is not None:
                filled.append((marks, prompt))
        return filled

    def _to_prompt(self, marks: dict[str, Any]) -> Prompt | None:
        prompt = _object_to_prompt(marks)
        return None if prompt is None else fit_prompt(prompt, self.image.shape[:2])

    @traitlets.observe("objects")
    def _follow(self, _change) -> None:
        """Find the masks of changed objects, and save; what fails is told in `error`."""
        before, self._answers = dict(self._answers), []
        masks, errors = [], []
        for number, marks in enumerate(self.objects):
            try:
                masks.append(self._find_mask(marks, object_color(number), before))
            except Exception as e:  # raised here, it would only reach a log that nobody reads
                masks.append(None)
                errors.append(f"object {number + 1}: {e}")
        if self.save_to and not errors:
            errors += self._save_along()
        with self.hold_sync():
            self.masks, self.error, self.status = masks, "; ".join(errors), ""

    def _find_mask(self, marks: dict, color: str, before: dict) -> bytes | None:
        """Return an object's mask as PNG, None if it has none; segment only what is new."""
        prompt = self._to_prompt(marks)
        if prompt is None or self.segmenter is None:
            return None
        answer = before[prompt] if prompt in before else self._ask(prompt)
        self._answers.append((prompt, answer))
        if isinstance(answer, str):
            raise ValueError(answer)
        mask = np.logical_or.reduce([region.mask for region in answer])
        return encode_mask(mask, color, MASK_SIDE) if answer else None

    def _ask(self, prompt: Prompt) -> "list[Region] | str":
        """Return the regions of a prompt, or in words why there are none."""
        try:
            if not isinstance(prompt, Text):
                self.status = "finding the mask…"
                return [self.segmenter.segment(self.image, prompt)]
            return [] if self.encoder is None else self._ask_words(prompt)
        except ValueError as e:
            return str(e)

    def _ask_words(self, prompt: Text) -> "list[Region]":
        from regionlab.regions.grounding import find_words

        self.status = "looking for the words…"
        return find_words(self.image, prompt, self.segmenter, self.encoder)

    def _save_along(self) -> list[str]:
        """Write the selection to `save_to` unless it is empty; return what went wrong."""
        try:
            if self.prompts:
                self.save(self.save_to)
        except OSError as e:
            return [f"not saved: {e}"]
        return []
