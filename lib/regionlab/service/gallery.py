"""The collection as visitors see it: images by id, thumbnails and outlines of regions."""

from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import HTTPException

from regionlab.images import ImageError, read_image, read_thumbnail
from regionlab.index import Index
from regionlab.service.outlines import mask_to_path
from regionlab.widgets.pictures import encode_image

THUMBNAIL = 320  # pixels of the longer side, where the page shows many
KEPT_SIDE = 512  # thumbnails up to this size are kept in memory
KEPT = 1024  # how many


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
        """Read an image, (H, W, 3) uint8 RGB, in its own size or no side above `side` pixels.

        HTTPException 404 if its file is gone.
        """
        path = self.index.path(row)
        try:
            return read_image(path) if side is None else read_thumbnail(path, side)
        except ImageError as e:  # its text has the path, which is nobody's business
            name = self.index.images["image_id"].iloc[row]
            raise HTTPException(404, f"the file of image {name!r} cannot be read") from e

    def make_jpeg(self, row: int, side: int | None) -> bytes:
        """Return an image as JPEG, in its own size or no side above `side` pixels.

        Always made anew from the pixels: what a file says beside them, such as the place where
        it was taken, stays here.
        """
        keep = side is not None and side <= KEPT_SIDE
        return self._keep_thumbnail(row, side) if keep else self._make_jpeg(row, side)

    def _make_jpeg(self, row: int, side: int | None) -> bytes:
        image = self.read(row, side)
        return encode_image(image, side or max(image.shape))

    def describe(self, row: int) -> dict[str, Any]:
        """Return an image as `schemas.ListedImage` has it."""
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
        """Return a region's part of `schemas.Match`."""
        region = self.index.regions.iloc[row]
        image = self.index.images.iloc[region["row"]]
        return {
            "region_id": region["region_id"],
            "box": tuple(region[["x0", "y0", "x1", "y1"]]),
            "area": region["area"],
            "rle": {"size": (image["height"], image["width"]), "counts": region["rle"]},
            "outline": self.outline(row),
        }
