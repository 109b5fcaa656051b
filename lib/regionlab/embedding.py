"""Encoder: images and texts become unit vectors in one space, through open_clip."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from regionlab.images import ImageError, read_image_and_digest
from regionlab.progress import progress as show_progress

ImageSource = Path | str | np.ndarray
DEFAULT_TEMPLATES = ("{}",)
# Resized to the model's size by its short side, a long line of pixels would fill the memory.
MAX_ASPECT = 200


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a stream, encoded.

    Attributes
    ----------
    rows
        (b,) int64, positions in the stream of those that could be read.
    vectors
        (b, d) float32, of unit length if asked for.
    sizes
        (b, 2) int64, width and height in pixels.
    digests
        SHA-256 of each file; empty for an image given as an array.
    failures
        Position and reason of each that could not be read.
    """

    rows: np.ndarray
    vectors: np.ndarray
    sizes: np.ndarray
    digests: list[str]
    failures: list[tuple[int, ImageError]]


class Encoder:
    """A CLIP model with the preprocessing and tokenizer it was trained with.

    Made by `encoders.load_encoder`. Vectors are unit length, so a dot product is the cosine.

    Attributes
    ----------
    name, device, precision
        As loaded.
    dim
        Length of a vector.
    fingerprint
        What decides the vectors: model, SHA-256 of the weights, activation, preprocessing,
        precision.
    space
        Short id of the embedding space: vectors may be compared if it is the same. Precision
        is not part of it.

    Raises
    ------
    FloatingPointError
        If the model's vectors are not finite.
    """

    def __init__(self, name, model, preprocess, tokenizer, fingerprint, device):
        self.name, self.model, self.preprocess, self.tokenizer = name, model, preprocess, tokenizer
        self.fingerprint, self.device = fingerprint, device
        self.precision = fingerprint["precision"]
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.image_size = model.visual.image_size
        self.dim = self._encode_blank().shape[1]
        decisive = [fingerprint[key] for key in ("weights_sha256", "quick_gelu", "preprocess")]
        self.space = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<Encoder {self.name}: {self.dim} dimensions, {self.precision} on {self.device}>"

    def encode_images(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int = 64,
        workers: int = 2,
        progress: bool = False,
        unit: bool = True,
    ) -> np.ndarray:
        """Encode images given as paths or arrays, in order.

        Parameters
        ----------
        images
            Paths, or (H, W, 3) uint8 RGB arrays; a single one may stand alone.
        batch_size
            Images a forward pass.
        workers
            Threads that read and resize while the model computes.
        progress
            Show a progress bar.
        unit
            False leaves the vectors as long as the model makes them, as composed search wants.

        Returns
        -------
        np.ndarray
            (n, d) float32, of unit length if `unit`.

        Raises
        ------
        ImageError
            At the first image that cannot be read. `encode_stream` goes on instead.
        """
        images = as_list(images)
        batches = self.encode_stream(images, batch_size=batch_size, workers=workers, unit=unit)
        if progress:
            total = -(-len(images) // batch_size)
            batches = show_progress(batches, desc="encode images", total=total)
        vectors = [np.empty((0, self.dim), np.float32)]
        with closing(batches):
            for batch in batches:
                if batch.failures:
                    raise batch.failures[0][1]
                vectors.append(batch.vectors)
        return np.concatenate(vectors)

    def encode_stream(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 64,
        workers: int = 2,
        unit: bool = True,
    ) -> Iterator[ImageBatch]:
        """Encode images batch by batch, decoding the next ones while the model computes.

        Memory holds four batches at most, however long the stream. Images that cannot be read
        are reported in their batch and stop nothing.

        Raises
        ------
        ValueError
            If `batch_size` or `workers` is not positive.
        """
        if batch_size < 1 or workers < 1:
            raise ValueError(
                f"batch_size and workers must be at least 1, got {batch_size}, {workers}"
            )
        return self._stream(enumerate(images), batch_size, workers, unit)

    def _stream(
        self, source: Iterator, batch_size: int, workers: int, unit: bool
    ) -> Iterator[ImageBatch]:
        pool = ThreadPoolExecutor(workers)
        try:
            ahead = [pool.submit(self._read, item) for item in islice(source, 3 * batch_size)]
            while ahead:
                items = [future.result() for future in ahead[:batch_size]]
                ahead = ahead[batch_size:]
                ahead += [pool.submit(self._read, item) for item in islice(source, len(items))]
                yield self._encode_read(items, unit)
        finally:  # also when the caller stops early
            pool.shutdown(cancel_futures=True)

    def encode_texts(
        self,
        texts: str | Iterable[str],
        *,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        batch_size: int = 256,
        unit: bool = True,
    ) -> np.ndarray:
        """Encode texts; with several prompt templates, the mean over their wordings.

        Parameters
        ----------
        texts
            Queries or captions; a single one may stand alone.
        templates
            Each with one "{}" that the text takes the place of, such as "a photo of a {}"
            (prompt ensembling, Radford et al. 2021, section 3.1.4).
        unit
            False leaves the vectors as long as the model makes them.

        Returns
        -------
        np.ndarray
            (n, d) float32, of unit length if `unit`.

        Raises
        ------
        ValueError
            If a text is empty or a template has no "{}". A text too long for the model is
            cut, with a warning.
        """
        texts = _check_texts(texts)
        templates = [templates] if isinstance(templates, str) else list(templates)
        if not templates or any("{}" not in template for template in templates):
            raise ValueError(f"each template needs a {{}} for the text, got {templates}")
        wordings = [template.replace("{}", text) for text in texts for template in templates]
        tokens = self.tokenize(wordings)
        parts = [
            self._encode_tokens(tokens[i : i + batch_size], unit)
            for i in range(0, len(tokens), batch_size)
        ]
        vectors = np.concatenate([np.empty((0, self.dim), np.float32), *parts])
        vectors = vectors.reshape(len(texts), len(templates), self.dim).mean(1)
        return _normalize(vectors) if unit else vectors

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor, *, unit: bool = True) -> np.ndarray:
        """Encode preprocessed images, (b, 3, size, size) float, to (b, d) float32 unit vectors.

        With `unit` False they are as long as the model makes them.
        """
        pixels = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        vectors = self.model.encode_image(pixels).float().cpu().numpy()
        directions = _normalize(vectors)  # also a check that there are any
        return directions if unit else vectors

    @torch.inference_mode()
    def _encode_tokens(self, tokens: torch.Tensor, unit: bool) -> np.ndarray:
        vectors = self.model.encode_text(tokens.to(self.device)).float().cpu().numpy()
        directions = _normalize(vectors)
        return directions if unit else vectors

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Turn texts into tokens, (n, context) int64; warn of those too long for the model."""
        tokens = self.tokenizer(texts)
        # open_clip's own tokenizer pads with 0, wrapped ones say with what.
        padding = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", 0)
        full = [t for t, row in zip(texts, tokens, strict=True) if row[-1] != padding]
        if full:
            warnings.warn(
                f"{len(full)} text(s) fill all {tokens.shape[1]} tokens of {self.name} and may be "
                f"cut, the first: {full[0][:60]!r}...",
                stacklevel=3,
            )
        return tokens

    def _encode_blank(self) -> np.ndarray:
        size = self.image_size
        side = size if isinstance(size, tuple) else (size, size)
        return self.encode_pixels(torch.zeros(1, 3, *side))

    def _read(self, item: tuple[int, ImageSource]):
        """Read and preprocess one image: (row, pixels, size, digest), or (row, error)."""
        row, source = item
        try:
            image, digest = _load_image(source, row)
            return row, self.preprocess(Image.fromarray(image)), image.shape[1::-1], digest
        except ImageError as error:
            return row, error

    def _encode_read(self, items: list, unit: bool) -> ImageBatch:
        read = [item for item in items if len(item) == 4]
        failures = [item for item in items if len(item) == 2]
        rows, pixels, sizes, digests = zip(*read, strict=True) if read else ((), (), (), ())
        vectors = np.empty((0, self.dim))
        if read:
            vectors = self.encode_pixels(torch.stack(pixels), unit=unit)
        return ImageBatch(
            rows=np.array(rows, np.int64),
            vectors=vectors.astype(np.float32),
            sizes=np.array(sizes, np.int64).reshape(-1, 2),
            digests=list(digests),
            failures=failures,
        )


def as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """Return images as a list, be it one or several."""
    one_array = isinstance(images, np.ndarray) and images.ndim == 3
    return [images] if one_array or isinstance(images, (str, Path)) else list(images)


def _load_image(source: ImageSource, row: int) -> tuple[np.ndarray, str]:
    if isinstance(source, np.ndarray):
        name, image, digest = f"image {row}", source, ""
    else:
        name, (image, digest) = source, read_image_and_digest(source)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        reason = f"expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
        raise ImageError(name, reason)
    height, width = image.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(name, f"too narrow: {width} x {height}, over {MAX_ASPECT} to 1")
    return image, digest


def _check_texts(texts: str | Iterable[str]) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text {i} is {text!r}: a query needs at least one word")
    return texts


def _normalize(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise FloatingPointError("the model gave a vector that is not finite, or zero")
    return vectors / norms
