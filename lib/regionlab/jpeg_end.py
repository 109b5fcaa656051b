"""Tell a JPEG that lacks only its end from one that lacks pixels."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

END = b"\xff\xd9"
RESTART_INTERVAL = b"\xff\xdd"
START_OF_SCAN = 0xDA
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
# What ends the bits of a scan: any marker but a stuffed byte, a restart or fill.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# Several kinds, as by chance one may mean what no bits at all mean. None makes a marker.
OTHER_BITS = (b"\xaa" * 64, b"\x35" * 64, bytes(i * i * 37 % 255 for i in range(1, 255)))


def mend_end(data: bytes, decode: Callable[[bytes], np.ndarray]) -> bytes | None:
    """Return a JPEG with the end marker that it lacks; None if anything else is missing.

    All scans must be there, and all their bits: whatever bits are put behind them may not change
    one pixel.

    Parameters
    ----------
    data
        A JPEG that `decode` calls cut short.
    decode
        Turns a JPEG into its pixels.
    """
    last_scan = _find_last_scan(data)
    if last_scan is None:
        return None
    mended = data + END
    pixels = decode(mended)
    continued = (decode(more + END) for more in _continue(data, last_scan))
    return mended if all(np.array_equal(pixels, other) for other in continued) else None


def _continue(data: bytes, last_scan: int) -> Iterator[bytes]:
    """Yield the data with other bits behind, within an interval and after the next restart."""
    # A last 0xff is made a byte of the scan, not the beginning of the marker that follows.
    whole = data + b"\x00" if data.endswith(b"\xff") else data
    restarts = RESTART.findall(data, last_scan)
    number = (restarts[-1][1] + 1) & 7 if restarts else 0
    for bits in OTHER_BITS:
        yield whole + bits
        if RESTART_INTERVAL in data:
            yield data + bytes([0xFF, 0xD0 + number]) + bits


def _find_last_scan(data: bytes) -> int | None:
    """Return where the last scan begins; None if a coefficient comes in none, or not in full."""
    components: list[int] = []
    missing_bits: dict[int, list[int]] = defaultdict(lambda: [1] * 64)
    position, last_scan = 2, 0
    while found := NEXT_MARKER.search(data, position):
        marker, position = data[found.end() - 1], found.end()
        if marker in WITHOUT_LENGTH:
            continue
        body = data[position + 2 : position + int.from_bytes(data[position : position + 2], "big")]
        position += 2 + len(body)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            components = list(body[6::3])
        elif marker == START_OF_SCAN and len(body) > 4:
            last_scan, (first, last, bits) = position, body[-3:]
            for component in body[1:-3:2]:
                for k in range(first, min(last, 63) + 1):
                    missing_bits[component][k] = bits & 15
    is_whole = components and not any(any(missing_bits[c]) for c in components)
    return last_scan if is_whole else None
