"""The service as a process of its own, for measuring it and for showing its page."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from regionlab.index.index import Index
from regionlab.util import paths

START_SECONDS = 300  # until the service must answer


@dataclass(frozen=True)
class Served:
    """The service, running."""

    process: subprocess.Popen
    port: int

    def memory(self) -> float:
        """Return the memory that it holds, in MB."""
        return round(psutil.Process(self.process.pid).memory_info().rss / 1e6, 1)

    def ask_health(self) -> dict[str, Any]:
        """Return what GET /health says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as answer:
            return json.load(answer)


@contextmanager
def run_service(folder: Path, *, batch: int) -> Iterator[Served]:
    """Run the service of an index in a process of its own, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "regionlab.cli", "serve", "--index", str(folder)]
    command += ["--port", str(port), "--batch", str(batch)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        served = Served(process, port)
        try:
            _wait_until_ready(served, log)
            yield served
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_ready(served: Served, log: BinaryIO) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and served.process.poll() is None:
        try:
            return served.ask_health()
        except OSError:
            time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"the service does not start: {log.read()[-2000:].decode()}")


def prepare_index(images: int) -> Index:
    """Return the index of so many Toybox images with regions, built where it is not there."""
    from regionlab.index.build import build_index
    from regionlab.index.regions import add_regions
    from regionlab.models.registry import (
        load_encoder,  # late: an index that is there needs no torch
        load_segmenter,
    )
    from toybox import load_toybox
    from toybox.disk import SIZES

    encoder, segmenter = load_encoder(), load_segmenter()
    collection = load_toybox(count=images)
    count = None if images == SIZES["test"] else str(images)
    folder = paths.index_folder("toybox", "test", count, encoder.name, "regions")
    return add_regions(build_index(collection, encoder, folder), segmenter, encoder)


def find_box(index: Index, row: int) -> list[float]:
    """Return the box of an image's largest region that is not its ground, XYXY in pixels."""
    image, regions = index.images.iloc[row], index.regions.iloc[index.regions_of(row)]
    things = regions[regions["area"] < image["width"] * image["height"] / 2]
    if not len(things):
        return [0.0, 0.0, float(image["width"]), float(image["height"])]
    return things.loc[things["area"].idxmax(), ["x0", "y0", "x1", "y1"]].astype(float).tolist()
