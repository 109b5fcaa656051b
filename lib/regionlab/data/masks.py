"""Masks: COCO's run-length encoding (RLE), boxes, connected components, and masks kept small."""

import zlib

import numpy as np
from pycocotools import mask as coco_mask

# Of the mask's pixels. Chosen on Toybox val: one click 0.858 instead of 0.855 mean IoU, a box as
# before. More would take away parts of things that are partly hidden.
MIN_COMPONENT_SHARE = 0.1
PIXELS = 2**24  # of components, counted at a time
# EXIF orientation -> what puts stored pixels upright: rows mirrored, columns mirrored, transposed.
STEPS = {
    1: (False, False, False), 2: (False, True, False), 3: (True, True, False),
    4: (True, False, False), 5: (False, False, True), 6: (True, False, True),
    7: (True, True, True), 8: (False, True, True),
}  # fmt: skip
LEVEL = 1  # of zlib: the fastest; rows of equal bytes shrink by a factor of 200 all the same
LETTERS = 12  # in a number of an RLE, at most


def mask_to_rle(mask: np.ndarray) -> dict:
    """Encode an (H, W) bool mask as compressed RLE, `{"size": [H, W], "counts": str}`."""
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"mask must be (H, W) bool, not {mask.shape} {mask.dtype}")
    return _as_text(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def rle_to_mask(rle: dict) -> np.ndarray:
    """Decode a compressed RLE into an (H, W) bool mask.

    Raises
    ------
    ValueError
        If the runs do not fill the size exactly.
    """
    # Not by pycocotools: its decoder leaves pixels that short runs do not reach to chance.
    (height, width), runs = rle["size"], _decode_runs(rle["counts"])
    _check_runs(runs, height, width)
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def segmentation_to_rle(segmentation: list | dict | None, height: int, width: int) -> dict:
    """Turn a COCO segmentation into compressed RLE.

    Parameters
    ----------
    segmentation
        Polygons `[[x, y, x, y, ...], ...]` in pixels, of which the union counts (those of
        fewer than three points enclose nothing and are left out); or RLE
        `{"size": [height, width], "counts": ...}` with a list (uncompressed) or a string.
    height, width
        Size of the image in pixels.

    Raises
    ------
    ValueError
        If there is no segmentation, or it is none of these, or of another size.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a mask needs the image's size, not {height} x {width}")
    if not segmentation:
        raise ValueError("no segmentation")
    if not isinstance(segmentation, dict):
        polygons = _check_polygons(segmentation)
        return _as_text(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))

    counts = segmentation.get("counts")
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"RLE size {segmentation.get('size')} is not [{height}, {width}]")
    if isinstance(counts, list):
        _check_runs(counts, height, width)
        return _as_text(coco_mask.frPyObjects(segmentation, height, width))
    if not isinstance(counts, str | bytes):
        raise ValueError(f"RLE counts must be a list or a string, not {counts!r}")
    rle = _as_text(segmentation)
    check_rle(rle)
    return rle


def check_rle(rle: dict) -> None:
    """Raise ValueError unless the runs of a compressed RLE fill its size exactly."""
    _check_runs(_decode_runs(rle["counts"]), *rle["size"])


def _as_text(rle: dict) -> dict:
    counts = rle["counts"]
    text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def _check_polygons(polygons: list) -> list[list[float]]:
    try:
        arrays = [np.asarray(polygon, dtype=float) for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"a polygon is not a list of numbers: {str(polygons)[:80]}") from e
    for array in arrays:
        if array.ndim != 1 or array.size % 2 or not np.isfinite(array).all():
            raise ValueError(f"a polygon must be [x, y, x, y, ...], not {str(polygons)[:80]}")
    closed = [array.tolist() for array in arrays if array.size >= 6]
    if not closed:
        raise ValueError(f"no polygon has three points: {str(polygons)[:80]}")
    return closed


def _check_runs(runs: list[int], height: int, width: int) -> None:
    wrong = [run for run in runs if not isinstance(run, int) or run < 0]
    if wrong:
        raise ValueError(f"an RLE run must be a whole number of pixels, not {wrong[0]!r}")
    if sum(runs) != height * width:
        raise ValueError(f"RLE runs cover {sum(runs)} pixels, not {height * width:.0f}")


def _decode_runs(counts: str) -> list[int]:
    """Return the runs of COCO's text code: 5 bits a letter, differences from the third on."""
    points = np.frombuffer(counts.encode("utf-32-le", "surrogatepass"), np.uint32)
    codes = points.astype(np.int64) - 48
    if (strange := (codes < 0) | (codes > 63)).any():
        letter = counts[int(strange.argmax())]
        raise ValueError(f"RLE counts hold {letter!r}, which is no letter of the code")
    if len(codes) and codes[-1] & 0x20:
        raise ValueError("RLE counts end in the middle of a number")
    ends = np.flatnonzero(codes & 0x20 == 0)  # letters behind which no further one follows
    sizes = np.diff(ends, prepend=-1)
    if sizes.max(initial=0) > LETTERS:
        raise ValueError(f"RLE counts hold a number of {sizes.max()} letters")
    starts = ends + 1 - sizes
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, sizes))
    runs = np.add.reduceat((codes & 0x1F) << shift, starts) if len(starts) else starts
    runs -= (codes[ends] & 0x10 > 0).astype(np.int64) << (5 * sizes)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs.tolist()


def mask_to_box(mask: np.ndarray) -> np.ndarray:
    """Return the tight box of an (H, W) bool mask.

    Returns
    -------
    np.ndarray
        (4,) float64, XYXY in pixels, right and bottom exclusive.

    Raises
    ------
    ValueError
        If the mask has no pixels.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("the mask has no pixels, so it has no box")
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)


def remove_small_components(mask: np.ndarray, share: float = MIN_COMPONENT_SHARE) -> np.ndarray:
    """Return an (H, W) bool mask without the connected parts below a share of its pixels.

    The counterpart of `min_mask_region_area` in `SamAutomaticMaskGenerator`, but relative to
    the mask, so that it means the same in an image of any size. `share` is in [0, 1] (else
    ValueError); 0 keeps all. The largest part stays in any case.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of an island must be in [0, 1], not {share}")
    from scipy.ndimage import label  # late: slow to import

    parts, count = label(mask, structure=np.ones((3, 3)))
    if count < 2 or share == 0:
        return mask
    # Row by row in blocks: for all at once, bincount makes 8 bytes of each pixel.
    blocks = np.array_split(parts, 1 + parts.size // PIXELS)
    sizes = sum(np.bincount(block.ravel(), minlength=count + 1) for block in blocks)
    sizes[0] = 0
    kept = sizes >= share * sizes.sum()
    kept[sizes.argmax()] = True
    return kept[parts] & mask


def is_sideways(orientation: int) -> bool:
    """Tell whether width and height change places when an image is put upright."""
    return STEPS[orientation][2]


def turn_mask(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an (H, W) bool mask of stored pixels upright, contiguous; (W, H) where sideways."""
    rows, columns, transposed = STEPS[orientation]
    mask = mask[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(mask.T if transposed else mask)


def turn_box(
    box: tuple[float, float, float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Turn a box, XYXY in stored pixels, upright; `size` is the stored width and height."""
    (x0, y0, x1, y1), (width, height) = box, size
    rows, columns, transposed = STEPS[orientation]
    if columns:
        x0, x1 = width - x1, width - x0
    if rows:
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if transposed else (x0, y0, x1, y1)


class MaskBits:
    """An (H, W) bool mask kept small: a bit a pixel, deflated; equal if the masks are.

    An image of 100 megapixels has hundreds of masks of 100 MB each; so kept they take some kB.
    """

    __slots__ = ("_data", "area", "shape")

    def __init__(self, mask: np.ndarray):
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
