"""Encoder: images and texts become unit vectors in one space, through open_clip."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a stream, encoded.

    Attributes
    ----------
    rows
        (b,) int64, positions in the stream of those that could be read.
    vectors
        (b, d) float32, unit length.
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
        What decides the vectors: model, SHA-256 of the weights, preprocessing, precision.
    space
        Short id of the embedding space: equal for two encoders if and only if their vectors
        may be compared. Precision is not part of it.
    """

    def __init__(self, name, model, preprocess, tokenizer, weights, precision, device):
        self.name, self.model, self.preprocess, self.tokenizer = name, model, preprocess, tokenizer
        self.precision, self.device = precision, device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.dim = _embedding_dim(model, self.dtype)
        self.image_size = model.visual.image_size
        self.logit_scale = model.logit_scale.detach().exp().item()
        self.fingerprint = {
            "model": name if weights is None or weights.published else Path(name).name,
            "weights_sha256": weights.sha256 if weights else _hash_state(model),
            "preprocess": " ".join(repr(preprocess).split()),
            "precision": precision,
        }
        parts = self.fingerprint["weights_sha256"] + self.fingerprint["preprocess"]
        self.space = hashlib.sha256(parts.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<Encoder {self.name}: {self.dim} dimensions, {self.precision} on {self.device}>"

    def encode_images(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 64,
        workers: int = 2,
        progress: bool = False,
    ) -> np.ndarray:
        """Encode images given as paths or arrays, in order.

        Parameters
        ----------
        images
            Paths, or (H, W, 3) uint8 RGB arrays.
        batch_size
            Images a forward pass.
        workers
            Threads that read and resize while the model computes.
        progress
            Show a progress bar.

        Returns
        -------
        np.ndarray
            (n, d) float32, unit length.

        Raises
        ------
        ImageError
            At the first image that cannot be read. `encode_stream` goes on instead.
        """
        images = list(images)
        batches = self.encode_stream(images, batch_size=batch_size, workers=workers)
        vectors = [np.empty((0, self.dim), np.float32)]
        bar = show_progress(batches, desc="encode images", total=-(-len(images) // batch_size))
        for batch in bar if progress else batches:
            if batch.failures:
                raise batch.failures[0][1]
            vectors.append(batch.vectors)
        return np.concatenate(vectors)

    def encode_stream(
        self, images: Iterable[ImageSource], *, batch_size: int = 64, workers: int = 2
    ) -> Iterator[ImageBatch]:
        """Encode images batch by batch, decoding the next ones while the model computes.

        Memory holds a few batches, however long the stream. Images that cannot be read are
        reported in their batch and stop nothing.

        Raises
        ------
        ValueError
            If `batch_size` or `workers` is not positive.
        """
        if batch_size < 1 or workers < 1:
            raise ValueError(
                f"batch_size and workers must be at least 1, got {batch_size}, {workers}"
            )
        source = enumerate(images)
        with ThreadPoolExecutor(workers) as pool:
            ahead = [pool.submit(self._read, item) for item in islice(source, 3 * batch_size)]
            while ahead:
                items = [future.result() for future in ahead[:batch_size]]
                ahead = ahead[batch_size:]
                ahead += [pool.submit(self._read, item) for item in islice(source, len(items))]
                yield self._encode_read(items)

    def encode_texts(
        self,
        texts: Sequence[str],
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Encode texts; with several prompt templates, the mean over their wordings.

        Parameters
        ----------
        texts
            Queries or captions.
        templates
            Each with one "{}" that the text takes the place of, such as "a photo of a {}"
            (prompt ensembling, Radford et al. 2021, section 3.1.4).

        Returns
        -------
        np.ndarray
            (n, d) float32, unit length.

        Raises
        ------
        ValueError
            If a text is empty or a template has no "{}". A text too long for the model is
            cut, with a warning.
        """
        texts = _check_texts(texts)
        if not templates or any("{}" not in template for template in templates):
            raise ValueError(f"each template needs a {{}} for the text, got {list(templates)}")
        wordings = [template.replace("{}", text) for text in texts for template in templates]
        tokens = self._tokenize(wordings)
        parts = [
            self._encode_tokens(tokens[i : i + batch_size])
            for i in range(0, len(tokens), batch_size)
        ]
        vectors = np.concatenate([np.empty((0, self.dim), np.float32), *parts])
        return _normalize(vectors.reshape(len(texts), len(templates), -1).mean(1))

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        """Encode preprocessed images, (b, 3, size, size) float, to (b, d) float32 unit vectors."""
        vectors = self.model.encode_image(pixels.to(self.device, self.dtype))
        return _normalize(vectors.float().cpu().numpy())

    @torch.inference_mode()
    def _encode_tokens(self, tokens: torch.Tensor) -> np.ndarray:
        return _normalize(self.model.encode_text(tokens.to(self.device)).float().cpu().numpy())

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts)
        full = [t for t, row in zip(texts, tokens, strict=True) if row[-1] != 0]
        if full:
            warnings.warn(
                f"{len(full)} text(s) fill all {tokens.shape[1]} tokens of {self.name} and may be "
                f"cut, the first: {full[0][:60]!r}...",
                stacklevel=3,
            )
        return tokens

    def _read(self, item: tuple[int, ImageSource]):
        """Read and preprocess one image: (row, pixels, size, digest), or (row, error)."""
        row, source = item
        try:
            image, digest = _load_image(source, row)
            return row, self.preprocess(Image.fromarray(image)), image.shape[1::-1], digest
        except ImageError as error:
            return row, error

    def _encode_read(self, items: list) -> ImageBatch:
        read = [item for item in items if len(item) == 4]
        failures = [item for item in items if len(item) == 2]
        rows, pixels, sizes, digests = zip(*read, strict=True) if read else ((), (), (), ())
        vectors = self.encode_pixels(torch.stack(pixels)) if read else np.empty((0, self.dim))
        return ImageBatch(
            rows=np.array(rows, np.int64),
            vectors=vectors.astype(np.float32),
            sizes=np.array(sizes, np.int64).reshape(-1, 2),
            digests=list(digests),
            failures=failures,
        )


def _load_image(source: ImageSource, row: int) -> tuple[np.ndarray, str]:
    if not isinstance(source, np.ndarray):
        return read_image_and_digest(source)
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or source.size == 0:
        reason = f"expected (H, W, 3) uint8 RGB, got {source.shape} {source.dtype}"
        raise ImageError(f"image {row}", reason)
    return source, ""


def _check_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        texts = [texts]
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text {i} is {text!r}: a query needs at least one word")
    return list(texts)


def _normalize(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


def _embedding_dim(model, dtype: torch.dtype) -> int:
    """Read the width of the joint space off the model: every open_clip class keeps it elsewhere."""
    with torch.inference_mode():
        size = model.visual.image_size
        side = size if isinstance(size, tuple) else (size, size)
        device = next(model.parameters()).device
        blank = torch.zeros(1, 3, *side, device=device, dtype=dtype)
        return model.encode_image(blank).shape[-1]


def _hash_state(model) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()
