"""Which pixels annotations were drawn on: those stored in the file, or the picture upright.

EXIF may turn a picture. Labelling tools differ in whether they take notice of it, and COCO's
format does not say; the width and height in the annotation file often do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regionlab.orientation import Header, read_headers, turn_box

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Drawn:
    """What the annotations of an image were drawn on.

    Attributes
    ----------
    size
        Of the pixels they were drawn on; None where it is not known.
    upright
        Of the picture as it is read; None where it is not known.
    orientation
        Of EXIF, by which what is drawn has to be turned; 1 for not at all.
    fault
        Why nothing drawn on it can be used, "" for no reason.
    """

    size: Size | None
    upright: Size | None
    orientation: int = 1
    fault: str = ""

    def turn_box(self, box: tuple[float, float, float, float]) -> tuple:
        """Turn a box, XYXY in pixels, upright."""
        return box if self.orientation == 1 else turn_box(box, self.size, self.orientation)


def find_drawn(files: Mapping[str, Path], sizes: Mapping[str, Size | None]) -> dict[str, Drawn]:
    """Find out what the annotations of images were drawn on, from the headers of the pictures.

    A size in the annotation file that is that of the stored pixels means these; one that is
    that of the upright picture means this. Where both are the same (mirrored and half turns,
    squares) or the file gives no size, it is as with most of the other turned pictures; where
    they do not tell either, the stored pixels, which COCO's own tools and those of its time
    read.

    Parameters
    ----------
    files
        Where each picture lies, by image id. Of pictures that cannot be opened the size of the
        annotation file counts.
    sizes
        Width and height by image id, as the annotation file has them; None where it has none.
    """
    headers = dict(zip(files, read_headers(files.values()), strict=True))
    told = [_tell(header, sizes[image_id]) for image_id, header in headers.items() if header]
    by_default = "upright" if told.count("upright") > told.count("stored") else "stored"
    return {
        image_id: _decide(header, sizes[image_id], by_default)
        for image_id, header in headers.items()
    }


def _tell(header: Header, size: Size | None) -> str:
    """Return "stored" or "upright", or "" where the size fits both or neither."""
    if header.stored == header.upright:
        return ""
    return {header.stored: "stored", header.upright: "upright"}.get(size, "")


def _decide(header: Header | None, size: Size | None, by_default: str) -> Drawn:
    if header is None:
        return Drawn(size, size)
    if size not in (None, header.stored, header.upright):
        width, height = header.upright
        fault = (
            f"it was drawn on {size[0]} x {size[1]} pixels, but the picture has {width} x {height}"
        )
        return Drawn(size, header.upright, fault=fault)
    if (_tell(header, size) or by_default) == "upright":
        return Drawn(header.upright, header.upright)
    return Drawn(header.stored, header.upright, header.orientation)
