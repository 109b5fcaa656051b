"""What the service remembers of each visitor: images, and what was made of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from regionlab.data.masks import rle_to_mask
from regionlab.data.prompts import Prompt
from regionlab.models.segmenter import Region, Segmenter
from regionlab.service.limits import MAX_PROMPTS, Limits


@dataclass(eq=False)
class CachedRegion:
    """A region found in an image, kept small; fields as of `Region`, and its vector once needed."""

    rle: dict
    box: np.ndarray
    area: int
    quality: float
    vector: np.ndarray | None = None

    @classmethod
    def of(cls, region: Region) -> "CachedRegion":
        """Keep what is needed of a region."""
        return cls(region.rle, region.box, region.area, region.quality)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        return rle_to_mask(self.rle)


@dataclass(eq=False)
class Picture:
    """An image that a visitor works with."""

    image_id: str
    pixels: np.ndarray
    row: int = -1
    vector: np.ndarray | None = None
    answers: OrderedDict[Prompt, "list[CachedRegion] | str"] = field(default_factory=OrderedDict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[:2]

    def remember(self, prompt: Prompt, answer: "list[CachedRegion] | str") -> None:
        """Keep the answer to a prompt, beside the latest others."""
        self.answers[prompt] = answer
        while len(self.answers) > 4 * MAX_PROMPTS:
            self.answers.popitem(last=False)


class Visitor:
    """Somebody's images, and a segmenter that remembers them encoded; all share one model."""

    def __init__(self, segmenter: Segmenter, pictures: int):
        self.segmenter, self._most = segmenter, pictures
        self.turn = asyncio.Lock()
        self.pictures: OrderedDict[str, Picture] = OrderedDict()

    def find(self, image_id: str) -> Picture | None:
        """Return an image that is remembered, as the one used last; None if it is not."""
        if image_id in self.pictures:
            self.pictures.move_to_end(image_id)
        return self.pictures.get(image_id)

    def keep(self, picture: Picture) -> None:
        """Remember an image; the one not used for longest goes if there are too many."""
        self.pictures[picture.image_id] = picture
        while len(self.pictures) > self._most:
            self.pictures.popitem(last=False)

    @property
    def bytes(self) -> int:
        """Bytes of the images."""
        return sum(picture.pixels.nbytes for picture in self.pictures.values())


class Visitors:
    """The visitors of late, within the `visitors`, `pictures` and `cache_bytes` of `limits`.

    `make_segmenter` makes one with a memory for so many images; `encoded_bytes` is what it keeps of
    each image.
    """

    def __init__(
        self, make_segmenter: Callable[[int], Segmenter], limits: Limits, encoded_bytes: int = 0
    ):
        self._make_segmenter, self._limits = make_segmenter, limits
        self._encoded_bytes = encoded_bytes
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._visitors)

    @property
    def pictures(self) -> int:
        """How many images are remembered in all."""
        return sum(len(visitor.pictures) for visitor in self._visitors.values())

    def get(self, name: str) -> Visitor:
        """Return the visitor of this name, a new one if there is none."""
        if name not in self._visitors:
            segmenter = self._make_segmenter(self._limits.pictures)
            self._visitors[name] = Visitor(segmenter, self._limits.pictures)
        self._visitors.move_to_end(name)
        self.trim()
        return self._visitors[name]

    def trim(self) -> None:
        """Forget the visitors that were here longest ago until the bounds hold."""
        most, room = self._limits.visitors, self._limits.cache_bytes
        while len(self._visitors) > 1 and (len(self) > most or self._count_bytes() > room):
            self._visitors.popitem(last=False)

    def _count_bytes(self) -> int:
        pixels = sum(visitor.bytes for visitor in self._visitors.values())
        return pixels + self.pictures * self._encoded_bytes
