"""Segmenter: what turns an image and prompts into regions; every segmenter has this protocol."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from regionlab.data.masks import KeptSmall, MaskBits, check_mask, mask_to_box, mask_to_rle
from regionlab.data.prompts import Prompt, Text, Whole, fit_prompt
from regionlab.util.errors import RegionlabError, name_image, named_memory_error


@dataclass(frozen=True)
class MaskGeneratorConfig:
    """How to find all regions of an image: SAM asked on a grid of points.

    The defaults are SAM's own, which are made for photographs. Its further runs on crops of
    the image are left out: they encode the image many times over.

    Attributes
    ----------
    points_per_side : The grid has the square of it.
    points_per_batch : How many are asked at once: memory against speed.
    pred_iou_thresh, stability_score_thresh
        Masks of lower predicted quality or stability go; both in [0, 1].
    stability_score_offset : How far the threshold is moved, in logits, to measure stability.
    box_nms_thresh : Of two masks whose boxes overlap more than this (IoU) the better one stays.
    min_area : Smaller masks go, in pixels.
    max_regions : How many stay at most, those of the best predicted quality; None keeps all.

    Raises
    ------
    ValueError : If a value is out of its range; names it.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    min_area: int = 1
    max_regions: int | None = None

    def __post_init__(self):
        counts = ["points_per_side", "points_per_batch", "min_area"]
        for name in counts if self.max_regions is None else [*counts, "max_regions"]:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        if not 0 < self.stability_score_offset < float("inf"):
            raise ValueError(
                f"stability_score_offset must be above 0, not {self.stability_score_offset}"
            )


class EmptyMaskError(RegionlabError, ValueError):
    """The segmenter found no pixel for a prompt; says which, and what to try."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image.

    Attributes
    ----------
    mask : (H, W) bool, the image's own size, with at least one pixel inside. A new array each time:
        what is kept are `mask_bits`, see `masks.MaskBits`.
    quality : IoU with what is meant, as SAM predicts it: near 1 where it is sure, at times above.
    stability : IoU of the mask with itself at a lower and a higher threshold, in [0, 1]; None for a
        mask from a prompt.
    logits : (1, g, g) float32, the mask as SAM sees it, which a further prompt can refine; None
        where there is none.
    prompt : What it was made from.

    Raises
    ------
    ValueError : If the mask has no pixels, or another shape or dtype.
    """

    mask: np.ndarray | MaskBits = KeptSmall()
    quality: float = 1.0
    stability: float | None = None
    logits: np.ndarray | None = None
    prompt: Prompt | None = None

    def __repr__(self) -> str:
        height, width = self.mask_bits.shape
        return f"<Region of {self.area} pixels in {width} x {height}, quality {self.quality:.2f}>"

    @cached_property
    def box(self) -> np.ndarray:
        """The tight box, (4,) float64 XYXY in pixels, right and bottom exclusive."""
        return mask_to_box(self.mask)

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.mask_bits.area

    @cached_property
    def rle(self) -> dict:
        """The mask as COCO's compressed RLE, see `regionlab.data.masks`."""
        return mask_to_rle(self.mask)


@runtime_checkable
class Segmenter(Protocol):
    """A promptable segmenter, made by `registry.load_segmenter`. Not for several threads at once.

    A subclass implements `set_image`, `predict`, `generate`, `share` and `release`; `segment` and
    `segment_everything` are made of these. An image that does not fit into memory is a
    MemoryError, on a GPU too, and the next one may be asked for.

    Attributes
    ----------
    name : As loaded.
    fingerprint : What decides the masks: model, SHA-256 of the weights, precision.
    everything : The settings of `generate` where none are given.
    image_bytes : What an encoded image takes in memory.
    """

    name: str
    fingerprint: dict[str, Any]
    everything: MaskGeneratorConfig
    image_bytes: int

    def set_image(self, image: np.ndarray) -> None:
        """Encode an image, (H, W, 3) uint8 RGB, or recall it: the next calls are about it.

        Raises
        ------
        ValueError : If the image has another shape or dtype, or is too narrow for the model.
        """
        ...

    def predict(
        self, prompts: Prompt | Iterable[Prompt], *, previous: Region | None = None
    ) -> list[Region]:
        """Return the region of the image that each prompt means, see `segment`."""
        ...

    def generate(self, config: MaskGeneratorConfig | None = None) -> list[Region]:
        """Return all regions of the image, see `segment_everything`."""
        ...

    def share(self, cache_size: int) -> "Segmenter":
        """Return another segmenter around the same weights, with a memory of its own."""
        ...

    def release(self) -> None:
        """Forget all images."""
        ...

    def segment(
        self, image: np.ndarray, prompt: Prompt, *, previous: Region | None = None
    ) -> Region:
        """Return the region that a prompt means.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB. Encoded once, then remembered.
        prompt : In pixels of the image; a box partly outside is clipped.
        previous : The region to refine, as returned for this image before. Give all points so far,
            the correcting one included: the model gets them together with the old mask.

        Raises
        ------
        TypeError : If the prompt is a Text: `grounding.find_words` answers those.
        ValueError : If the prompt lies outside the image, the image has another shape or dtype, or
            `previous` is of another image or model.
        EmptyMaskError : If there is no pixel in the mask.
        """
        _check_prompt(prompt)
        check_image(image)
        prompt = fit_prompt(prompt, image.shape[:2])
        if isinstance(prompt, Whole):  # needs no model
            return Region(np.ones(image.shape[:2], bool), prompt=prompt)
        if previous is not None and previous.mask_bits.shape != image.shape[:2]:
            raise ValueError(
                f"the previous region is of an image of {previous.mask_bits.shape} pixels, "
                f"this one has {image.shape[:2]}"
            )
        with named_memory_error(name_image(image.shape)):
            self.set_image(image)
            return self.predict(prompt, previous=previous)[0]

    def segment_everything(
        self, image: np.ndarray, *, settings: MaskGeneratorConfig | None = None
    ) -> list[Region]:
        """Return all regions that the model finds in an image, best predicted quality first.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB. Encoded once, then remembered.
        settings : By default `self.everything`.

        Returns
        -------
        list of Region
            No two of the same mask; empty where nothing passes the thresholds. `prompt` is
            the point of the grid that each was found by.

        Raises
        ------
        ValueError : If the image has another shape or dtype, or is too narrow for the model.
        """
        check_image(image)
        with named_memory_error(name_image(image.shape)):
            self.set_image(image)
            return self.generate(settings)


def erase_background(
    image: np.ndarray, mask: np.ndarray, *, fill: Sequence[int] = (0, 0, 0)
) -> np.ndarray:
    """Return the image with all outside of the mask in one colour (S0, equation 3).

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB.
    mask : (H, W) bool, the image's own size.
    fill : RGB in [0, 255]; the paper's is black.

    Raises
    ------
    ValueError
        If the image, mask or colour has another shape, dtype or range, or the mask no pixels.
    """
    check_image(image)
    check_mask(mask)
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the mask has {mask.shape} pixels, the image {image.shape[:2]}")
    colour = np.asarray(fill)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise ValueError(f"fill must be (red, green, blue) in [0, 255], not {fill!r}")
    return np.where(mask[..., None], image, colour.astype(np.uint8))


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless the image is (H, W, 3) uint8 with pixels."""
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise ValueError(f"the image must be (H, W, 3) uint8 RGB, not {shape} {dtype}")


def _check_prompt(prompt: Prompt) -> None:
    if isinstance(prompt, Text):
        raise TypeError(f"{prompt} is found by grounding.find_words, with a CLIP beside the SAM")
    if not isinstance(prompt, Prompt):
        raise TypeError(f"{prompt!r} is no prompt: say Box, Points or Whole")
