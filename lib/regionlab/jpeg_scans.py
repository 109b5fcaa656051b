"""Count the scans of a JPEG: each costs as much as a whole picture, however few its bytes."""

import re

MAX_SCANS = 100  # encoders write some ten; a file may repeat 42 bytes thousands of times

_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # without a length: TEM, RST0 to RST7, SOI
_END, _SCAN = 0xD9, 0xDA


def count_scans(data: bytes, *, most: int = MAX_SCANS) -> int:
    """Return how many scans a JPEG has, as its decoder meets them, up to `most` + 1.

    Parameters
    ----------
    data
        The file, from its start; thumbnails and pictures within its segments do not count.
    most
        Counting ends above it.
    """
    scans, place = 0, 0
    while scans <= most and (marker := _MARKER.search(data, place)):
        kind, place = marker[1][0], marker.end()
        if kind == _END:
            break
        if kind in _ALONE:
            continue
        scans += kind == _SCAN
        place += max(2, int.from_bytes(data[place : place + 2]))
    return scans
