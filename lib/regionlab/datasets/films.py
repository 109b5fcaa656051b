"""Film files: find them, and read a frame at every few seconds by their own time stamps."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from regionlab.datasets.labelled import list_content
from regionlab.listing import is_text, list_files
from regionlab.suffixes import FILM_SUFFIXES, unread_films

LOST = Fraction(1)  # seconds that may be missing at the end before a film counts as cut short


class FilmError(ValueError):
    """A film that cannot be read, or not to its end."""


def find_films(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Find one film, or all films in a folder.

    Returns
    -------
    films
        Episode -> file, sorted by path.
    skipped
        Path -> reason of what was left out, see `listing.list_files`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    OSError
        If the folder cannot be listed.
    ValueError
        If there is no film in the folder, or two differ in the suffix only.
    """
    if root.is_file():
        return {root.stem.encode(errors="backslashreplace").decode(): root}, {}
    if not root.is_dir():
        raise FileNotFoundError(f"no such film, or folder of films: {root}")
    found = list_files(root, FILM_SUFFIXES, unread_films())
    films: dict[str, Path] = {}
    for path in sorted(map(Path, found.paths)):
        episode = path.with_suffix("").as_posix()
        if not is_text(episode):
            found.skipped[path.as_posix()] = "file name is not valid UTF-8"
        elif episode in films:
            raise ValueError(f"{films[episode]} and {root / path} would be one episode, {episode}")
        else:
            films[episode] = root / path
    if not films:
        raise ValueError(
            f"no films in {root}: looked for {', '.join(FILM_SUFFIXES)}; {list_content(root)}"
            f"{found.describe_skipped()}"
        )
    return films, found.skipped


def read_frames(film: Path, seconds: float) -> Iterator[tuple[Fraction, np.ndarray]]:
    """Yield time and picture of the first frame at, or after, each multiple of `seconds`.

    Times are in seconds since the first frame, exact; pictures (H, W, 3) uint8 RGB, turned and
    mirrored as the film's display matrix says, their pixels taken as square.

    Raises
    ------
    FilmError
        Once there is nothing more to read: if the film cannot be opened, holds no video or
        no frame, is damaged, or ends before the time that it says.
    """
    import av  # late: FFmpeg is for those who have films

    step, wanted, end = Fraction(str(seconds)), Fraction(0), None
    try:
        with av.open(str(film), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise FilmError("it holds no video")
            stream = container.streams.video[0]
            for second, frame in _time_frames(container, stream):
                if second >= wanted:
                    yield second, turn_upright(frame.to_ndarray(format="rgb24"), _matrix(frame))
                    wanted = (second // step + 1) * step
                end = second + (frame.duration or 0) * stream.time_base
            length = _read_length(container, stream)
            start = (stream.start_time or 0) * stream.time_base
    except av.FFmpegError as e:
        after = "" if end is None else f" after {float(end):.1f} s"
        raise FilmError(f"it is damaged or no film: {e.strerror}{after}") from e
    if end is None:
        raise FilmError("it holds no frames")
    if length is not None and start + end < length - LOST:  # Matroska counts from 0
        raise FilmError(f"it is cut short: {float(end):.1f} s of {float(length):.1f} s are there")


def _time_frames(container, stream) -> Iterator[tuple]:
    """Yield each sound frame with its seconds since the first one."""
    first = last = None
    for frame in container.decode(stream):
        if frame.is_corrupt:
            continue
        if frame.pts is None:  # a container without time stamps: as the frame rate says
            stamp = Fraction(0) if last is None else last + 1 / (stream.average_rate or 25)
        else:
            stamp = frame.pts * stream.time_base
        first, last = stamp if first is None else first, stamp
        yield stamp - first, frame


def _read_length(container, stream) -> Fraction | None:
    """Seconds of video that the film says it has; None where it says so of the whole only."""
    if stream.duration:
        return stream.duration * stream.time_base
    alone = len(container.streams) == 1 and container.duration
    return Fraction(container.duration, 1_000_000) if alone else None


def turn_upright(picture: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """Turn and mirror a picture by a display matrix, to the nearest quarter of a turn.

    Parameters
    ----------
    picture
        (H, W, 3).
    matrix
        Row by row the 3 x 3 numbers of MP4: x, y lands at (a x + c y, b x + d y), where a, b are
        the first two numbers and c, d the fourth and fifth. None leaves the picture as it is.
    """
    if matrix is None:
        return picture
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _matrix(frame) -> tuple[int, ...] | None:
    """Return the display matrix of a frame; None if it has none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", bytes(data))
