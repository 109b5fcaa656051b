"""SAM (Kirillov et al. 2023), a segmenter that keeps within bounds of memory, and toysam."""

import copy
import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from regionlab.data.masks import MIN_COMPONENT_SHARE, remove_small_components
from regionlab.data.prompts import Box, Points, Prompt, Whole, as_prompts
from regionlab.models import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU
from regionlab.models.mask_generator import generate_masks
from regionlab.models.segmenter import (
    EmptyMaskError,
    MaskGeneratorConfig,
    Region,
    Segmenter,
    check_image,
)
from regionlab.util.errors import name_image, named_memory_error

from segment_anything import (  # isort: skip
    SamAutomaticMaskGenerator,
    SamPredictor,
    sam_model_registry,
)
from segment_anything.modeling import (  # isort: skip
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.modeling.image_encoder import Attention, get_rel_pos  # isort: skip

NUMBERS = 2**25  # of attention that are in memory at a time; one head at the least

SIDE = 128  # pixels of the longer side of what the image encoder sees
PATCH = 8
WIDTH = 128  # of the image encoder
DIM = 128  # of prompts and of the image embedding


def create_toysam() -> Sam:
    """Build toysam with random weights, in evaluation mode on the CPU."""
    grid = SIDE // PATCH
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=6,
            num_heads=4,
            mlp_ratio=4,
            out_chans=DIM,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=DIM,
            image_embedding_size=(grid, grid),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer=TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=4, mlp_dim=256),
            transformer_dim=DIM,
            iou_head_hidden_dim=DIM,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()


# Toybox's scenes hold a few large things; a finer grid finds the same ones again.
# toysam's masks have 64 x 64 logits, whose edges are softer than SAM's. On 60 scenes of Toybox val
# these leave a mask of IoU 0.5 or more for 99 % of the objects, SAM's own thresholds for 1 %.
EVERYTHING = {
    "toysam": MaskGeneratorConfig(
        points_per_side=8, pred_iou_thresh=0.5, stability_score_thresh=0.5
    )
}
ARCHITECTURES = {
    "toysam": create_toysam,
    **{name: sam_model_registry[name] for name in ("vit_b", "vit_l", "vit_h")},
}


def create(architecture: str) -> Sam:
    """Build a SAM with random weights: "toysam", "vit_b", "vit_l" or "vit_h"."""
    return ARCHITECTURES[architecture]()


def wrap(name: str, sam: Sam, fingerprint: dict, **options) -> "SamSegmenter":
    """Return the segmenter around a SAM, see `SamSegmenter`."""
    everything = EVERYTHING.get(name.partition("/")[0])
    return SamSegmenter(name, bound_memory(sam), fingerprint, everything=everything, **options)


class SamSegmenter(Segmenter):
    """A SAM that remembers the images it has seen, so that further prompts are cheap.

    Attributes
    ----------
    name, device, precision, fingerprint
        As loaded; the precision is that of the image encoder, the decoder computes in fp32.
    cache_size : How many images are remembered, the least recently used go first; a `vit_*` keeps 4
        MB an image, toysam 128 kB.
    islands : Parts of an answer that hold less than this share of it go, see
        `remove_small_components`.
    everything : The settings of `generate` where none are given.

    Raises
    ------
    ValueError : If `cache_size` is below 1.
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

    @property
    def image_bytes(self) -> int:
        """What an encoded image takes in memory: its features in float32."""
        prompts = self.predictor.model.prompt_encoder
        return 4 * prompts.embed_dim * math.prod(prompts.image_embedding_size)

    def share(self, cache_size: int) -> "SamSegmenter":
        """Return another segmenter around the same weights, with a memory of its own."""
        shared = copy.copy(self)
        shared.name = self.fingerprint["model"]  # the name may hold a path of this machine
        shared.cache_size = cache_size
        shared.predictor = CachedPredictor(self.predictor.model, self.precision, cache_size)
        return shared

    def release(self) -> None:
        """Forget all images."""
        self.predictor.forget()

    def set_image(self, image: np.ndarray) -> None:
        """Encode an image, or recall it, see `Segmenter.set_image`."""
        check_image(image)
        with named_memory_error(name_image(image.shape)):
            self.predictor.set_image(image)

    def predict(
        self, prompts: Prompt | Iterable[Prompt], *, previous: Region | None = None
    ) -> list[Region]:
        """Return the region that each prompt means.

        One click is ambiguous (a button, the shirt or the man), so SAM answers it with three
        masks, of which the one of highest predicted quality is taken. A box, or several
        points, get the single mask that SAM makes for them (Kirillov et al. 2023, section 3).
        """
        logits = self._logits_of(previous)
        return [self._predict(prompt, logits) for prompt in as_prompts(prompts)]

    def generate(self, config: MaskGeneratorConfig | None = None) -> list[Region]:
        """Return all regions of the image, see `Segmenter.segment_everything`."""
        records = generate_masks(self.predictor, config or self.everything)
        return [
            Region(
                mask=record["segmentation"],
                quality=record["predicted_iou"],
                stability=record["stability_score"],
                prompt=Points(tuple(record["point_coords"])),
            )
            for record in records
        ]

    def _predict(self, prompt: Prompt, logits: np.ndarray | None) -> Region:
        if isinstance(prompt, Whole):
            return Region(np.ones(self.predictor.original_size, bool), prompt=prompt)
        points = prompt if isinstance(prompt, Points) else None
        box: Box | None = points.box if points else prompt
        one_click = points is not None and len(points.xy) == 1 and box is None
        masks, qualities, low = self.predictor.predict(
            point_coords=np.array(points.xy) if points else None,
            point_labels=np.array(points.labels) if points else None,
            box=box.xyxy if box else None,
            mask_input=logits,
            multimask_output=one_click and logits is None,
        )
        best = int(qualities.argmax())
        mask = remove_small_components(masks[best], self.islands)
        if not mask.any():
            raise EmptyMaskError(
                f"{self.name} finds nothing at {prompt}: click nearer to the middle of what "
                "is meant, or draw a box around it"
            )
        quality = float(qualities[best])
        return Region(mask, quality, logits=low[best : best + 1], prompt=prompt)

    def _logits_of(self, previous: Region | None) -> np.ndarray | None:
        if previous is None:
            return None
        side = 4 * self.predictor.model.prompt_encoder.image_embedding_size[0]
        if previous.logits is None or previous.logits.shape != (1, side, side):
            shape = None if previous.logits is None else previous.logits.shape
            raise ValueError(
                f"the previous region has logits {shape}, {self.name} needs (1, {side}, {side}): "
                "refine what `segment` of the same model returned for a box or points"
            )
        return previous.logits


def create_sams_own_generator(
    segmenter: SamSegmenter, settings: MaskGeneratorConfig
) -> SamAutomaticMaskGenerator:
    """Return SAM's own generator on the same network and settings, to measure ours against."""
    shared = ("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh",
              "stability_score_offset", "box_nms_thresh")  # fmt: skip
    options = {name: getattr(settings, name) for name in shared}
    return SamAutomaticMaskGenerator(segmenter.predictor.model, **options)


# Within bounds of memory


class CachedPredictor(SamPredictor):
    """SAM's predictor with a memory of the images it was set to, the latest ones."""

    def __init__(self, sam: Sam, precision: str, cache_size: int):
        if cache_size < 1:
            raise ValueError(f"cache_size must be at least 1, not {cache_size}")
        super().__init__(sam)
        self.precision, self.cache_size = precision, cache_size
        self.forget()

    def forget(self) -> None:
        """Forget all images."""
        self._cache: OrderedDict[bytes, tuple] = OrderedDict()
        self.reset_image()

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
        bias = self._weigh_places(q, size) if self.use_rel_pos else None
        return scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=bias)[0]

    def _weigh_places(self, q: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return what relative positions add to the attention, (1, n, h * w, h * w)."""
        (h, w), cells = size, q.unflatten(1, size)
        rows = torch.einsum("nhwc,hkc->nhwk", cells, get_rel_pos(h, h, self.rel_pos_h))
        columns = torch.einsum("nhwc,wkc->nhwk", cells, get_rel_pos(w, w, self.rel_pos_w))
        return (rows[..., None] + columns[..., None, :]).flatten(3).flatten(1, 2)[None]


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
