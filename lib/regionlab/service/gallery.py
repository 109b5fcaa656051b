"""The collection as visitors see it: images by id, thumbnails and outlines of regions."""

import hashlib
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from contourpy import contour_generator
from fastapi import HTTPException

from regionlab.data.images import MAX_SCANS, ImageError, read_image, read_thumbnail
from regionlab.index.index import Index
from regionlab.models.encoder import MAX_ASPECT
from regionlab.service.limits import Limits
from regionlab.service.work import DecodeError, Decoders, Told
from regionlab.viz.images import encode_image

UPLOAD = "upload-"  # ids of files that were sent begin so
HEADER_SECONDS = 1.0  # of a processor, to read an image's header
HEADER_COST = 8  # of each byte, beside that of a pixel: some headers are as long as the file
THUMBNAIL = 320  # pixels of the longer side, where the page shows many
KEPT_SIDE = 512  # thumbnails up to this size are kept in memory
KEPT = 1024  # how many
OUTLINE_SIDE = 256  # steps along the longer side of an image that an outline follows


def mask_to_path(mask: np.ndarray, *, side: int = OUTLINE_SIDE) -> str:
    """Return the outline of a mask, (H, W) bool, as an SVG path in pixels, holes included.

    Such as "M10 20L10 30L20 30Z", empty for an empty mask. A mask whose longer side is above `side`
    is followed in coarser steps.
    """
    step = -(-max(mask.shape) // side)
    middles = mask[step // 2 :: step, step // 2 :: step]
    padded = np.pad(middles, 1).astype(np.float32)  # so that outlines close at the edge
    lines = contour_generator(z=padded).lines(0.5)
    return "".join(_line_to_path((_drop_straight(line) - 0.5) * step) for line in lines)


def _drop_straight(line: np.ndarray) -> np.ndarray:
    """Leave out the points of a closed line, (n, 2), at which it does not turn."""
    points = line[:-1]  # the first comes again at the end
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return points[turns]


def _line_to_path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z"


def name_upload(data: bytes) -> str:
    """Return the id of an image that was sent, which nobody knows without the image."""
    return UPLOAD + hashlib.sha256(data).hexdigest()[:32]


async def peek_upload(decoders: Decoders, data: bytes, limits: Limits) -> tuple[int, int, int]:
    """Return width, height and scans as the header of an image has them; nothing is unpacked.

    HTTPException 413 if it has too many pixels, 422 if it is no image, as narrow as a line, or has
    too many scans.
    """
    cost = HEADER_COST * len(data)
    told, _ = await _ask(decoders, "peek", data, cost, HEADER_SECONDS)
    if "error" in told:
        if told["large"]:
            raise HTTPException(413, f"the image is too large: {told['error']}")
        raise HTTPException(422, told["error"])
    width, height = told["size"]
    if width * height > limits.pixels:
        size = f"{width} x {height} pixels"
        raise HTTPException(
            413, f"the image is too large: {size}, at most {limits.pixels:,} in all"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise HTTPException(422, f"the image is too narrow: {width} x {height} pixels")
    if told["scans"] > MAX_SCANS:
        raise _unreadable(f"more than {MAX_SCANS} progressive scans")
    return width, height, told["scans"]


async def read_upload(decoders: Decoders, data: bytes, cost: float, limits: Limits) -> np.ndarray:
    """Read an image that was sent, (H, W, 3) uint8 RGB.

    HTTPException 422 if it is damaged, or cannot be unpacked within `limits.decode_seconds`.
    """
    told, pixels = await _ask(decoders, "read", data, cost, limits.decode_seconds)
    if "error" in told:
        raise _unreadable(told["error"])
    return pixels


async def _ask(decoders: Decoders, job: str, data: bytes, cost: float, seconds: float) -> Told:
    try:
        return await decoders.ask(job, data, cost=cost, seconds=seconds)
    except DecodeError as e:
        raise _unreadable(str(e)) from e


def _unreadable(reason: str) -> HTTPException:
    return HTTPException(422, f"the image cannot be read: {reason}")


class Gallery:
    """An index's images and regions, by their ids and ready to be shown."""

    def __init__(self, index: Index):
        self.index = index
        self.rows = {name: row for row, name in enumerate(index.images["image_id"])}
        names = () if index.regions is None else index.regions["region_id"]
        self.region_rows = {name: row for row, name in enumerate(names)}
        # Of this gallery alone, so that they go with it.
        self._keep_thumbnail = lru_cache(KEPT)(self._make_jpeg)
        self.outline = lru_cache(16 * KEPT)(lambda row: mask_to_path(index.region_mask(row)))

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, image_id: str) -> int:
        """Return the row of an image; HTTPException 404 if there is none."""
        if image_id not in self.rows:
            raise HTTPException(404, f"no image {image_id!r}")
        return self.rows[image_id]

    def count_pixels(self, row: int) -> int:
        """Return how many pixels an image has."""
        image = self.index.images.iloc[row]
        return int(image["width"]) * int(image["height"])

    def find_judged(self, name: str) -> str:
        """Return the id of the image that an image's or a region's id stands for, else 404."""
        if name in self.region_rows:
            return self.index.regions["image_id"].iloc[self.region_rows[name]]
        self.find(name)
        return name

    def read(self, row: int, side: int | None = None) -> np.ndarray:
        """Read an image, (H, W, 3) uint8 RGB, no side above `side`; 404 if its file is gone."""
        path = self.index.path(row)
        try:
            return read_image(path) if side is None else read_thumbnail(path, side)
        except ImageError as e:  # its text has the path, which is nobody's business
            name = self.index.images["image_id"].iloc[row]
            raise HTTPException(404, f"the file of image {name!r} cannot be read") from e

    def make_jpeg(self, row: int, side: int | None) -> bytes:
        """Return an image as JPEG, in its own size or no side above `side` pixels.

        Made anew from the pixels: what a file says beside them, such as the place, stays here.
        """
        keep = side is not None and side <= KEPT_SIDE
        return self._keep_thumbnail(row, side) if keep else self._make_jpeg(row, side)

    def _make_jpeg(self, row: int, side: int | None) -> bytes:
        image = self.read(row, side)
        return encode_image(image, side or max(image.shape))

    def describe(self, row: int) -> dict[str, Any]:
        """Return an image as `forms.ListedImage` has it."""
        image = self.index.images.iloc[row]
        url = f"/image/{quote(image['image_id'], safe='')}"
        return {
            "image_id": image["image_id"],
            "name": PurePosixPath(image["path"]).name,
            "width": image["width"],
            "height": image["height"],
            "image_url": url,
            "thumbnail_url": f"{url}?size={THUMBNAIL}",
        }

    def describe_region(self, row: int) -> dict[str, Any]:
        """Return a region's part of `answers.Match`."""
        region = self.index.regions.iloc[row]
        image = self.index.images.iloc[region["row"]]
        return {
            "region_id": region["region_id"],
            "box": tuple(region[["x0", "y0", "x1", "y1"]]),
            "area": region["area"],
            "rle": {"size": (image["height"], image["width"]), "counts": region["rle"]},
            "outline": self.outline(row),
        }
