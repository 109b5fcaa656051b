"""How much memory an index takes to build: the same for a large collection as for a small one."""

import multiprocessing
import os
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from regionlab.bench.indexing import PICTURE_SIZE, write_pictures
from regionlab.data.collection import load_folder
from regionlab.data.listing import list_images
from regionlab.index.build import build_index
from regionlab.models.registry import load_encoder
from regionlab.runs.record import describe_device
from regionlab.util.timing import summarise_measure

MIB = 2**20


def measure_memory(
    encoder: str = "toyclip/untrained",
    *,
    counts: tuple[int, int] = (1000, 4000),
    rounds: int = 3,
    pictures: int = 200,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the peak memory of building an index of few pictures, and of many.

    Each build is a process of its own, since a process never forgets its peak.

    Parameters
    ----------
    encoder
        As for `load_encoder`.
    counts
        Pictures of the small collection and of the large one.
    rounds
        How often each is built.
    pictures
        Different ones among them, as `write_pictures` makes them; the others are links.
    batch_size
        As for `build_index`.
    seed
        Of the pictures.

    Returns
    -------
    dict
        `ratio_large_vs_small`, of the peaks within a round; `peak_mib` of each collection, the
        interpreter and the model included; `growth_kib_per_image`; and the setting. A measured
        value is the median, with its range over the rounds.
    """
    small, large = counts
    peaks: dict[int, list[float]] = {small: [], large: []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = list_images(write_pictures(folder / "pictures", min(pictures, large), seed))
        for count in counts:
            _link_pictures(sources, folder / str(count), count)
        for _ in range(rounds):
            for count, found in peaks.items():
                target = folder / f"index {count}"
                found.append(_build_apart(encoder, folder / str(count), target, batch_size) / MIB)
    growth = np.subtract(peaks[large], peaks[small]) * 1024 / (large - small)
    return {
        "ratio_large_vs_small": summarise_measure(np.divide(peaks[large], peaks[small])),
        "peak_mib": {str(count): summarise_measure(found) for count, found in peaks.items()},
        "growth_kib_per_image": summarise_measure(growth),
        "images": list(counts),
        "encoder": encoder,
        "batch_size": batch_size,
        "image_size": list(PICTURE_SIZE),
        "device": describe_device(),
    }


def read_peak() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    try:  # that of getrusage may be the peak of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource  # late: Windows has none

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _link_pictures(sources: list[Path], folder: Path, count: int) -> None:
    folder.mkdir()
    for number, source in enumerate(islice(cycle(sources), count)):
        os.link(source, folder / f"{number:06d}.jpg")


def _build_apart(encoder: str, pictures: Path, target: Path, batch_size: int) -> int:
    """Build an index in a process of its own; return its peak in bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_build, (encoder, pictures, target, batch_size))


def _build(encoder: str, pictures: Path, target: Path, batch_size: int) -> int:
    collection = load_folder(pictures)
    build_index(collection, load_encoder(encoder), target, batch_size=batch_size, fresh=True)
    return read_peak()
