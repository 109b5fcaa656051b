"""SAM within bounds of memory: the same numbers, with less of them at a time.

All 12 heads of a `vit_b` at once keep three tables of 4096 x 4096 numbers each: 2.4 GB, however
small the picture. Three masks of 100 megapixels are 1.3 GB, and twice that while torch turns
them around.
"""

import torch

from regionlab import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU

from segment_anything.modeling import Sam  # isort: skip
from segment_anything.modeling.image_encoder import (  # isort: skip
    Attention,
    add_decomposed_rel_pos,
)

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
