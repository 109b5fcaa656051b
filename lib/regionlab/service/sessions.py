"""What the service remembers of each visitor: pictures, and what was made of them."""

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
    """A region that was found in a picture, kept small.

    Attributes
    ----------
    rle, box, area, quality
        As of `Region`.
    vector
        (d,) float32, once it was needed.
    """

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
    """A picture that a visitor works with.

    Attributes
    ----------
    image_id
        As it is called in requests.
    pixels
        (H, W, 3) uint8 RGB.
    row
        Of the index, if it is one of the collection's, else -1.
    vector
        (d,) float32 of the whole picture, once it was needed.
    answers
        The regions of each prompt, or in words why there are none.
    """

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
    """Somebody's pictures, and a segmenter that remembers how they are encoded.

    All visitors' segmenters share one model.

    Attributes
    ----------
    turn
        Held while the segmenter is asked.
    """

    def __init__(self, segmenter: Segmenter, pictures: int):
        self.segmenter, self._most = segmenter, pictures
        self.turn = asyncio.Lock()
        self.pictures: OrderedDict[str, Picture] = OrderedDict()

    def find(self, image_id: str) -> Picture | None:
        """Return a picture that is remembered, as the one used last; None if it is not."""
        if image_id in self.pictures:
            self.pictures.move_to_end(image_id)
        return self.pictures.get(image_id)

    def keep(self, picture: Picture) -> None:
        """Remember a picture; the one not used for longest goes if there are too many."""
        self.pictures[picture.image_id] = picture
        while len(self.pictures) > self._most:
            self.pictures.popitem(last=False)

    @property
    def bytes(self) -> int:
        """Bytes of the pictures."""
        return sum(picture.pixels.nbytes for picture in self.pictures.values())


class Visitors:
    """The visitors of late, within bounds of number and memory.

    Parameters
    ----------
    make_segmenter
        Makes a segmenter with a memory for so many images.
    limits
        `visitors`, `pictures` and `cache_bytes` count here.
    encoded_bytes
        What the segmenter keeps of each picture, beside the picture.
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
        """How many pictures are remembered in all."""
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
