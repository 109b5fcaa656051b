"""SAM's predictor with a memory, so that an image is encoded once however often it is asked."""

import hashlib
from collections import OrderedDict

import numpy as np
import torch

from regionlab import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU

from segment_anything import SamPredictor  # isort: skip
from segment_anything.modeling import Sam  # isort: skip


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
