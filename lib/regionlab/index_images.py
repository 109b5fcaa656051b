"""The images of a new index: those not known are embedded, and all are joined into its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from regionlab.batch_size import resolve_batch_size
from regionlab.collection import Collection
from regionlab.embedding import Encoder
from regionlab.index_files import Known, write_index_files
from regionlab.index_stamps import Stamp
from regionlab.shards import write_shards
from regionlab.workshop import whole_folder


def make_images(
    target: Path,
    collection: Collection,
    encoder: Encoder | None,
    known: Known,
    *,
    shards: Path,
    folder: Path,
    plan: str,
    sizes: dict[str, Any],
    stamps: list[Stamp],
    write: Callable[..., None] = write_shards,
) -> None:
    """Make the files of an index without regions in the folder `target` of a workshop.

    Parameters
    ----------
    collection, shards, folder, plan, stamps
        As for `write_index_files`.
    encoder
        Embeds the images that are not known; None if all are.
    known
        Images that need no embedding.
    sizes
        Of `check_sizes`.
    write
        Writes the shards that are missing: `write_shards`, or another that takes the same.
    """
    rest = np.flatnonzero(known.rows < 0)
    if len(rest):
        batch_size = resolve_batch_size(encoder, sizes["batch_size"])
        write(collection, rest, encoder, shards, **sizes | {"batch_size": batch_size})
    with whole_folder(target) as new:
        write_index_files(
            new, collection, shards, folder=folder, plan=plan, known=known, stamps=stamps
        )


def check_sizes(batch_size: int | str, workers: int, shard_size: int) -> dict[str, Any]:
    """Return the three for `make_images`, the shard rounded up to whole batches.

    Raises
    ------
    ValueError
        If one is below 1, or the batch size is another word than "auto".
    """
    batch = 1 if batch_size == "auto" else batch_size
    if isinstance(batch, str) or min(batch, workers, shard_size) < 1:
        raise ValueError(
            'batch_size (or "auto"), workers and shard_size must be at least 1, got '
            f"{batch_size!r}, {workers}, {shard_size}"
        )
    shard_size += -shard_size % batch
    return {"batch_size": batch_size, "workers": workers, "shard_size": shard_size}


def describe_model(encoder: Encoder) -> dict[str, Any]:
    """Return what the manifest says of the model of the vectors."""
    return {"space": encoder.space, "model": encoder.fingerprint, "dim": encoder.dim}
