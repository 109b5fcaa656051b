"""The process that unpacks pictures of strangers: `python -m regionlab.service.decoder`.

It reads jobs from its input and writes pictures to its output until the input ends: a line of
JSON, then so many bytes as it says. `work.Decoder` talks to it. A job that takes more than
its processor time, or more memory than there may be, ends the process.
"""

import json
import os
import signal
import sys
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import AvifImagePlugin, Image

from regionlab.data.images import FORMATS, ImageError, count_scans, read_image

try:
    import resource
except ImportError:  # not on Windows, where only the deadline of `work` ends a job
    resource = None

AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def peek(data: bytes) -> dict[str, Any]:
    """Return width, height and scans as the header of an image has them."""
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as e:
        return {"error": str(e), "large": True}
    except Exception:  # on damaged files PIL raises almost any type
        return {"error": f"not an image (known: {', '.join(FORMATS)})", "large": False}
    scans = count_scans(data) if image.format in ("JPEG", "MPO") else 1
    return {"size": image.size, "scans": scans, "format": image.format}


def read(data: bytes) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return the shape of an image and its pixels, or why it cannot be read."""
    try:
        pixels = read_image(data)
    except ImageError as e:
        return {"error": e.reason}, None
    return {"shape": pixels.shape}, pixels


def answer(line: dict[str, Any], data: bytes) -> tuple[dict[str, Any], np.ndarray | None]:
    """Do one job within its processor time."""
    _limit_seconds(line["seconds"])
    try:
        return (peek(data), None) if line["job"] == "peek" else read(data)
    except MemoryError:
        return {"error": "it takes too much memory"}, None
    finally:
        _limit_seconds(0)


def _limit_seconds(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # its signal ends the process, whatever it is in
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main(memory: int) -> None:
    """Answer jobs until the input ends, in at most so many bytes of memory."""
    source, sink = sys.stdin.buffer, _take_output()
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hasattr(os, "nice"):
        os.nice(5)  # searches go first
    while header := source.readline():
        line = json.loads(header)
        told, pixels = answer(line, source.read(line["bytes"]))
        told["bytes"] = 0 if pixels is None else pixels.nbytes
        sink.write(json.dumps(told).encode() + b"\n")
        if pixels is not None:
            sink.write(memoryview(pixels).cast("B"))
        sink.flush()


def _take_output() -> BinaryIO:
    """Keep what a library prints out of the answers."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sink


if __name__ == "__main__":
    main(int(sys.argv[1]))
