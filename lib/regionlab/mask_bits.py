"""Masks kept small: a bit a pixel, deflated, and unpacked when they are asked for.

A picture of 100 megapixels has hundreds of masks of 100 MB each; so kept they take some kB.
"""

import zlib

import numpy as np

LEVEL = 1  # of zlib: the fastest; rows of equal bytes shrink by a factor of 200 all the same


class MaskBits:
    """A mask kept small.

    Two are equal if their masks are.

    Attributes
    ----------
    shape
        (H, W).
    area
        Pixels inside.
    """

    __slots__ = ("_data", "area", "shape")

    def __init__(self, mask: np.ndarray):
        """Pack an (H, W) bool mask."""
        bits = np.packbits(mask)
        self.shape, self.area = mask.shape, int(np.bitwise_count(bits).sum(dtype=np.int64))
        self._data = zlib.compress(bits, LEVEL)

    def unpack(self) -> np.ndarray:
        """Return the mask, a new (H, W) bool array."""
        height, width = self.shape
        bits = np.frombuffer(zlib.decompress(self._data, bufsize=height * width // 8 + 1), np.uint8)
        return np.unpackbits(bits, count=height * width).view(bool).reshape(height, width)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskBits):
            return NotImplemented
        return (self.shape, self._data) == (other.shape, other._data)

    def __hash__(self) -> int:
        return hash((self.shape, self._data))


class KeptSmall:
    """An attribute that takes a mask, or its `MaskBits`, and gives the mask.

    What is kept are the bits, in an attribute with `_bits` at the end of its name.
    """

    def __set_name__(self, owner: type, name: str):
        self._bits = f"{name}_bits"

    def __get__(self, instance: object, owner: type) -> np.ndarray:
        if instance is None:  # dataclasses ask for a default: there is none
            raise AttributeError(self._bits)
        return instance.__dict__[self._bits].unpack()

    def __set__(self, instance: object, mask: np.ndarray | MaskBits) -> None:
        if not isinstance(mask, MaskBits):
            check_mask(mask)
            mask = MaskBits(mask)
        instance.__dict__[self._bits] = mask


def check_mask(mask: np.ndarray) -> None:
    """Raise ValueError unless the mask is (H, W) bool with at least one pixel inside."""
    shape, dtype = np.shape(mask), getattr(mask, "dtype", type(mask).__name__)
    if len(shape) != 2 or dtype != np.bool_:
        raise ValueError(f"the mask must be (H, W) bool, not {shape} {dtype}")
    if not mask.any():
        raise ValueError("the mask has no pixels")
