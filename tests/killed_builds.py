"""Builds of an index that are killed at random moments, and have to end up the same."""

import hashlib
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from regionlab.data.collection import load_folder
from regionlab.index.build import build_index
from regionlab.models.registry import load_encoder

FILES = ("images.parquet", "image_vectors.npy", "failures.csv")
IMAGE_SIZE = (96, 64)  # width and height in pixels
NEW_LIFE = "life"  # a line of the log


@dataclass(frozen=True)
class Job:
    """A build to be killed: where everything lies, and its sizes."""

    pictures: Path
    index: Path
    log: Path
    encoder: str
    batch_size: int
    shard_size: int


class Trial(NamedTuple):
    """A build and its kills.

    Attributes
    ----------
    moments
        When the kills came, in seconds from the beginning or the going on.
    twice
        For each kill, the images that had been embedded before and were so again after it.
    files
        What the build had left when it was through.
    """

    moments: list[float]
    twice: list[int]
    files: dict[str, bytes]


def measure_resume(
    kills: int = 50,
    *,
    encoder: str = "toyclip/untrained",
    images: int = 96,
    batch_size: int = 4,
    shard_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Kill builds of an index with SIGKILL at random moments, and let them go on.

    Each life is a process of its own. Its moment is drawn from the time that a whole build
    takes; a build that goes on may be killed again, and once it is through, its files are
    compared, byte by byte, with those of one that was never killed. What goes into the model
    is written to a log before, so images count as embedded even where the kill came within.

    Parameters
    ----------
    kills
        How many; a build that is through before its moment does not count.
    encoder
        As for `load_encoder`; in fp32 on the CPU.
    images
        Pictures of noise, no two alike.
    batch_size, shard_size
        As for `build_index`.
    seed
        Of pictures and moments.

    Returns
    -------
    dict
        `kills`; `identical`, how many of them ended in the identical index;
        `embedded_twice_most` and `embedded_twice_mean`, images embedded again after a kill;
        `builds`, in which the kills came.

    Raises
    ------
    RuntimeError
        If a build ends in another way than through the kill, or does not embed each image
        once where it was not killed.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        pictures = _write_noise(folder / "pictures", images, rng)
        job = Job(pictures, folder, folder, encoder, batch_size, shard_size)
        _, seconds = [_time_build(_place(job, folder / name)) for name in ("first", "whole")]
        expected = _read_files(folder / "whole")
        check_log(folder / "whole.log", images)
        trials: list[Trial] = []
        while (left := kills - sum(len(trial.twice) for trial in trials)) > 0:
            place = _place(job, folder / f"index {len(trials)}")
            trials.append(_try_to_build(place, seconds, left, rng))
    twice = [count for trial in trials for count in trial.twice]
    return {
        "kills": kills,
        "identical": sum(len(trial.twice) for trial in trials if trial.files == expected),
        "embedded_twice_most": max(twice, default=0),
        "embedded_twice_mean": round(float(np.mean(twice or [0])), 2),
        "builds": sum(bool(trial.twice) for trial in trials),
    }


def _try_to_build(job: Job, seconds: float, most: int, rng: np.random.Generator) -> Trial:
    """Build, killed again and again but `most` times at most, until it is through."""
    moments: list[float] = []
    while True:
        moment = float(rng.uniform(0, seconds)) if len(moments) < most else None
        if not _live(job, moment)[0]:
            return Trial(moments, count_twice(job.log), _read_files(job.index))
        moments.append(moment)


def _time_build(job: Job) -> float:
    return _live(job, None)[1]


def _live(job: Job, moment: float | None) -> tuple[bool, float]:
    """Run a process that builds, killed after so many seconds; return whether, and its time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is loaded once, and not for each life
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_build, args=(job, theirs))
    process.start()
    theirs.close()
    seconds = _follow(ours, process, moment)
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a build ended by itself, with exit code {process.exitcode}")
    return process.exitcode != 0, seconds


def _follow(pipe: Connection, process: multiprocessing.Process, moment: float | None) -> float:
    """Kill the process some time after it has begun; return how long it took if it was through."""
    try:
        pipe.recv()  # the model is loaded
        if moment is not None and not pipe.poll(moment):
            process.kill()
        return pipe.recv()
    except EOFError:  # it is no more
        return float("nan")


def _build(job: Job, pipe: Connection) -> None:
    torch.set_num_threads(1)
    logging.disable()  # of as many lives nobody wants to read
    encoder = load_encoder(job.encoder, device="cpu", precision="fp32")
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    embed = encoder.encode_pixels

    def embed_and_log(pixels: torch.Tensor, **options) -> np.ndarray:
        names = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels]
        os.write(log, "".join(f"{name}\n" for name in names).encode())
        return embed(pixels, **options)

    encoder.encode_pixels = embed_and_log
    os.write(log, f"{NEW_LIFE}\n".encode())
    pipe.send("ready")
    began = time.perf_counter()
    sizes = {"batch_size": job.batch_size, "shard_size": job.shard_size}
    with redirect_stdout(None):
        build_index(load_folder(job.pictures), encoder, job.index, **sizes)
    pipe.send(time.perf_counter() - began)


def _place(job: Job, index: Path) -> Job:
    return replace(job, index=index, log=index.with_name(f"{index.name}.log"))


def _write_noise(folder: Path, count: int, rng: np.random.Generator) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = rng.integers(0, 256, (IMAGE_SIZE[1], IMAGE_SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    return folder


def _read_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def _read_lives(log: Path) -> list[list[str]]:
    """Return what each life embedded."""
    lives = log.read_text().split(f"{NEW_LIFE}\n")[1:]
    return [life.split() for life in lives]


def count_twice(log: Path) -> list[int]:
    """Return how many images each life but the first embedded that an earlier one had."""
    lives, seen, twice = _read_lives(log), set(), []
    for life in lives:
        twice.append(len(seen.intersection(life)))
        seen.update(life)
    return twice[1:]


def check_log(log: Path, images: int) -> None:
    (life,) = _read_lives(log)
    if len(life) != images or len(set(life)) != images:
        raise RuntimeError(f"a whole build of {images} images embedded {len(set(life))} of them")
