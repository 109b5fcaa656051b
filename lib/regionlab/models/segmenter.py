"""Segmenter: an image and a prompt become a mask, through segment_anything (SAM)."""

import hashlib
from collections import OrderedDict

import numpy as np
import torch

from regionlab.models import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU
from regionlab.util.errors import RegionlabError

from segment_anything import SamPredictor  # isort: skip
from segment_anything.modeling import Sam  # isort: skip
from segment_anything.modeling.image_encoder import (  # isort: skip
    Attention,
    add_decomposed_rel_pos,
)
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from regionlab.data.masks import (
    MIN_COMPONENT_SHARE,
    KeptSmall,
    MaskBits,
    check_mask,
    mask_to_box,
    mask_to_rle,
    remove_small_components,
)
from regionlab.data.prompts import Box, Points, Prompt, Text, Whole, fit_prompt
from regionlab.models.mask_generator import MaskGeneratorConfig, generate_masks
from regionlab.util.memory import name_picture, named_memory_error


class CachedPredictor(SamPredictor):
    """SAM's predictor with a memory of the images it was set to, the latest ones."""

    def __init__(self, sam: Sam, precision: str, cache_size: int):
        if cache_size < 1:
            raise ValueError(f"cache_size must be at least 1, not {cache_size}")
        super().__init__(sam)
        self.precision, self.cache_size = precision, cache_size
        self._cache: OrderedDict[bytes, tuple] = OrderedDict()

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Encode an (H, W, 3) uint8 image, or recall it by its pixels."""
        key = hashlib.sha256(f"{image.shape} {image_format}".encode())
        key.update(np.ascontiguousarray(image))
        key = key.digest()
        if key not in self._cache:
            self._encode(image, image_format)
            self._cache[key] = self.features, self.original_size, self.input_size
            if len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        self.features, self.original_size, self.input_size = self._cache[key]
        self.is_image_set = True

    def _encode(self, image: np.ndarray, image_format: str) -> None:
        height, width = image.shape[:2]
        side = self.transform.target_length
        if min(self.transform.get_preprocess_shape(height, width, side)) < 1:
            raise ValueError(
                f"the image is too narrow: {width} x {height} pixels, of which nothing is left "
                f"when the longer side becomes {side}; crop it"
            )
        # The decoder is small and its logits are compared with thresholds: it stays in fp32.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            super().set_image(image, image_format)
        self.features = self.features.float()


NUMBERS = 2**25  # of attention that are in memory at a time; one head at the least


class AttentionByHeads(Attention):
    """The same attention, some heads at a time: they know nothing of each other anyway."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within (b, h, w, c) tokens."""
        b, h, w, _ = x.shape
        qkv = self.qkv(x).reshape(b, h * w, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        qkv = qkv.reshape(3, b * self.num_heads, h * w, -1)
        some = max(1, NUMBERS // (h * w) ** 2)
        heads = torch.cat([self._attend(*part, (h, w)) for part in qkv.split(some, dim=1)])
        heads = heads.view(b, self.num_heads, h, w, -1).permute(0, 2, 3, 1, 4)
        return self.proj(heads.reshape(b, h, w, -1))

    def _attend(self, q, k, v, size: tuple[int, int]) -> torch.Tensor:
        """Return what (n, h * w, c) queries of n heads find."""
        attention = (q * self.scale) @ k.transpose(-2, -1)
        if self.use_rel_pos:
            sides = self.rel_pos_h, self.rel_pos_w
            attention = add_decomposed_rel_pos(attention, q, *sides, size, size)
        return attention.softmax(dim=-1) @ v


class BoundedSam(Sam):
    """A SAM that attends by heads and enlarges three masks without a second copy."""

    def postprocess_masks(
        self, masks: torch.Tensor, input_size: tuple[int, ...], original_size: tuple[int, ...]
    ) -> torch.Tensor:
        """Enlarge logits (b, c, g, g) to (b, c, *original_size)."""
        if masks.device.type == "cpu" and masks.shape[1] == 3:
            # As torch wants three channels on a processor: else it turns them, and back.
            masks = masks.contiguous(memory_format=torch.channels_last)
        return super().postprocess_masks(masks, input_size, original_size)


def bound_memory(sam: Sam) -> Sam:
    """Make a SAM keep within bounds of memory, and return it."""
    for module in sam.image_encoder.modules():
        if type(module) is Attention:
            module.__class__ = AttentionByHeads
    sam.__class__ = BoundedSam
    return sam


class EmptyMaskError(RegionlabError, ValueError):
    """The segmenter found no pixel for a prompt; says which, and what to try."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image.

    Attributes
    ----------
    mask
        (H, W) bool, the image's own size, with at least one pixel inside. A new array each
        time: what is kept are `mask_bits`, see `mask_bits.MaskBits`.
    quality
        IoU with what is meant, as SAM predicts it: near 1 where it is sure, at times above.
    stability
        IoU of the mask with itself at a lower and a higher threshold, in [0, 1]; None for a
        mask from a prompt.
    logits
        (1, g, g) float32, the mask as SAM sees it, which a further prompt can refine; None
        where there is none.
    prompt
        What it was made from.

    Raises
    ------
    ValueError
        If the mask has no pixels, or another shape or dtype.
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


class Segmenter:
    """A SAM that remembers the images it has seen, so that further prompts are cheap.

    Made by `segmenters.load_segmenter`. Not for several threads at once. A picture that does
    not fit into memory is a MemoryError, on a GPU too, and the next one may be asked for.

    Attributes
    ----------
    name, device, precision
        As loaded; the precision is that of the image encoder, the decoder computes in fp32.
    cache_size
        How many images are remembered, the least recently used go first; a `vit_*` keeps 4 MB
        an image, toysam 128 kB.
    islands
        Parts of an answer that hold less than this share of it go, see
        `remove_small_components`.
    everything
        The settings of `segment_everything` where none are given.
    fingerprint
        What decides the masks: model, SHA-256 of the weights, precision.

    Raises
    ------
    ValueError
        If `cache_size` is below 1.
    """

    def __init__(
        self,
        name: str,
        sam: Sam,
        fingerprint: dict,
        *,
        everything: MaskGeneratorConfig | None = None,
        cache_size: int = 8,
        islands: float = MIN_COMPONENT_SHARE,
    ):
        self.name, self.fingerprint = name, fingerprint
        self.precision, self.device = fingerprint["precision"], sam.device
        self.everything = everything or MaskGeneratorConfig()
        self.cache_size, self.islands = cache_size, islands
        self.predictor = CachedPredictor(sam, self.precision, cache_size)

    def __repr__(self) -> str:
        return f"<Segmenter {self.name}: {self.precision} on {self.device}>"

    def embed(self, image: np.ndarray) -> None:
        """Encode an image now, so that its first prompt is as quick as the further ones.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB.

        Raises
        ------
        ValueError
            If the image has another shape or dtype, or is too narrow for the model.
        """
        check_image(image)
        with named_memory_error(name_picture(image.shape)):
            self.predictor.set_image(image)

    def segment(
        self, image: np.ndarray, prompt: Prompt, *, previous: Region | None = None
    ) -> Region:
        """Return the region that a prompt means.

        One click is ambiguous (a button, the shirt or the man), so SAM answers it with three
        masks, of which the one of highest predicted quality is taken. A box, or several
        points, get the single mask that SAM makes for them (Kirillov et al. 2023, section 3).

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB. Encoded once, then remembered.
        prompt
            In pixels of the image; a box partly outside is clipped.
        previous
            The region to refine, as returned for this image before. Give all points so far,
            the correcting one included: SAM gets them together with the old mask.

        Raises
        ------
        TypeError
            If the prompt is a Text: `words.find_words` answers those.
        ValueError
            If the prompt lies outside the image, the image has another shape or dtype, or
            `previous` is of another image or model.
        EmptyMaskError
            If there is no pixel in the mask.
        """
        _check_prompt(prompt)
        check_image(image)
        prompt = fit_prompt(prompt, image.shape[:2])
        if isinstance(prompt, Whole):
            return Region(np.ones(image.shape[:2], bool), prompt=prompt)
        logits = self._logits_of(previous, image)
        with named_memory_error(name_picture(image.shape)):
            answer = self._ask(image, prompt, logits)
        if not answer["mask"].any():
            raise EmptyMaskError(
                f"{self.name} finds nothing at {prompt}: click nearer to the middle of what "
                "is meant, or draw a box around it"
            )
        return Region(**answer, prompt=prompt)

    def segment_everything(
        self, image: np.ndarray, *, settings: MaskGeneratorConfig | None = None
    ) -> list[Region]:
        """Return all regions that SAM finds in an image, best predicted quality first.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB. Encoded once, then remembered.
        settings
            By default `self.everything`.

        Returns
        -------
        list of Region
            No two of the same mask; empty where nothing passes the thresholds. `prompt` is
            the point of the grid that each was found by.

        Raises
        ------
        ValueError
            If the image has another shape or dtype, or is too narrow for the model.
        """
        check_image(image)
        with named_memory_error(name_picture(image.shape)):
            records = generate_masks(self.predictor, image, settings or self.everything)
        return [_record_to_region(record) for record in records]

    def _ask(self, image: np.ndarray, prompt: Box | Points, logits: np.ndarray | None) -> dict:
        """Return mask, quality and logits of the best of SAM's answers."""
        points = prompt if isinstance(prompt, Points) else None
        box = points.box if points else prompt
        one_click = points is not None and len(points.xy) == 1 and box is None
        self.predictor.set_image(image)
        masks, qualities, low = self.predictor.predict(
            point_coords=np.array(points.xy) if points else None,
            point_labels=np.array(points.labels) if points else None,
            box=box.xyxy if box else None,
            mask_input=logits,
            multimask_output=one_click and logits is None,
        )
        best = int(qualities.argmax())
        return {
            "mask": remove_small_components(masks[best], self.islands),
            "quality": float(qualities[best]),
            "logits": low[best : best + 1],
        }

    def _logits_of(self, previous: Region | None, image: np.ndarray) -> np.ndarray | None:
        if previous is None:
            return None
        if previous.mask_bits.shape != image.shape[:2]:
            raise ValueError(
                f"the previous region is of an image of {previous.mask_bits.shape} pixels, "
                f"this one has {image.shape[:2]}"
            )
        side = 4 * self.predictor.model.prompt_encoder.image_embedding_size[0]
        if previous.logits is None or previous.logits.shape != (1, side, side):
            shape = None if previous.logits is None else previous.logits.shape
            raise ValueError(
                f"the previous region has logits {shape}, {self.name} needs (1, {side}, {side}): "
                "refine what `segment` of the same model returned for a box or points"
            )
        return previous.logits


def erase_background(
    image: np.ndarray, mask: np.ndarray, *, fill: Sequence[int] = (0, 0, 0)
) -> np.ndarray:
    """Return the image with all outside of the mask in one colour (S0, equation 3).

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB.
    mask
        (H, W) bool, the image's own size.
    fill
        RGB in [0, 255]; the paper's is black.

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
        raise TypeError(f"{prompt} is found by words.find_words, with a CLIP beside the SAM")
    if not isinstance(prompt, Prompt):
        raise TypeError(f"{prompt!r} is no prompt: say Box, Points or Whole")


def _record_to_region(record: dict) -> Region:
    return Region(
        mask=record["segmentation"],
        quality=record["predicted_iou"],
        stability=record["stability_score"],
        prompt=Points(tuple(record["point_coords"])),
    )
