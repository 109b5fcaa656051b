"""Find, read and write images: the one place that knows PIL.

Every image becomes an (H, W, 3) uint8 RGB array, or an `ImageError` that says why not.
Colour profiles (ICC) are not applied.
"""

import hashlib
import os
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from regionlab.data.listing import has_heif
from regionlab.data.masks import STEPS, is_sideways
from regionlab.util.errors import InputError, RegionlabError
from regionlab.util.paths import expand
from regionlab.util.progress import progress

# A fixed list keeps PIL's rarely used decoders away from files that nobody vouches for. HEIF is
# read besides, where pillow-heif is installed.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
LIMIT_VARIABLE = "REGIONLAB_MAX_PIXELS"
TOO_LARGE = "out of memory: too large for what is left"
JPEG_QUALITY = 92
STRIP = 2**22  # pixels that are copied at a time
MANY = 5000  # images, from which on a bar is shown, and several threads wait for the disk
READERS = 8

# EXIF orientation -> the transposition that puts the image upright, see `masks.STEPS`.
UPRIGHT = dict(enumerate((
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
), start=2))  # fmt: skip
# Scanners and cameras put so many bits into 16.
DEPTHS = (8, 10, 12, 14, 16)
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # tags of TIFF, and a value of the second
NATIVE_SWAPPED = "16B" if sys.byteorder == "little" else "16L"
OTHER_END = {"16B": "16L", "16L": "16B", "16N": NATIVE_SWAPPED}

MAX_SCANS = 100  # of a JPEG: encoders write some ten; a file may repeat 42 bytes thousands of times
MOST_MARKERS = 10_000
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
RESTART_INTERVAL = b"\xff\xdd"
EXIF_MARKS = re.compile(rb"eXIf|exif|xmp|APP1")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# All markers but those without a length: TEM, RST0 to RST7, SOI; and fill bytes.
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
# What ends the bits of a scan: any marker but a stuffed byte, a restart or fill.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Several kinds, as by chance one may mean what no bits at all mean. None makes a marker.
OTHER_BITS = (b"\xaa" * 64, b"\x35" * 64, bytes(i * i * 37 % 255 for i in range(1, 255)))


class ImageError(RegionlabError, ValueError):
    """An image that cannot be read: `path` says which, `reason` says why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)  # both in args, so that it survives pickling
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_limit(environ: Mapping[str, str]) -> int:
    """Return how many pixels an image may have; `REGIONLAB_MAX_PIXELS` sets another number."""
    text = environ.get(LIMIT_VARIABLE) or "300_000_000"
    if not re.fullmatch(r"\s*\d+(_\d+)*\s*", text) or int(text) < 1:
        raise InputError(f"{LIMIT_VARIABLE} must be a whole number above 0, got {text!r}")
    return int(text)


# Beyond the photographs of any telephone and most panoramas. So many take 2 to 5 GB of memory.
MAX_PIXELS = read_limit(os.environ)


def read_image(source: Path | str | bytes) -> np.ndarray:
    """Read an image from a file, or from the bytes of one.

    EXIF orientation is applied; of an animation the first frame counts; more than 8 bits a
    channel become the upper 8 of as many as the values take; transparency is laid on white; gray
    gets three channels. A JPEG may lack its end marker, but no pixel. Safe to call from several
    threads.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8 RGB, writable.

    Raises
    ------
    ImageError
        If the file cannot be opened, is not an image, is damaged or cut short, has more
        pixels than `MAX_PIXELS`, is a JPEG of more scans than `MAX_SCANS`, or has pixel values
        without an agreed range (floats, integers over 16 bits).
    """
    return read_image_and_digest(source)[0]


def read_image_and_digest(source: Path | str | bytes) -> tuple[np.ndarray, str]:
    """Read an image as `read_image` does, and the SHA-256 of its file, touching it once."""
    image, _, digest = read_pil_image(source)
    try:
        return _to_array(image), digest
    except MemoryError as e:
        raise ImageError("<bytes>" if isinstance(source, bytes) else source, TOO_LARGE) from e


def read_pil_image(
    source: Path | str | bytes, *, least_side: int | None = None
) -> tuple[Image.Image, tuple[int, int], str]:
    """Read an image as PIL has it, perhaps made smaller by the decoder itself.

    Parameters
    ----------
    source
        A file, or the bytes of one.
    least_side
        A JPEG may come at 1/8, 1/4 or 1/2 of its size, the first that leaves its shorter side
        this many pixels and divides both sides evenly, so that nothing is shifted. The decoder
        then leaves out the fine detail (DCT scaling) and takes less time. None reads all.

    Returns
    -------
    image, size, digest
        Upright, in RGB; width and height in pixels of the whole image, upright; SHA-256 of the
        file's bytes, 64 hexadecimal digits. Raises as `read_image` does.
    """
    is_data = isinstance(source, bytes)
    name, data = ("<bytes>", source) if is_data else (source, _read_bytes(source))
    image, factor = _decode(data, name, least_side)
    width, height = image.size
    return image, (width * factor, height * factor), hashlib.sha256(data).hexdigest()


def read_thumbnail(source: Path | str | bytes, side: int) -> np.ndarray:
    """Make a thumbnail as `make_thumbnail` does, of an image that is read as `read_image` does.

    A JPEG of more than four times the size is decoded at reduced scale, in less memory.
    """
    return make_thumbnail(_to_array(read_pil_image(source, least_side=2 * side)[0]), side)


def make_thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink an image so that its longer side is at most `side` pixels, at least 1.

    Takes and returns (h, w, 3) uint8 RGB, a new array; anything else is a ValueError.
    Proportions are kept; a smaller image is returned in its own size.
    """
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, not {side}")
    small = _image_from_array(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.array(small)


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB array as PNG or JPEG, by the suffix of `path`.

    InputError for another suffix, ValueError for another array.
    """
    path = expand(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"cannot write {path}: the suffix must be .png, .jpg or .jpeg")
    options = {} if suffix == ".png" else {"quality": JPEG_QUALITY}
    _image_from_array(image).save(path, **options)


def _image_from_array(image: np.ndarray) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return Image.fromarray(image)


def _read_bytes(path: Path | str) -> bytes:
    try:
        return expand(path).read_bytes()
    except FileNotFoundError as e:
        raise ImageError(path, "file not found") from e
    except MemoryError as e:
        raise ImageError(path, TOO_LARGE) from e
    except (OSError, ValueError) as e:  # ValueError: a null character in the name
        raise ImageError(path, getattr(e, "strerror", None) or str(e)) from e


def _decode(data: bytes, name: Path | str, least_side: int | None) -> tuple[Image.Image, int]:
    if not data:
        raise ImageError(name, "empty file (0 bytes)")
    try:
        image = _open(data, name)
        if image.format in ("JPEG", "MPO") and count_scans(data) > MAX_SCANS:
            reason = f"too much to decode: more than {MAX_SCANS} progressive scans"
            raise ImageError(name, reason)
        factor = _draft(image, least_side)
        loaded = _load_8_bits(image, lambda: _open(data, name))
        upright = UPRIGHT.get(_orientation_of(image))  # decoding may have turned it
        loaded = _to_rgb(loaded)
        return loaded if upright is None else loaded.transpose(upright), factor
    except ImageError:
        raise
    except (_RangeError, MemoryError) as e:
        raise ImageError(name, TOO_LARGE if isinstance(e, MemoryError) else str(e)) from e
    except Exception as e:  # on damaged files PIL's decoders raise almost any type
        mended = _mend(data, name, e)
        if mended is not None:
            return _decode(mended, name, least_side)
        raise ImageError(name, f"damaged: {e or type(e).__name__}") from e


def _open(data: bytes | BinaryIO, name: Path | str) -> Image.Image:
    """Open an image as `PIL.Image.open` does, but by `MAX_PIXELS`, not by PIL's own limit."""
    Image.init()
    file = BytesIO(data) if isinstance(data, bytes) else data
    start = file.read(32)
    for kind in FORMATS:
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is not None and (accept is None or accept(start[:16]) is True):
            file.seek(0)
            try:
                return _check_size(factory(file, ""), name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                pass  # so do plugins refuse what is not theirs
    if start[4:8] == b"ftyp" and has_heif():
        import pillow_heif  # late: an extra

        if pillow_heif.is_supported(start):
            file.seek(0)
            return _check_size(pillow_heif.HeifImageFile(file, ""), name)
    raise ImageError(name, f"not an image (known: {', '.join(FORMATS)})")


def _check_size(image: Image.Image, name: Path | str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        size, limit = f"{image.width} x {image.height} pixels", f"{MAX_PIXELS:,} in all"
        raise ImageError(name, f"too large: {size} are more than {limit} ({LIMIT_VARIABLE})")
    return image


def _draft(image: Image.Image, least_side: int | None) -> int:
    """Have a JPEG decoded smaller and return by how much; other formats take no notice."""
    width, height = image.size
    for factor in (8, 4, 2) if least_side is not None else ():
        if width % factor == height % factor == 0 and min(width, height) >= factor * least_side:
            image.draft(None, (width // factor, height // factor))
            break
    return width // image.width


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # spares a copy


def _to_array(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8; large images in strips, as PIL would make two copies of them."""
    width, height = image.size
    if width * height <= STRIP:
        return np.array(image)
    array, rows = np.empty((height, width, 3), np.uint8), max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        array[top : top + rows] = np.asarray(strip)
    return array


class _RangeError(ValueError):
    """Pixel values that have no agreed range; the text says what to do."""


def _find_depth(highest: int) -> int:
    """Return the smallest of `DEPTHS` that holds a value."""
    if highest >= 1 << 16:
        raise _RangeError("integer pixels over 16 bits: save as 8 or 16 bits a channel")
    return next(bits for bits in DEPTHS if highest < 1 << bits)


def _load_8_bits(image: Image.Image, reopen: Callable[[], Image.Image]) -> Image.Image:
    """Decode an opened image, and bring it to 8 bits a channel if it has 16.

    An image that says of how many bits it is keeps the upper 8 of them. Else it is of the fewest of
    8, 10, 12, 14 and 16 bits that hold all its values. `reopen` opens the same image again: PIL
    keeps only the upper half of 16-bit colours, and a second reading has to bring the lower.
    """
    declared, is_deep = _declared_bits(image), bool(_other_halves(image))
    layout = [part.args for part in getattr(image, "tile", ())]
    is_gray_alpha = image.mode == "RGBA" and layout == ["LA;16B"]
    image.load()
    if image.mode == "F":
        raise _RangeError("floating-point pixels: save as 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return _narrow_gray(image, declared)
    if not is_gray_alpha and (not is_deep or declared is not None):
        return image
    pixels, other = np.array(image), reopen()
    if is_gray_alpha:  # four bytes a pixel: the two halves of gray, and those of alpha
        other.tile = [part._replace(args="RGBA") for part in other.tile]
        halves = np.asarray(other).astype(np.uint16)
        values = (halves[..., 0] << 8 | halves[..., 1])[..., None]
    elif _find_depth(int(pixels[..., :3].max()) << 8 | 255) == 16:
        return image  # its upper halves are what is wanted
    else:
        other.tile = _other_halves(other)
        values = pixels[..., :3].astype(np.uint16) << 8 | np.asarray(other)[..., :3]
    pixels[..., :3] = values >> (_find_depth(values.max()) - 8)
    return Image.fromarray(pixels)


def _narrow_gray(image: Image.Image, declared: int | None) -> Image.Image:
    values = np.asarray(image)  # PIL's own conversion clips at 255
    if values.min() < 0:
        raise _RangeError("negative integer pixels, not over 16 bits: save as 8 or 16 bits")
    needed = _find_depth(values.max())
    shift = (declared or needed) - 8
    return Image.fromarray(np.minimum(values >> shift, 255).astype(np.uint8))


def _declared_bits(image: Image.Image) -> int | None:
    """Return of how many bits, below 16 or stretched to 16, an image says that it is."""
    if image.format == "PPM":
        return 16  # PIL has stretched it by the largest value that the header names
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0] - (tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED)
    return bits if 8 < bits < 16 else None


def _other_halves(image: Image.Image) -> list:
    """Return the parts of an image of 16-bit colours, to be read the wrong way round.

    Taken for the other byte order, the lower half of a value is what PIL keeps. Empty for any
    other image.
    """
    parts = []
    for part in getattr(image, "tile", ()):
        args = part.args if isinstance(part.args, tuple) else (part.args,)
        colours, _, order = str(args[0]).partition(";")
        if colours not in ("RGB", "RGBA") or order not in OTHER_END:
            return []
        swapped = f"{colours};{OTHER_END[order]}"
        whole = (swapped, *args[1:]) if isinstance(part.args, tuple) else swapped
        parts.append(part._replace(args=whole))
    return parts


class Header(NamedTuple):
    """What the header of an image says: its size in pixels as stored, and its orientation."""

    width: int
    height: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the pixels in the file."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the image as `read_image` gives it."""
        return self.stored[::-1] if is_sideways(self.orientation) else self.stored


def read_header(path: Path | str) -> Header | None:
    """Read the header of an image as `read_image` does; None if that cannot, and says why."""
    try:
        with open(path, "rb") as file, _open(file, path) as image:
            # For the marks that may follow a PNG's pixels, PIL would unpack them.
            has_exif = image.format != "PNG" or EXIF_MARKS.search(Path(path).read_bytes())
            header = Header(*image.size, _orientation_of(image) if has_exif else 1)
            # Of a TIFF, and of no other format, PIL gives the size upright.
            turned_back = Header(*header.upright, header.orientation)
            return turned_back if image.format == "TIFF" else header
    except Exception:  # on damaged files PIL's decoders raise almost any type
        return None


def read_headers(paths: Iterable[Path | str]) -> list[Header | None]:
    """Read the headers of many images, see `read_header`; some 0.1 ms each."""
    paths = list(paths)
    if len(paths) < MANY:
        return [read_header(path) for path in paths]
    with ThreadPoolExecutor(READERS) as pool:
        headers = pool.map(read_header, paths)
        return list(progress(headers, desc="read sizes", total=len(paths)))


def _orientation_of(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF: the image is shown as stored, as every viewer does
        return 1
    return orientation if orientation in STEPS else 1


def count_scans(data: bytes, *, most: int = MAX_SCANS) -> int:
    """Return how many scans a JPEG has, as its decoder meets them, up to `most` + 1.

    Each costs as much as a whole image, however few its bytes. Thumbnails within do not count.
    """
    scans, place = 0, 0
    for _ in range(MOST_MARKERS):
        marker = MARKER.search(data, place)
        if marker is None or marker[1][0] == END_OF_IMAGE or scans > most:
            return scans
        place = marker.end()
        scans += marker[1][0] == START_OF_SCAN
        place += max(2, int.from_bytes(data[place : place + 2]))
    return most + 1  # segments without an end are no image either


def _mend(data: bytes, name: Path | str, error: Exception) -> bytes | None:
    """Return a JPEG that only lacks its end marker with that; None for anything else.

    All scans must be there, and all their bits: whatever bits are put behind them may not change
    one pixel.
    """

    def decode(more: bytes) -> np.ndarray:
        more += bytes([0xFF, END_OF_IMAGE])
        return np.asarray(_load_8_bits(_open(more, name), lambda: _open(more, name)))

    if "truncated" not in str(error) or not data.startswith(b"\xff\xd8"):
        return None
    last_scan = _find_last_scan(data)
    if last_scan is None:
        return None
    try:
        pixels = decode(data)
        same = all(np.array_equal(pixels, decode(more)) for more in _continue(data, last_scan))
    except Exception:  # damaged besides
        return None
    return data + bytes([0xFF, END_OF_IMAGE]) if same else None


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
