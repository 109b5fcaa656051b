"""Find, read and write pictures: the one place that knows PIL.

Every picture becomes an (H, W, 3) uint8 RGB array, or an `ImageError` that says why not.
Colour profiles (ICC) are not applied.
"""

import hashlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from regionlab.data.decoding import (
    MAX_SCANS,
    ImageError,
    RangeError,
    count_scans,
    load_8_bits,
    mend_end,
    open_picture,
)
from regionlab.data.listing import Listing, list_files, readable_images, unread_images
from regionlab.util.paths import expand

STRIP = 2**22  # pixels that are copied at a time

# EXIF orientation -> the transposition that puts the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

JPEG_QUALITY = 92
TOO_LARGE = "out of memory: too large for what is left"


def find_images(root: Path | str) -> Listing:
    """List the pictures under a folder, nested ones included, and what was left out and why.

    See `listing.list_files` for what is left out. Pictures and films of kinds that are not read,
    by their suffix, are in `skipped` too; files that are plainly something else are not.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If `root` is not there, or is a file.
    OSError
        If `root` cannot be listed.
    ValueError
        If there is no picture under `root`.
    """
    root = expand(root)
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"not a folder but a file: {root}")
    found = list_files(root, readable_images(), unread_images())
    if not found.paths:
        known = ", ".join(readable_images())
        raise ValueError(f"no images in {root} (looked for {known}){found.describe_skipped()}")
    return found


def list_images(root: Path | str) -> list[Path]:
    """List the pictures under a folder, nested ones included, in a fixed order.

    Sorted by the path relative to `root` with forward slashes. Raises as `find_images` does,
    which also says what was left out.
    """
    root = expand(root)
    return [root / path for path in find_images(root).paths]


def read_image(source: Path | str | bytes) -> np.ndarray:
    """Read a picture from a file, or from the bytes of one.

    EXIF orientation is applied; of an animation the first frame counts; more than 8 bits a
    channel become the upper 8 of as many as the values take (see `depth.load_8_bits`);
    transparency is laid on white; gray gets three channels. A JPEG may lack its end marker, but
    no pixel. Safe to call from several threads.

    Returns
    -------
    image
        (H, W, 3) uint8 RGB, writable.

    Raises
    ------
    ImageError
        If the file cannot be opened, is not a picture, is damaged or cut short, has more
        pixels than `opening.MAX_PIXELS`, is a JPEG of more scans than `jpeg_scans.MAX_SCANS`,
        or has pixel values without an agreed range (floats, integers over 16 bits).
    """
    return read_image_and_digest(source)[0]


def read_image_and_digest(source: Path | str | bytes) -> tuple[np.ndarray, str]:
    """Read a picture and the SHA-256 of its file, touching the file once.

    Returns
    -------
    image
        (H, W, 3) uint8 RGB, as `read_image` gives it.
    digest
        SHA-256 of the file's bytes, 64 hexadecimal digits.

    Raises
    ------
    ImageError
        As `read_image` does.
    """
    picture, _, digest = read_picture(source)
    try:
        return _to_array(picture), digest
    except MemoryError as e:
        raise ImageError("<bytes>" if isinstance(source, bytes) else source, TOO_LARGE) from e


def read_picture(
    source: Path | str | bytes, *, least_side: int | None = None
) -> tuple[Image.Image, tuple[int, int], str]:
    """Read a picture as PIL has it, perhaps made smaller by the decoder itself.

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
    picture
        Upright, in RGB.
    size
        Width and height in pixels of the whole picture, upright.
    digest
        SHA-256 of the file's bytes, 64 hexadecimal digits.

    Raises
    ------
    ImageError
        As `read_image` does.
    """
    if isinstance(source, bytes):
        name, data = "<bytes>", source
    else:
        name, data = source, _read_bytes(source)
    picture, factor = _decode(data, name, least_side)
    width, height = picture.size
    return picture, (width * factor, height * factor), hashlib.sha256(data).hexdigest()


def read_thumbnail(source: Path | str | bytes, side: int) -> np.ndarray:
    """Read a picture shrunk so that its longer side is at most `side` pixels.

    As `make_thumbnail` of `read_image`, except that a JPEG of more than four times that size is
    decoded at reduced scale, which takes a fraction of the memory.

    Returns
    -------
    thumbnail
        (h, w, 3) uint8 RGB.

    Raises
    ------
    ImageError
        As `read_image` does.
    ValueError
        If `side` is below 1.
    """
    return make_thumbnail(_to_array(read_picture(source, least_side=2 * side)[0]), side)


def make_thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink an image so that its longer side is at most `side` pixels.

    Proportions are kept; a smaller image is returned in its own size.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB.
    side
        Pixels, at least 1.

    Returns
    -------
    thumbnail
        (h, w, 3) uint8 RGB, a new array.

    Raises
    ------
    ValueError
        If `image` is no (H, W, 3) uint8 array or `side` is below 1.
    """
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, not {side}")
    small = _image_from_array(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.array(small)


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB array as PNG or JPEG, by the suffix of `path`.

    Raises
    ------
    ValueError
        If the suffix is another one, or `image` is no (H, W, 3) uint8 array.
    """
    path = expand(path)
    suffix = path.suffix.lower()
    if suffix == ".png":
        _image_from_array(image).save(path)
    elif suffix in (".jpg", ".jpeg"):
        _image_from_array(image).save(path, quality=JPEG_QUALITY)
    else:
        raise ValueError(f"cannot write {path}: the suffix must be .png, .jpg or .jpeg")


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
        image = open_picture(data, name)
        _check_scans(image, data, name)
        factor = _draft(image, least_side)
        loaded = _load(image, data, name)
        upright = UPRIGHT.get(_read_orientation(image))  # decoding may have turned it
        loaded = _to_rgb(loaded)
        return loaded if upright is None else loaded.transpose(upright), factor
    except ImageError:
        raise
    except RangeError as e:
        raise ImageError(name, str(e)) from e
    except MemoryError as e:
        raise ImageError(name, TOO_LARGE) from e
    except Exception as e:  # on damaged files PIL's decoders raise almost any type
        mended = _mend(data, name, e)
        if mended is not None:
            return _decode(mended, name, least_side)
        raise ImageError(name, f"damaged: {e or type(e).__name__}") from e


def _load(image: Image.Image, data: bytes, name: Path | str) -> Image.Image:
    return load_8_bits(image, lambda: open_picture(data, name))


def _mend(data: bytes, name: Path | str, error: Exception) -> bytes | None:
    """Return a JPEG that only lacks its end marker with that; None for anything else."""
    if "truncated" not in str(error) or not data.startswith(b"\xff\xd8"):
        return None
    try:
        return mend_end(data, lambda more: np.asarray(_load(open_picture(more, name), more, name)))
    except Exception:  # damaged besides
        return None


def _draft(image: Image.Image, least_side: int | None) -> int:
    """Have a JPEG decoded smaller and return by how much; other formats take no notice."""
    width, height = image.size
    for factor in (8, 4, 2) if least_side is not None else ():
        if width % factor == height % factor == 0 and min(width, height) >= factor * least_side:
            image.draft(None, (width // factor, height // factor))
            break
    return width // image.width


def _check_scans(image: Image.Image, data: bytes, name: Path | str) -> None:
    if image.format in ("JPEG", "MPO") and count_scans(data) > MAX_SCANS:
        raise ImageError(name, f"too much to decode: more than {MAX_SCANS} progressive scans")


def _read_orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF: show the picture as stored, like every viewer does
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # spares a copy


def _to_array(picture: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8; large pictures in strips, as PIL would make two copies of them."""
    width, height = picture.size
    if width * height <= STRIP:
        return np.array(picture)
    image, rows = np.empty((height, width, 3), np.uint8), max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        image[top : top + rows] = np.asarray(strip)
    return image
