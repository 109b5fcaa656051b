"""ModelRunner: the models, loaded once, and the threads they compute in.

The event loop only waits. One thread asks SAM, one asks CLIP, for all visitors in turn, each with
half of torch's threads, so that words need not wait for masks; a few more search, others show the
collection's pictures. What visitors send is unpacked in processes of their own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException, UploadFile
from PIL import Image

from regionlab.data.prompts import Prompt, Text
from regionlab.index.index import Index
from regionlab.models.encoder import Encoder
from regionlab.models.pipeline import start_threads
from regionlab.models.segmenter import Segmenter
from regionlab.regions.encodings import (
    DEFAULT_ENCODING,
    encode_regions,
    find_encoding,
    find_mean_color,
    render_region,
)
from regionlab.regions.grounding import find_words
from regionlab.service.gallery import Gallery, name_upload, peek_upload, read_upload
from regionlab.service.limits import Limits
from regionlab.service.sessions import CachedRegion, Picture, Visitor, Visitors
from regionlab.service.work import ByteBudget, Decoders, call

WORKERS = 4  # threads that search
SHOWERS = 2  # threads that read and shrink images of the collection


class Batcher:
    """Calls a function with several items at once: all that wait when it is free again.

    A single item goes at once; the busier the function is, the larger its batches, of 1, 2, 4, 8, …
    items, because a model on a CPU keeps memory for every size of a batch that it has met. For the
    event loop of one thread.

    Parameters
    ----------
    function
        Takes a list of items and returns as many results, in their order.
    executor
        Where it is called; with one thread it is never called twice at a time.
    largest
        How many items a call takes at most.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Sequence[Any]],
        executor: Executor,
        *,
        largest: int = 32,
    ):
        if largest < 1:
            raise ValueError(f"largest must be at least 1, not {largest}")
        self.function, self.executor, self.largest = function, executor, largest
        self.calls = self.items = 0
        self._waiting: list[tuple[Any, asyncio.Future]] = []
        self._worker: asyncio.Task | None = None

    async def ask(self, item: Any) -> Any:
        """Return the function's result for an item, or raise what it raises for it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._answer(batch)
        finally:
            self._worker = None

    def _take(self) -> list[tuple[Any, asyncio.Future]]:
        """Take the next batch off the line, without those that nobody waits for any more."""
        waiting = [pair for pair in self._waiting if not pair[1].done()]
        count = min(len(waiting), self.largest)
        count = 1 << count.bit_length() >> 1  # the largest power of two that is not above
        batch, self._waiting = waiting[:count], waiting[count:]
        return batch

    async def _answer(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        items, futures = zip(*batch, strict=True)
        loop = asyncio.get_running_loop()
        self.calls, self.items = self.calls + 1, self.items + len(items)
        try:
            results = await loop.run_in_executor(self.executor, self.function, list(items))
        except Exception as error:
            if len(batch) == 1:
                return _settle(futures[0], error)
            for pair in batch:  # one bad item must not spoil the others
                await self._answer([pair])
            return
        for future, result in zip(futures, results, strict=True):
            _settle(future, result)


def _settle(future: asyncio.Future, result: Any) -> None:
    if future.done():  # given up meanwhile
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class ModelRunner:
    """Images, masks and vectors for many visitors, from one copy of the models.

    Parameters
    ----------
    index, encoder
        Where is searched, and the model that it was made with; else IndexFolderError.
    segmenter
        Its model is shared by all visitors.
    limits
        What is remembered, and how large an image may be.
    batch
        How many images or texts are encoded at once at most.
    """

    def __init__(
        self, index: Index, encoder: Encoder, segmenter: Segmenter, limits: Limits, *, batch: int
    ):
        index.check_encoder(encoder)
        self.index, self.encoder, self.segmenter, self.limits = index, encoder, segmenter, limits
        made = index.manifest.get("regions") or {}
        self.encoding = made.get("encoding", DEFAULT_ENCODING)
        self.gallery = Gallery(index)
        self.visitors = Visitors(segmenter.share, limits, segmenter.image_bytes)
        self._mean_color = find_mean_color(encoder)
        half = max(1, torch.get_num_threads() // 2)
        self._sam, self._clip = start_threads(1, half), start_threads(1, half)
        self._pool = ThreadPoolExecutor(WORKERS, "work")
        self._shown = ThreadPoolExecutor(SHOWERS, "show")
        self.decoders = Decoders(limits.decode_bytes)
        self.images = Batcher(self._encode_pixels, self._clip, largest=batch)
        self.texts = Batcher(encoder.encode_texts, self._clip, largest=batch)
        self.room = ByteBudget(limits.working_bytes)
        self.stopping = False

    def close(self) -> None:
        """Let what is being computed end, and begin nothing more."""
        self.stopping = True
        self.decoders.close()
        for pool in (self._sam, self._clip, self._pool, self._shown):
            pool.shutdown(cancel_futures=True)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns, called in a thread of those that search."""
        return await call(self._pool, function, *arguments)

    async def show(self, row: int, side: int | None) -> bytes:
        """Return an image of the collection as `Gallery.make_jpeg` does."""
        return await call(self._shown, self.gallery.make_jpeg, row, side)

    # Pictures

    @asynccontextmanager
    async def open_picture(
        self, visitor: Visitor, image: UploadFile | None, image_id: str | None
    ) -> AsyncIterator[Picture | None]:
        """Give the image that a request is about, and room for it; None if it names none.

        HTTPException 404 for an id that is not known here (any more), 413 or 422 for a bad file.
        """
        if image is not None and image_id is not None:
            raise HTTPException(422, "both image and image_id: say one of them")
        if image is not None:
            data = image.file.read()  # in memory, as `forms` made it
            name = await self.run(name_upload, data)
            if known := visitor.find(name):
                yield known
                return
            width, height, scans = await peek_upload(self.decoders, data, self.limits)
            async with self.room.hold(3 * width * height):
                picture = visitor.find(name)  # it may have been sent twice at once
                if picture is None:
                    cost = scans * width * height
                    pixels = await read_upload(self.decoders, data, cost, self.limits)
                    picture = self._keep(visitor, Picture(name, pixels))
                yield picture
        elif image_id is not None and visitor.find(image_id) is None:
            row = self.gallery.find(image_id)
            async with self.room.hold(3 * self.gallery.count_pixels(row)):
                pixels = await call(self._shown, self.gallery.read, row)
                yield self._keep(visitor, Picture(image_id, pixels, row))
        else:
            yield None if image_id is None else visitor.find(image_id)

    def _keep(self, visitor: Visitor, picture: Picture) -> Picture:
        visitor.keep(picture)
        self.visitors.trim()
        return picture

    # Masks

    async def find_regions(
        self, visitor: Visitor, picture: Picture, prompt: Prompt
    ) -> list[CachedRegion] | str:
        """Return the regions that a prompt means, or in words why there are none."""
        if prompt in picture.answers:
            return picture.answers[prompt]
        async with visitor.turn:  # one at a time, so that others need not wait for all of them
            answer = await call(self._sam, self._segment, visitor, picture, prompt)
        picture.remember(prompt, answer)
        return answer

    def _segment(
        self, visitor: Visitor, picture: Picture, prompt: Prompt
    ) -> list[CachedRegion] | str:
        ask = {"segmenter": visitor.segmenter, "encoder": self.encoder, "encoding": self.encoding}
        try:
            if isinstance(prompt, Text):
                regions = find_words(picture.pixels, prompt, **ask)
            else:
                regions = [visitor.segmenter.segment(picture.pixels, prompt)]
        except ValueError as e:
            return str(e)
        return [CachedRegion.of(region) for region in regions]

    # Vectors

    async def encode_picture(self, picture: Picture) -> np.ndarray:
        """Return the vector of a whole image, (d,) float32; encoded once."""
        if picture.vector is None and picture.row >= 0:
            picture.vector = np.array(self.index.vectors[picture.row])
        if picture.vector is None:
            pixels = await self.run(self._prepare, picture.pixels)
            picture.vector = await self.images.ask(pixels)
        return picture.vector

    async def encode_region(self, picture: Picture, found: CachedRegion) -> np.ndarray:
        """Return the vector of a region of an image, (d,) float32; encoded once."""
        if found.vector is None and not find_encoding(self.encoding).is_image:
            found.vector = await call(self._clip, self._encode_region, picture, found)
        if found.vector is None:
            pixels = await self.run(self._show, picture, found)
            found.vector = await self.images.ask(pixels)
        return found.vector

    async def encode_words(self, words: str) -> np.ndarray:
        """Return the vector of words, (d,) float32; HTTPException 422 if they are too long."""
        tokens = self.encoder.tokenizer([words])[0]
        padding = getattr(getattr(self.encoder.tokenizer, "tokenizer", None), "pad_token_id", 0)
        if tokens[-1] != padding:
            raise HTTPException(422, f"too many words: the model takes {len(tokens) - 2} tokens")
        return await self.texts.ask(words)

    def _prepare(self, image: np.ndarray) -> torch.Tensor:
        return self.encoder.preprocess(Image.fromarray(image))

    def _show(self, picture: Picture, found: CachedRegion) -> torch.Tensor:
        image, mask = picture.pixels, found.mask
        return self._prepare(render_region(image, mask, self.encoding, mean_color=self._mean_color))

    def _encode_region(self, picture: Picture, found: CachedRegion) -> np.ndarray:
        return encode_regions(self.encoder, picture.pixels, [found.mask], encoding=self.encoding)[0]

    def _encode_pixels(self, pixels: list[torch.Tensor]) -> np.ndarray:
        return self.encoder.encode_pixels(torch.stack(pixels))
