"""Encoder: images and texts become unit vectors in one space, through open_clip."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from regionlab.data.images import TOO_LARGE, ImageError, read_pil_image
from regionlab.models.pipeline import (
    ImageBatch,
    Preprocessing,
    SideBySide,
    prefetch,
    resolve_batch_size,
)
from regionlab.models.spaces import to_unit, with_space
from regionlab.util.errors import is_out_of_memory
from regionlab.util.progress import progress as show_progress

ImageSource = Path | str | np.ndarray
DEFAULT_TEMPLATES = ("{}",)
# Resized to the model's size by its short side, a long line of pixels would fill the memory.
MAX_ASPECT = 200
NO_DIRECTION = "the model gave a vector that is not finite, or zero"
FULL = "full"  # the fingerprint's word for images that are always decoded at full size


class Encoder:
    """A CLIP model with the preprocessing and tokenizer it was trained with.

    Made by `registry.load_encoder`. Vectors are unit length, so a dot product is the cosine, and
    say of which space they are, see `spaces.Vectors`.

    Attributes
    ----------
    name, device, precision : As loaded.
    dim : Length of a vector.
    fingerprint : What decides the vectors: model, SHA-256 of the weights, activation,
        preprocessing, precision, and whether large JPEGs are decoded at reduced scale; and the
        architecture, unless the weights are published for it and so imply it.
    space : Short id of the embedding space: vectors may be compared if it is the same. Precision
        and decoding are not part of it.

    Raises
    ------
    FloatingPointError
        If the model's vectors are not finite; `encode_stream` reports those of single images.
    """

    def __init__(self, name, model, preprocess, tokenizer, fingerprint, device):
        self.name, self.model, self.preprocess, self.tokenizer = name, model, preprocess, tokenizer
        self.fingerprint, self.device = fingerprint, device
        self.precision = fingerprint["precision"]
        self.fast_decode = fingerprint.get("decode", FULL) != FULL
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.image_size = model.visual.image_size
        decisive = [fingerprint[key] for key in ("weights_sha256", "quick_gelu", "preprocess")]
        decisive += [fingerprint["architecture"]] if "architecture" in fingerprint else []
        self.space = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]
        self.dim = self.encode_pixels(self.blank_pixels(1)).shape[1]

    def __repr__(self) -> str:
        return f"<Encoder {self.name}: {self.dim} dimensions, {self.precision} on {self.device}>"

    def encode_images(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int | str = 64,
        workers: int = 2,
        progress: bool = False,
        unit: bool = True,
    ) -> np.ndarray:
        """Encode images given as paths or arrays, in order.

        Parameters
        ----------
        images : Paths, or (H, W, 3) uint8 RGB arrays; a single one may stand alone.
        batch_size
            Images a forward pass; "auto" measures what is fast here, see `choose_batch_size`.
        workers : Threads that read and resize while the model computes.
        progress : Show a progress bar.
        unit : False leaves the vectors as long as the model makes them, as composed search wants.

        Returns
        -------
        np.ndarray
            (n, d) float32, of unit length if `unit`.

        Raises
        ------
        ImageError : At the first image that cannot be read. `encode_stream` goes on instead.
        """
        images = as_list(images)
        batch_size = resolve_batch_size(self, batch_size)
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
        return with_space(np.concatenate(vectors), self.space)

    def encode_stream(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int | str = 64,
        workers: int = 2,
        unit: bool = True,
    ) -> Iterator[ImageBatch]:
        """Encode images batch by batch, decoding the next ones while the model computes.

        Memory holds four batches at most, however long the stream. Images that cannot be read,
        or whose vector is not finite, are reported in their batch and stop nothing. On a CPU a
        batch is computed in parts side by side, see `SideBySide`.

        Raises
        ------
        ValueError : If `batch_size` or `workers` is not positive.
        """
        batch_size = resolve_batch_size(self, batch_size)
        if batch_size < 1 or workers < 1:
            raise ValueError(
                f"batch_size and workers must be at least 1, got {batch_size}, {workers}"
            )
        return self._stream(images, batch_size, workers, unit)

    def _stream(
        self, images: Iterable[ImageSource], batch_size: int, workers: int, unit: bool
    ) -> Iterator[ImageBatch]:
        steps = Preprocessing(self.preprocess, self.device, self.dtype)
        items = ((row, source, steps) for row, source in enumerate(images))
        with (
            closing(prefetch(items, batch_size, workers, self._read)) as batches,
            closing(SideBySide(self.device)) as model,
        ):
            for batch in batches:
                yield self._encode_read(batch, steps, model, unit)

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
        texts : Queries or captions; a single one may stand alone.
        templates : Each with one "{}" that the text takes the place of, such as "a photo of a {}"
            (prompt ensembling, Radford et al. 2021, section 3.1.4).
        unit : False leaves the vectors as long as the model makes them.

        Returns
        -------
        np.ndarray
            (n, d) float32, of unit length if `unit`.

        Raises
        ------
        ValueError : If a text is empty or a template has no "{}". A text too long for the model is
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
        return with_space(_normalize(vectors) if unit else vectors, self.space)

    @torch.inference_mode()
    def encode_pixels(
        self, pixels: torch.Tensor, *, unit: bool = True, strict: bool = True
    ) -> np.ndarray:
        """Encode preprocessed images, (b, 3, size, size) float, to (b, d) float32 unit vectors.

        With `unit` False they are as long as the model makes them. A vector without a direction,
        not finite or zero, is an error; with `strict` False it is NaN in each place.
        """
        pixels = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        vectors = self.model.encode_image(pixels).float().cpu().numpy()
        directions = _normalize(vectors, strict=strict)  # also a check that there are any
        if not unit:
            directions = np.where(np.isnan(directions), np.nan, vectors)
        return with_space(directions, self.space)

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

    def blank_pixels(self, count: int) -> torch.Tensor:
        """Return black images as the model takes them, (count, 3, size, size)."""
        size = self.image_size
        side = size if isinstance(size, tuple) else (size, size)
        return torch.zeros(count, 3, *side, dtype=self.dtype)

    def _read(self, item: tuple[int, ImageSource, Preprocessing]) -> tuple:
        """Read and shape one image: (row, shaped, size, digest, name), or (row, error)."""
        row, source, steps = item
        name = f"image {row}" if isinstance(source, np.ndarray) else source
        try:
            least_side = steps.least_side if self.fast_decode else None
            picture, size, digest = _load_image(source, name, least_side)
            return row, steps.shape(picture), size, digest, name
        except (ImageError, MemoryError, RuntimeError) as error:
            return row, _to_failure(error, name)

    def _encode_read(
        self, items: list[tuple], steps: Preprocessing, model: SideBySide, unit: bool
    ) -> ImageBatch:
        read = [item for item in items if len(item) > 2]
        failures = [item for item in items if len(item) == 2]
        rows, shaped, sizes, digests, names = zip(*read, strict=True) if read else ((),) * 5

        def encode(part: Sequence) -> np.ndarray:
            return self.encode_pixels(steps.stack(part), unit=unit, strict=False)

        vectors = model.map(encode, shaped) if read else [np.empty((0, self.dim))]
        vectors = np.concatenate(vectors).astype(np.float32)
        good = ~np.isnan(vectors).any(axis=1)
        lost = np.flatnonzero(~good)
        failures += [(rows[i], ImageError(names[i], NO_DIRECTION)) for i in lost]
        return ImageBatch(
            rows=np.array(rows, np.int64)[good],
            vectors=with_space(vectors[good], self.space),
            sizes=np.array(sizes, np.int64).reshape(-1, 2)[good],
            digests=[digest for digest, kept in zip(digests, good, strict=True) if kept],
            failures=failures,
        )


def as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """Return images as a list, be it one or several."""
    one_array = isinstance(images, np.ndarray) and images.ndim == 3
    return [images] if one_array or isinstance(images, (str, Path)) else list(images)


def _load_image(
    source: ImageSource, name: Path | str, least_side: int | None
) -> tuple[Image.Image, tuple[int, int], str]:
    """Return an image, its full width and height, and the digest of its file."""
    if isinstance(source, np.ndarray):
        picture, digest = _array_to_image(source, name), ""
        width, height = picture.size
    else:
        picture, (width, height), digest = read_pil_image(source, least_side=least_side)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(name, f"too narrow: {width} x {height}, over {MAX_ASPECT} to 1")
    return picture, (width, height), digest


def _to_failure(error: Exception, name: Path | str) -> ImageError:
    """Return what to tell of an image, without the frames that may hold its pixels."""
    if isinstance(error, ImageError):
        return ImageError(error.path, error.reason)
    if not is_out_of_memory(error):
        raise error
    return ImageError(name, TOO_LARGE)


def _array_to_image(image: np.ndarray, name: str) -> Image.Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        reason = f"expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
        raise ImageError(name, reason)
    return Image.fromarray(image)


def _check_texts(texts: str | Iterable[str]) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text {i} is {text!r}: a query needs at least one word")
    return texts


def _normalize(vectors: np.ndarray, *, strict: bool = True) -> np.ndarray:
    """Return unit vectors; FloatingPointError if one has no direction, NaN if not `strict`."""
    directions = to_unit(vectors)
    if strict and np.isnan(directions).any():
        raise FloatingPointError(NO_DIRECTION)
    return directions
