"""Pictures that visitors send: their names, their sizes and their pixels."""

import hashlib

import numpy as np
from fastapi import HTTPException

from regionlab.embedding import MAX_ASPECT
from regionlab.jpeg_scans import MAX_SCANS
from regionlab.service.decoding import DecodeError, Decoders, Told
from regionlab.service.limits import Limits

UPLOAD = "upload-"  # ids of files that were sent begin so
HEADER_SECONDS = 1.0  # of a processor, to read a picture's header
HEADER_COST = 8  # of each byte, beside that of a pixel: some headers are as long as the file


def name_upload(data: bytes) -> str:
    """Return the id of a picture that was sent: who knows it knows the picture."""
    return UPLOAD + hashlib.sha256(data).hexdigest()[:32]


async def peek_upload(decoders: Decoders, data: bytes, limits: Limits) -> tuple[int, int, int]:
    """Return width, height and scans as the header of a picture has them; nothing is unpacked.

    Raises
    ------
    HTTPException
        413 if it has too many pixels, 422 if it is no picture, as narrow as a line, or has too
        many scans.
    """
    cost = HEADER_COST * len(data)
    told, _ = await _ask(decoders, "peek", data, cost, HEADER_SECONDS)
    if "error" in told:
        if told["large"]:
            raise HTTPException(413, f"the image is too large: {told['error']}")
        raise HTTPException(422, told["error"])
    width, height = told["size"]
    if width * height > limits.pixels:
        size = f"{width} x {height} pixels"
        raise HTTPException(
            413, f"the image is too large: {size}, at most {limits.pixels:,} in all"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise HTTPException(422, f"the image is too narrow: {width} x {height} pixels")
    if told["scans"] > MAX_SCANS:
        raise _unreadable(f"more than {MAX_SCANS} progressive scans")
    return width, height, told["scans"]


async def read_upload(decoders: Decoders, data: bytes, cost: float, limits: Limits) -> np.ndarray:
    """Read a picture that was sent, (H, W, 3) uint8 RGB.

    Raises
    ------
    HTTPException
        422 if it is damaged, or cannot be unpacked within `limits.decode_seconds`.
    """
    told, pixels = await _ask(decoders, "read", data, cost, limits.decode_seconds)
    if "error" in told:
        raise _unreadable(told["error"])
    return pixels


async def _ask(decoders: Decoders, job: str, data: bytes, cost: float, seconds: float) -> Told:
    try:
        return await decoders.ask(job, data, cost=cost, seconds=seconds)
    except DecodeError as e:
        raise _unreadable(str(e)) from e


def _unreadable(reason: str) -> HTTPException:
    return HTTPException(422, f"the image cannot be read: {reason}")
