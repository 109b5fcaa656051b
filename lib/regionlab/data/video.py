"""Films: one frame every few seconds, written once as images and read as a collection."""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection, make_ids, make_skipped, make_table
from regionlab.data.images import write_image
from regionlab.data.listing import FILM_SUFFIXES, is_text, list_content, list_files, unread_films
from regionlab.util.errors import InputError, MissingFileError, RegionlabError, import_extra
from regionlab.util.files import write_json
from regionlab.util.paths import DATA, expand, shorten_path
from regionlab.util.progress import progress

LOST = Fraction(1)  # seconds that may be missing at the end before a film counts as cut short
LABELS = "labels.csv"
SPAN = ["episode", "start", "end"]
VERSION = 2  # raised when the same film would give other frames


class FilmError(RegionlabError, ValueError):
    """A film that cannot be read, or not to its end."""


def load_video(
    root: Path | str,
    *,
    seconds: float = 5.0,
    labels: Path | str | None = None,
    frames: Path | str | None = None,
) -> Collection:
    """Load one frame every `seconds` of a film, or of each film in a folder (S1, section 4.2).

    Of each multiple of `seconds` it takes the first frame at that time or after it, by the
    film's own time stamps, so films of variable frame rate are sampled evenly too; where a
    frame stands longer than that, multiples go by without one. Frames are written as JPEG once,
    and again only when the film or `seconds` has changed.

    Parameters
    ----------
    root
        A film, or a folder of films (in sub-folders too). The path below the folder, without
        its suffix, is the film's `episode`.
    seconds
        Between two frames.
    labels
        A CSV file with the columns `episode`, `start` and `end` (seconds; the end is
        exclusive) and others, such as `label`, that say what is seen then; absolute, or
        relative to the folder. None takes `labels.csv` where it lies there. Lines that fit no
        film, or no time, are left out and listed in `skipped`.
    frames
        Folder for the frames; by default one in `data/frames/`.

    Returns
    -------
    Collection
        One row a frame, with `episode`, `second` (since the film's first frame) and the columns
        of `labels`, "" where no span holds the frame. `skipped` lists films that cannot be
        read, films that are cut short or damaged, of which the frames before are there, and
        what was left out of the folder, see `listing.list_files`.

    Raises
    ------
    MissingFileError, MissingExtraError, InputError
        If there is no such film, folder or file of labels; if the extra `video` is missing; if
        there is no frame in any film, `seconds` is not positive, or no label fits.
    """
    root = Path(root).expanduser().absolute()
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds must be above 0 and finite, got {seconds}")
    films, skipped = find_films(root)
    folder = Path(frames).expanduser() if frames else _default_folder(root, seconds)
    spans, left = _read_spans(root, labels, films)
    skipped |= left
    known = [
        _write_frames(film, folder, episode, seconds)
        for episode, film in progress(films.items(), "frames of films", len(films))
    ]
    rows = [row for film in known for row in film["frames"]]
    skipped |= {film["film"]: film["problem"] for film in known if film["problem"]}
    if not rows:
        reasons = "; ".join(f"{film}: {reason}" for film, reason in skipped.items())
        raise InputError(f"no frames in {root}: {reasons}")
    images = pd.DataFrame(rows, columns=["episode", "second", "path", "width", "height"])
    columns = {"image_id": make_ids(images["path"]), **images.to_dict("list")}
    return Collection(
        folder,
        make_table("images", columns | _label_frames(images, spans)),
        name=root.name if root.is_dir() else root.stem,
        skipped=make_skipped(skipped.items()),
    )


def find_films(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return episode -> file of one film, or of all in a folder, and path -> reason of the rest."""
    if root.is_file():
        return {root.stem.encode(errors="backslashreplace").decode(): root}, {}
    if not root.is_dir():
        raise MissingFileError(f"no such film, or folder of films: {root}")
    found = list_files(root, FILM_SUFFIXES, unread_films())
    films: dict[str, Path] = {}
    for path in sorted(map(Path, found.paths)):
        episode = path.with_suffix("").as_posix()
        if not is_text(episode):
            found.skipped[path.as_posix()] = "file name is not valid UTF-8"
        elif episode in films:
            raise InputError(f"{films[episode]} and {root / path} would be one episode, {episode}")
        else:
            films[episode] = root / path
    if not films:
        raise InputError(
            f"no films in {root}: looked for {', '.join(FILM_SUFFIXES)}; {list_content(root)}"
            f"{found.describe_skipped()}"
        )
    return films, found.skipped


def read_frames(film: Path, seconds: float) -> Iterator[tuple[Fraction, np.ndarray]]:
    """Yield time and image of the first frame at, or after, each multiple of `seconds`.

    Times are in seconds since the first frame, exact; images (H, W, 3) uint8 RGB, turned and
    mirrored as the film's display matrix says, their pixels taken as square. Once there is nothing
    more to read, FilmError says if the film cannot be opened, holds no video or no frame, is
    damaged, or ends before the time that it says.
    """
    av = import_extra("av", "video")  # FFmpeg is for those who have films
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


def turn_upright(image: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """Turn and mirror an (H, W, 3) image by a display matrix, to the nearest quarter of a turn.

    The matrix is row by row the 3 x 3 numbers of MP4: x, y lands at (a x + c y, b x + d y), where
    a, b are the first two numbers and c, d the fourth and fifth. None leaves the image as it is.
    """
    if matrix is None:
        return image
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _matrix(frame) -> tuple[int, ...] | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", bytes(data))


def _default_folder(root: Path, seconds: float) -> Path:
    """Return a folder that is this root's own, whatever other folders of its name there are."""
    place = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    name = root.name if root.is_dir() else root.stem
    name = shorten_path(re.sub(r"[^\w.]+", "-", name).strip("-"))
    return DATA / "frames" / f"{name}-{place}-{seconds:g}s"


def _write_frames(film: Path, folder: Path, episode: str, seconds: float) -> dict:
    """Write a film's frames, unless they lie there already, and return what is known of it.

    The file that says so is written last, so that a film cut off half-way is read again.
    """
    name = episode + film.suffix
    try:
        stat = film.stat()
    except OSError as e:  # such as a link to nowhere
        return {"film": name, "problem": f"it cannot be read: {e.strerror or e}", "frames": []}
    made = [VERSION, name, stat.st_size, stat.st_mtime_ns, seconds]
    place = shorten_path(episode)
    marker = folder / f"{place}.json"
    if marker.is_file():
        known = json.loads(marker.read_text("utf-8"))
        if known["made"] == made and all((folder / row[2]).is_file() for row in known["frames"]):
            return known
    marker.unlink(missing_ok=True)
    (folder / place).mkdir(parents=True, exist_ok=True)
    for leftover in (folder / place).glob("[0-9]" * 9 + ".jpg"):
        leftover.unlink()
    rows, problem = [], ""
    try:
        for second, image in read_frames(film, seconds):
            path = f"{place}/{round(1000 * second):09d}.jpg"
            write_image(folder / path, image)
            rows.append([episode, float(second), path, image.shape[1], image.shape[0]])
    except FilmError as e:
        problem = str(e)
    known = {"made": made, "film": name, "problem": problem, "frames": rows}
    write_json(marker, known)
    return known


def _read_spans(
    root: Path, labels: Path | str | None, films: dict[str, Path]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read which label holds when, and which lines fit nothing; none where there are no labels."""
    folder = root if root.is_dir() else root.parent
    if labels is None and not (root / LABELS).is_file():
        return pd.DataFrame(columns=SPAN), {}
    path = folder / expand(labels or LABELS)
    if not path.is_file():
        raise MissingFileError(f"no such file of labels: {path}")
    try:
        spans = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig")
    except ValueError as e:  # not UTF-8, or lines of several lengths
        raise InputError(f"{path} is no CSV file in UTF-8: {e}") from e
    if missing := [name for name in SPAN if name not in spans]:
        raise InputError(f"{path} has no column {missing[0]!r}, only {list(spans.columns)}")
    times = spans[SPAN[1:]].apply(pd.to_numeric, errors="coerce")
    left = {}
    for row in np.flatnonzero(~(times["start"] < times["end"])):
        left[row] = "start and end must be seconds, in order"
    for row in np.flatnonzero(~spans["episode"].isin(list(films))):
        left[row] = f"it labels {spans['episode'][row]!r}, but the films are {', '.join(films)}"
    reasons = {f"{path.name}, line {row + 2}": reason for row, reason in sorted(left.items())}
    if len(left) == len(spans) > 0:
        raise InputError(f"{path} labels no film; {': '.join(next(iter(reasons.items())))}")
    return spans.assign(**times).drop(index=list(left)), reasons


def _label_frames(images: pd.DataFrame, spans: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of labels, for each frame those of the first span that holds it."""
    names = [name for name in spans.columns if name not in SPAN]
    if clash := {"image_id", *images.columns} & set(names):
        raise InputError(f"a column of labels cannot be called {', '.join(sorted(clash))}")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for episode, second in images[["episode", "second"]].itertuples(index=False):
        held = (spans["episode"] == episode) & (spans["start"] <= second) & (second < spans["end"])
        found = spans[held]
        for name in names:
            columns[name].append(found[name].iloc[0] if len(found) else "")
    return columns
