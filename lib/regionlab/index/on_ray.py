"""Embed the images of an index by workers on the machines of a Ray cluster."""

import logging
import pickle
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regionlab.data.collection import Collection
from regionlab.index.build import make_index, warn_of_failures
from regionlab.index.change import check_sizes
from regionlab.index.index import Index
from regionlab.index.shards import (
    find_missing,
    list_paths,
    pack_images,
    save_shard,
    take_apart,
)
from regionlab.models.encoder import Encoder
from regionlab.runs.parallel import ClusterError, check_capacity, import_ray, open_cluster
from regionlab.util.errors import InputError
from regionlab.util.progress import progress

READERS = 2  # threads of a worker that read images, at least
RETRIES = 3  # of a shard whose worker died


class WorkerSpec(NamedTuple):
    """The workers: how many, what each holds, and which model each loads."""

    workers: int
    cpus: int
    gpus: float
    encoder: str
    precision: str
    padding: str

    def load_encoder(self) -> Encoder:
        """Load the model, on as many threads as the worker has processors."""
        import torch

        from regionlab.models.registry import load_encoder

        torch.set_num_threads(self.cpus)
        device = "cuda" if self.gpus else "cpu"
        return load_encoder(
            self.encoder, device=device, precision=self.precision, padding=self.padding
        )


class Model(NamedTuple):
    """What an index says of its model, as a worker found it."""

    space: str
    fingerprint: dict[str, Any]
    dim: int


class ShardEncoder:
    """Embeds shards: one on each worker, which loads the model once.

    Not when it is made, but at its first shard: Ray counts deaths at a shard, and would make
    anew without end a worker that dies before, as for lack of memory. Errors are told as data,
    in words, since Ray would try again and wrap them in its own stack traces.
    """

    def __init__(self, crew: WorkerSpec, model: Model, root: Path, batch_size: int, readers: int):
        self.crew, self.model, self.root = crew, model, root
        self.encoder: Encoder | None = None
        self.sizes = {"batch_size": batch_size, "workers": readers}

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """Embed one shard: from its `start` and `paths` to its `start`, file and `error`."""
        shard, error = b"", ""
        try:
            shard = self._embed(rows["paths"][0])
        except Exception as e:
            error = f"on {platform.node()}, {type(e).__name__}: {e}"
        return {"start": rows["start"], "shard": [shard], "error": [error]}

    def _load(self) -> Encoder:
        """Load the model, and check that it is that of the others."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder {self.root}: every machine needs the images there")
        encoder = self.crew.load_encoder()
        if encoder.fingerprint != self.model.fingerprint:
            raise ValueError(
                f"another model: {encoder.fingerprint}, not {self.model.fingerprint}; give all "
                "machines the same weights, and name the precision"
            )
        return encoder

    def _embed(self, paths: Sequence[str]) -> bytes:
        began = time.perf_counter()
        self.encoder = self.encoder or self._load()
        with closing(self.encoder.encode_stream(paths, **self.sizes)) as batches:
            items = list(take_apart(batches))
        return pickle.dumps(pack_images(items, self.encoder.dim, time.perf_counter() - began))


def build_index_distributed(
    collection: Collection,
    encoder: str,
    folder: Path | str,
    *,
    workers: int = 2,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
    batch_size: int = 64,
    shard_size: int = 2048,
    precision: str = "auto",
    padding: str = "none",
    address: str | None = None,
    fresh: bool = False,
) -> Index:
    """Embed all images of a collection into an index on disk, with workers on a Ray cluster.

    The index, its shards and what is done about unreadable images and killed builds are those
    of `build_index`, to the bit where the processors are of one kind and the model's threads as
    many. A shard whose worker died is embedded again by another.

    Parameters
    ----------
    collection, folder, batch_size, shard_size, fresh
        As for `build_index`. A shard is what one worker takes at a time: where there are few
        images for many workers, make it smaller.
    encoder, precision, padding
        As for `load_encoder`, by every worker: in bf16 or fp32, by name, if the machines differ.
    workers
        Copies of the model.
    cpus_per_worker
        Processors of each: threads of its model; it reads images with as many, two at least.
    gpus_per_worker
        GPUs of each; 0.5 lets two share one.
    address
        As for `open_cluster`: None is this machine, if `RAY_ADDRESS` does not say another.

    Raises
    ------
    InputError
        If the collection is empty, not one of its images can be read, or the encoder or a
        number is not known or possible.
    IndexFolderError
        As `build_index` does.
    ClusterError
        If there is no Ray or no such cluster, it has no room for the workers, or they fail.
    """
    if min(workers, cpus_per_worker) < 1 or gpus_per_worker < 0:
        raise InputError(
            "workers and cpus_per_worker must be at least 1 and gpus_per_worker 0, got "
            f"{workers}, {cpus_per_worker}, {gpus_per_worker}"
        )
    if isinstance(batch_size, str):
        raise InputError(f"batch_size must be a number for several workers, got {batch_size!r}")
    sizes = check_sizes(batch_size, max(READERS, cpus_per_worker), shard_size)
    crew = WorkerSpec(workers, cpus_per_worker, gpus_per_worker, encoder, precision, padding)
    with open_cluster(address) as ray:
        check_capacity(ray, workers, cpus=cpus_per_worker, gpus=gpus_per_worker)
        with _plain_errors(ray):
            model = _ask_for_model(ray, crew)
            write = partial(write_shards_with_ray, crew=crew)
            index = make_index(collection, model, folder, sizes, fresh=fresh, write=write)
    warn_of_failures(index)
    return index


def write_shards_with_ray(
    collection: Collection,
    rows: np.ndarray,
    model: Model,
    folder: Path,
    *,
    batch_size: int,
    workers: int,
    shard_size: int,
    crew: WorkerSpec,
) -> None:
    """Do what `write_image_shards` does, on a cluster that is connected.

    Parameters
    ----------
    workers
        Threads of each worker that read images.
    crew
        The workers.
    """
    ray = import_ray()
    missing = find_missing(folder, rows, shard_size)
    if not missing:
        return
    shards = [
        {"start": start, "paths": [str(path) for path in list_paths(collection, shard)]}
        for start, shard in missing.items()
    ]
    count = min(crew.workers, len(shards))
    given = (crew, model, collection.root, batch_size, workers)
    rows = iter(_map_shards(ray, shards, count, crew, given).iter_rows())
    with _quiet_ray_data(), closing(rows):  # or an error that is kept would keep the workers
        for result in progress(rows, f"embed shards on {count} workers", len(shards)):
            if result["error"]:
                raise ClusterError(f"a worker failed {result['error']}")
            save_shard(folder, int(result["start"]), pickle.loads(result["shard"]))


def _map_shards(ray, shards: list[dict], count: int, crew: WorkerSpec, given: tuple):
    """Return the data set of the embedded shards, which Ray makes while it is gone through."""
    with warnings.catch_warnings():
        # Without a limit an image that kills its worker is tried for ever. Ray is to take the
        # option in another place from 2.64 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = ray.data.from_items(shards, override_num_blocks=len(shards)).map_batches(
            ShardEncoder,
            batch_size=1,
            fn_constructor_args=given,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=crew.cpus,
            num_gpus=crew.gpus,
            max_task_retries=RETRIES,
        )
    dataset.context.enable_progress_bars = False  # we have our own
    return dataset


def _ask_for_model(ray, crew: WorkerSpec) -> Model:
    """Load the model where a worker would, which may compute in another precision than here."""

    def describe() -> Model:
        encoder = crew.load_encoder()
        return Model(encoder.space, encoder.fingerprint, encoder.dim)

    task = ray.remote(num_cpus=crew.cpus, num_gpus=crew.gpus)(describe)
    return ray.get(task.remote())


@contextmanager
def _plain_errors(ray) -> Iterator[None]:
    """Raise what went wrong in a task as itself, and explain what went wrong with Ray."""
    try:
        yield
    except ray.exceptions.RayTaskError as e:
        raise e.cause from e
    except ray.exceptions.RayError as e:
        reason = str(e).strip().partition("\n")[0]
        raise ClusterError(
            f"Ray gave up; a worker that dies again and again often lacks memory. The shards that "
            f"are done are kept, and the same call goes on from there. Ray says: {reason}"
        ) from e


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Keep Ray Data's own reports off the screen; they are in its log files all the same."""
    handlers = logging.getLogger("ray.data").handlers
    consoles = [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]
    levels = [handler.level for handler in consoles]
    for handler in consoles:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)
