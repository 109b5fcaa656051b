"""Count the scans of a JPEG: each costs as much as a whole picture, however few its bytes."""

import re

MAX_SCANS = 100  # encoders write some ten; a file may repeat 42 bytes thousands of times

# All but those without a length: TEM, RST0 to RST7, SOI; and fill bytes.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
_MOST_MARKERS = 10_000


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
    for _ in range(_MOST_MARKERS):
        marker = _MARKER.search(data, place)
        if marker is None or marker[1][0] == _END or scans > most:
            return scans
        place = marker.end()
        scans += marker[1][0] == _SCAN
        place += max(2, int.from_bytes(data[place : place + 2]))
    return most + 1  # segments without an end are no picture either
