"""Change an index to that of a collection: what is still the same by contents is taken over.

The one way by which indexes come into being. All is made in a hidden folder beside the index,
which takes its place in one move, regions included.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.index.index import Index, open_index
from regionlab.index.shards import (
    Found,
    know_nothing,
    read_shards,
    write_image_shards,
    write_region_shards,
)
from regionlab.index.sources import Look, hash_unknown, write_stamps
from regionlab.index.staging import (
    IMAGES,
    REGION_SHARDS,
    SHARDS,
    finish_swap,
    hand_over_regions,
    keep_previous,
    open_shards,
    open_staging,
    staged_folder,
)
from regionlab.index.tables import (
    BLOCK,
    PENDING,
    REGION_COLUMNS,
    STAMPS,
    StackedVectors,
    get_region_config,
    name_region,
    write_images,
    write_regions,
)
from regionlab.util.errors import InputError
from regionlab.util.progress import say

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter

REGION_SHARD = 128  # images between two savings, when regions are found


@dataclass(frozen=True)
class Change:
    """What an index is to become."""

    folder: Path  # its place
    collection: Collection  # all images that it is to have, in their order, storable
    build_hash: str  # of `hash_build`, to know it again
    look: Look  # the collection's files
    encoder: "Encoder | None" = None  # embeds the images that are new; None if there are none
    segmenter: "Segmenter | None" = None  # without one missing regions are listed as pending
    region_config: dict[str, Any] | None = None  # None: as the source's, if it has regions
    sizes: dict[str, Any] = field(default_factory=lambda: {"workers": 2})  # of `check_sizes`
    write: Callable[..., None] = write_image_shards  # or another that takes the same
    retry: bool = False  # whether regions that could not be found are tried again
    fresh: bool = False  # whether to forget what cut off work has left


def check_sizes(batch_size: int | str, workers: int, shard_size: int) -> dict[str, Any]:
    """Return the three as a mapping, the shard rounded up to whole batches.

    Raises
    ------
    InputError
        If one is below 1, or the batch size is another word than "auto".
    """
    batch = 1 if batch_size == "auto" else batch_size
    if isinstance(batch, str) or min(batch, workers, shard_size) < 1:
        raise InputError(
            'batch_size (or "auto"), workers and shard_size must be at least 1, got '
            f"{batch_size!r}, {workers}, {shard_size}"
        )
    shard_size += -shard_size % batch
    return {"batch_size": batch_size, "workers": workers, "shard_size": shard_size}


def make_change(
    change: Change, source: Index | None, rows: np.ndarray, replaced: Index | None
) -> Index:
    """Put the index that is wanted in its place, and return it.

    Parameters
    ----------
    source
        An index by the same model, from which to take over; None for none.
    rows
        (n,) int64, for each image of the collection its row there, -1 to embed it.
    replaced
        The index in this place now, None if there is none.
    """
    task = _describe_task(change, source, rows)
    work = open_staging(change.folder, IMAGES, task, fresh=change.fresh)
    if source is not None:
        say(_describe_change(source, change.collection, rows))
    config = change.region_config
    if config is None and source is not None and source.regions is not None:
        config = get_region_config(source.manifest)
    taken = source is not None and source.regions is not None and is_made_by(source, config)
    lost = replaced is not None and replaced.regions is not None
    if lost and change.segmenter is None and not (taken and (rows >= 0).any()):
        keep_previous(work)
    target = work / ("ready" if config is None else "images")
    _make_images(change, source, rows, work, target)
    if config is not None:
        new = replace(open_index(target), root=change.collection.root.resolve())
        read = change.collection.images["image_id"].isin(new.images["image_id"]).to_numpy()
        make_regions(
            new, work, config, source if taken else None,
            rows[read] if taken else np.full(read.sum(), -1),
            change.segmenter, change.encoder, shard_size=REGION_SHARD, retry=change.retry,
        )  # fmt: skip
    if change.segmenter is None:
        hand_over_regions(change.folder)
    finish_swap(change.folder)
    return open_index(change.folder)


def _describe_change(source: Index, collection: Collection, rows: np.ndarray) -> str:
    """Say in one line what an index keeps and what not, as "1 new, 40 kept"."""
    ids, held = collection.images["image_id"], source.images["image_id"]
    changed = ids[rows < 0].isin(held).sum()
    counts = {"new": (rows < 0).sum() - changed, "kept": (rows >= 0).sum()}
    others = {"changed": changed, "removed": len(set(range(len(held))) - set(rows)) - changed}
    counts |= {what: count for what, count in others.items() if count > 0}
    return f"{collection.title}: " + ", ".join(f"{n} {what}" for what, n in counts.items())


def _describe_task(change: Change, source: Index | None, rows: np.ndarray) -> str:
    """Return what decides the shards and their order, for a task that was cut off to go on."""
    digest = hashlib.sha256(rows.astype(np.int64).tobytes())
    for row in np.flatnonzero(rows < 0):
        digest.update(f"{change.look.stamps[row]} {change.look.digests[row]}\n".encode())
    origin = source and [source.id, source.regions is not None and source.regions_id]
    shard = change.sizes.get("shard_size")
    task = [change.build_hash, shard, origin, change.region_config, digest.hexdigest()]
    return json.dumps(task)


# ---- which images are the same


def match_images(images: pd.DataFrame, image_ids: pd.Series, digests: np.ndarray) -> np.ndarray:
    """Return for each file the row of an index's image with the same contents, -1 for none.

    Of several the one with the same id is taken, else the first. `digests` are the files'
    SHA-256, (n,), empty where one cannot be read.
    """
    by_id = pd.Index(images["image_id"]).get_indexer(image_ids)
    held = images["sha256"].to_numpy()
    by_digest = _match_digests(images["sha256"], digests)
    return np.where((by_id >= 0) & (held[by_id] == digests), by_id, by_digest)


def _match_digests(held: pd.Series, digests: np.ndarray) -> np.ndarray:
    """Return for each digest its first row in `held`, -1 for none; an empty one has none."""
    first = held[held != ""].drop_duplicates()
    rows = pd.Index(first).get_indexer(digests)
    return np.where(rows < 0, -1, first.index.to_numpy(np.int64)[rows] if len(first) else -1)


# ---- take over what is known, and make the rest


class _Merged(NamedTuple):
    table: pd.DataFrame  # as of `Found`, `row` being that of the new index
    image_log: pd.DataFrame  # a line for each image of the new index
    blocks: Iterator[np.ndarray]  # the vectors, up to `BLOCK` at once
    same: bool  # whether they are those of the first source, all in order


def _complete(
    known: Found,
    rows: np.ndarray,
    shards: tuple[Path, list[Path]],
    digests: Callable[[], np.ndarray],
    write: Callable[[np.ndarray, Path], None] | None,
    *,
    retry: bool,
) -> _Merged:
    """Join what an index knows, what cut off work has left, and what is found now.

    Parameters
    ----------
    known, rows
        Of an index, and for each image of the new one its row there, or -1.
    shards
        Of `open_shards`.
    digests
        Returns the SHA-256 of each image of the new index.
    write
        Writes shards of the images in some rows; None leaves them pending.
    retry
        Whether images that had failed are tried again.
    """
    dim, regions, count = known.vectors.shape[1], "rle" in known.table, len(known.table)
    reasons = known.log["reason"].to_numpy()
    usable = reasons == "" if retry else reasons != PENDING
    held = rows >= 0
    held[held] = usable[rows[held]]
    rows = np.where(held, rows, -1)
    salvage = read_shards(shards[1], dim, regions=regions)
    if len(salvage.log) and (rows < 0).any():
        good = salvage.log["sha256"].where(salvage.log["reason"] == "", "")
        found = _match_digests(good, digests())
        rows = np.where((rows < 0) & (found >= 0), found + len(known.log), rows)
        known = _stack(known, salvage)
    rest = np.flatnonzero(rows < 0)
    if write is not None and len(rest):
        if regions and len(rest) < len(rows):
            say(f"regions: {len(rest)} new, {len(rows) - len(rest)} kept")
        write(rest, shards[0])
        rows[rest] = len(known.log) + np.arange(len(rest))
        known = _stack(known, read_shards([shards[0]], dim, regions=regions))
    return _gather(known, rows, count)


def _stack(first: Found, second: Found) -> Found:
    """Return all that two know; the rows of the second follow those of the first."""
    log = pd.concat([first.log, second.log], ignore_index=True)
    below = second.table.assign(row=second.table["row"] + len(first.log))
    table = pd.concat([first.table, below], ignore_index=True)
    parts = [(len(first.table), lambda: first.vectors), (len(second.table), lambda: second.vectors)]
    return Found(log, table, StackedVectors(parts, first.vectors.shape[1]))


def _gather(known: Found, rows: np.ndarray, count: int) -> _Merged:
    """Return what is known of the images in `rows`; `count` lines are the first source's."""
    wanted = np.flatnonzero(rows >= 0)
    owners = known.table["row"].to_numpy()
    starts, stops = (np.searchsorted(owners, rows[wanted], side) for side in ("left", "right"))
    held = stops - starts
    lines = np.arange(held.sum()) + np.repeat(starts - (np.cumsum(held) - held), held)
    table = known.table.iloc[lines].assign(row=np.repeat(wanted, held)).reset_index(drop=True)
    log = known.log.iloc[rows[wanted]].set_axis(wanted)
    if len(wanted) < len(rows):
        log = log.reindex(range(len(rows))).fillna({"reason": PENDING, "seconds": 0.0})
    blocks = (known.vectors[lines[i : i + BLOCK]] for i in range(0, len(lines), BLOCK))
    same = np.array_equal(lines, np.arange(count))
    return _Merged(table, log, blocks, same)


def _make_images(
    change: Change, source: Index | None, rows: np.ndarray, work: Path, target: Path
) -> None:
    """Make the files of an index without regions in the folder `target`."""
    if source is None:
        encoder = change.encoder
        model = {"space": encoder.space, "model": encoder.fingerprint, "dim": encoder.dim}
        known = know_nothing(model["dim"], regions=False)
    else:
        model = {key: source.manifest[key] for key in ("space", "model", "dim")}
        seconds = source.manifest["seconds"] / max(len(source), 1)
        log = source.images[["sha256", "width", "height"]].assign(reason="", seconds=seconds)
        known = Found(log, pd.DataFrame({"row": np.arange(len(source))}), source.vectors)

    def write(rest: np.ndarray, folder: Path) -> None:
        from regionlab.models.pipeline import resolve_batch_size

        batch_size = resolve_batch_size(change.encoder, change.sizes["batch_size"])
        sizes = change.sizes | {"batch_size": batch_size}
        change.write(change.collection, rest, change.encoder, folder, **sizes)

    def digests() -> np.ndarray:
        return hash_unknown(change.collection, change.look, change.sizes["workers"]).digests

    shards = open_shards(work, SHARDS, model)
    made = _complete(known, rows, shards, digests, write, retry=True)
    with staged_folder(target) as new:
        write_images(
            new, change.folder, change.collection, model, change.build_hash, made.image_log,
            made.blocks, unchanged=source.folder if source is not None and made.same else None,
        )  # fmt: skip
        seen = change.look.stamps, made.image_log["sha256"]
        write_stamps(new / STAMPS, change.folder, change.collection, *seen)


def make_regions(
    index: Index,
    work: Path,
    config: dict[str, Any],
    source: Index | None,
    rows: np.ndarray,
    segmenter: "Segmenter | None",
    encoder: "Encoder | None",
    *,
    shard_size: int,
    retry: bool = False,
) -> None:
    """Make an index anew with regions, in `work`/ready: those known, and the others found.

    Parameters
    ----------
    index
        Which images.
    config
        Of `describe_regions`.
    source, rows
        An index with regions made so, and for each image its row there, -1 for none.
    segmenter, encoder
        Find the others; without a segmenter they are listed as pending.
    shard_size
        Images between two savings.
    retry
        Whether images that had failed are tried again.
    """
    write = None
    if segmenter is not None:
        from regionlab.models.segmenter import MaskGeneratorConfig

        everything = MaskGeneratorConfig(**config["everything"])

        def write(rest: np.ndarray, folder: Path) -> None:
            write_region_shards(
                index, rest, segmenter, encoder, folder, encoding=config["encoding"],
                everything=everything, shard_size=shard_size,
            )  # fmt: skip

    known = know_nothing(index.manifest["dim"], regions=True)
    if source is not None:
        reasons = source.region_failures.set_index("image_id")["reason"]
        reasons = reasons.reindex(source.images["image_id"], fill_value="").to_numpy()
        seconds = source.manifest["regions"]["seconds"] / max(len(source), 1)
        log = source.images[["sha256"]].assign(reason=reasons, seconds=seconds)
        known = Found(log, source.regions, source.region_vectors)
    shards = open_shards(work, REGION_SHARDS, config)
    made = _complete(known, rows, shards, index.images["sha256"].to_numpy, write, retry=retry)
    table = _name_anew(made.table, index.images)
    with staged_folder(work / "ready") as new:
        unchanged = source.folder if source is not None and made.same else None
        write_regions(
            new, index.folder, config, table, made.image_log, made.blocks, unchanged=unchanged
        )


def _name_anew(table: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return regions with the ids of their images: the same image may have another name now."""
    ids = images["image_id"].to_numpy()[table["row"]]
    other = np.flatnonzero(table["image_id"].to_numpy() != ids)
    table = table.assign(image_id=ids).astype(REGION_COLUMNS)[list(REGION_COLUMNS)]
    names = [name_region(ids[line], table["rle"].iloc[line]) for line in other]
    table.loc[other, "region_id"] = names
    return table


# ---- how regions were made


def describe_regions(
    segmenter: "Segmenter",
    encoder: "Encoder",
    encoding: str | None,
    everything: "MaskGeneratorConfig | None",
) -> dict[str, Any]:
    """Return what decides the regions, as it reads back from JSON; an error if not known."""
    from regionlab.regions.encodings import DEFAULT_ENCODING, find_encoding

    encoding = encoding or DEFAULT_ENCODING
    find_encoding(encoding)
    config = {
        "segmenter": segmenter.fingerprint,
        "everything": dataclasses.asdict(everything or segmenter.everything),
        "encoding": encoding,
        "model": encoder.fingerprint,
    }
    return json.loads(json.dumps(config))


def has_regions(index: Index, config: dict[str, Any] | None = None) -> bool:
    """Tell whether an index has the regions of all its images, made by a config if one is given."""
    if index.regions is None or not (config is None or is_made_by(index, config)):
        return False
    return PENDING not in set(index.region_failures["reason"])


def is_made_by(index: Index, config: dict[str, Any]) -> bool:
    """Tell whether regions of an index were made by a config."""
    made = index.manifest["regions"]
    return made is not None and all(made[key] == value for key, value in config.items())
