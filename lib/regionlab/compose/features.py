"""Triplets as vectors: features computed once, lessons for training, exams for validation."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionlab.compose.training import Lessons
from regionlab.data.triplets import PUNCTUATION, Triplets, join_captions
from regionlab.models.encoder import Encoder
from regionlab.util.paths import expand
from regionlab.util.progress import progress

SHARD = 1024  # images; what a run that is cut off has to compute again at most


@dataclass(frozen=True, eq=False)
class ComposedFeatures:
    """Triplets, and the features of their gallery.

    Attributes
    ----------
    triplets
        Those whose images could all be read.
    vectors
        (n, d) float32, a row an image of `triplets.gallery`, as long as the model makes them.
    failures
        Name and reason of each image left out: missing, or not readable.
    """

    triplets: Triplets
    vectors: np.ndarray
    failures: list[tuple[str, str]]

    @property
    def references(self) -> np.ndarray:
        """(q, d), features of each query's reference."""
        return self.vectors[self.triplets.reference_rows]

    @property
    def gallery(self) -> np.ndarray:
        """(n, d) float32, unit length."""
        return self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)


def find_groups(triplets: Triplets) -> list:
    """Return a label a query, (q,): queries of one label are alike, as bootstraps must know.

    They are about the same subset of images that look alike where there are subsets, about the
    same group of scenes in Toybox, which knows its groups in any layout, and else about the
    same reference.
    """
    if len(triplets) and all(triplets.queries["subset"]):
        return [tuple(sorted(subset)) for subset in triplets.queries["subset"]]
    references = triplets.queries["reference"].tolist()
    if triplets.name.startswith("toybox"):
        return [name.rpartition("-")[0] for name in references]  # split-group-member
    return references


def encode_triplets(
    encoder: Encoder, triplets: Triplets, *, folder: Path | None = None, batch_size: int = 64
) -> ComposedFeatures:
    """Encode the gallery of triplets once; images that are missing or unreadable are listed.

    Parameters
    ----------
    encoder
        Its features are kept as long as the model makes them.
    triplets
        Queries and gallery.
    folder
        Where features are kept, in shards, and taken up again; None keeps nothing.

    Raises
    ------
    FileNotFoundError
        If no query has all its images on disk.
    ValueError
        If none has images that can all be read.
    """
    triplets, missing = triplets.with_images()
    failures = [(name, "missing") for name in missing]
    files = [triplets.files[name] for name in triplets.gallery]
    parts, unreadable = [], {}
    shards = range(0, len(files), SHARD)
    for start in progress(shards, f"encode {triplets.title}", len(shards)):
        part = files[start : start + SHARD]
        vectors, lost = _load_or_encode(encoder, part, folder, batch_size)
        unreadable |= {triplets.gallery[start + row]: reason for row, reason in lost.items()}
        parts.append(vectors)
    vectors = np.concatenate(parts)
    if unreadable:
        kept = [row for row, name in enumerate(triplets.gallery) if name not in unreadable]
        triplets, vectors = triplets.without(unreadable), vectors[kept]
    return ComposedFeatures(triplets, vectors, [*failures, *unreadable.items()])


def _load_or_encode(
    encoder: Encoder, files: Sequence[Path], folder: Path | None, batch_size: int
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the features of some files, and which rows could not be read and why."""
    path = None if folder is None else expand(folder) / f"{_key(encoder, files)}.npy"
    vectors = np.full((len(files), encoder.dim), np.nan, np.float32)
    if path is not None and path.exists():
        vectors = np.load(path)
    rows = np.flatnonzero(np.isnan(vectors).any(1))  # new ones, and unreadable ones: why?
    wanted, lost = [files[row] for row in rows], {}
    with closing(encoder.encode_stream(wanted, batch_size=batch_size, unit=False)) as batches:
        for batch in batches:
            vectors[rows[batch.rows]] = batch.vectors
            lost |= {int(rows[place]): str(error) for place, error in batch.failures}
    if path is not None and len(lost) < len(rows):
        _save(path, vectors)
    return vectors, lost


def _key(encoder: Encoder, files: Sequence[Path]) -> str:
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    text = json.dumps([encoder.space, encoder.precision, stats])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _save(path: Path, vectors: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".tmp"), "wb") as file:
        np.save(file, vectors)
    path.with_suffix(".tmp").replace(path)


# Lessons


def make_lessons(sets: Sequence[ComposedFeatures]) -> Lessons:
    """Join training triplets of one or several categories into what the two stages learn from.

    Raises
    ------
    ValueError
        If targets are hidden.
    """
    for part in sets:
        if (part.triplets.target_rows < 0).any():
            raise ValueError(
                f"nothing can be learnt from {part.triplets.title}: targets are hidden"
            )
    forms = [
        list_wordings(captions) for part in sets for captions in part.triplets.queries["captions"]
    ]
    most = max(map(len, forms))
    forms = [form * (most // len(form)) for form in forms]
    lengths = np.concatenate([np.linalg.norm(part.vectors, axis=1) for part in sets])
    return Lessons(
        np.concatenate([part.references for part in sets]),
        np.concatenate([part.vectors[part.triplets.target_rows] for part in sets]),
        forms,
        float(lengths.mean()),
    )


def list_wordings(captions: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that captions are joined to in training, all equally likely.

    One caption stays as it is; two give the four forms of `join_captions`.
    """
    if len(captions) < 2:
        return (join_captions(captions),)
    ordered = [join_captions(pair) for pair in (captions, captions[::-1])]
    return (*ordered, *(caption.strip(PUNCTUATION).capitalize() for caption in captions))
