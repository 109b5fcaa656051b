"""Find, read and write pictures: the one place that knows PIL.

Every picture becomes an (H, W, 3) uint8 RGB array, or an `ImageError` that says why not.
Colour profiles (ICC) are not applied.
"""

import hashlib
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from regionlab.paths import expand

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

# A fixed list keeps PIL's rarely used decoders away from files that nobody vouches for.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")

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


class ImageError(ValueError):
    """A picture that cannot be read: `path` says which, `reason` says why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)  # both in args, so that it survives pickling
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def list_images(root: Path | str) -> list[Path]:
    """List the pictures under a folder, nested ones included, in a fixed order.

    Sorted by the path relative to `root` with forward slashes. Files count by their suffix,
    in any case; names that start with a dot and `__MACOSX` folders are left out. Linked
    folders are entered, but not when they lead back to a folder they lie in. A dangling
    link with a picture's name is listed, so that reading it reports the loss.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If `root` is not there, or is a file.
    ValueError
        If there is no picture under `root`.
    """
    root = expand(root)
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"not a folder but a file: {root}")
    paths = sorted(_walk(root, above=()), key=lambda path: path.relative_to(root).as_posix())
    if not paths:
        raise ValueError(f"no images in {root} (looked for {', '.join(IMAGE_SUFFIXES)})")
    return paths


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is left out of every listing."""
    return name.startswith(".") or name == "__MACOSX"


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to where we come from
        return
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if not is_hidden(entry.name)]
    for entry in entries:
        if entry.is_dir():
            yield from _walk(folder / entry.name, (*above, real))
        elif _is_picture(entry):
            yield folder / entry.name


def _is_picture(entry: os.DirEntry) -> bool:
    # No pipes or devices: reading one could wait for ever.
    named = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
    return named and (entry.is_file() or entry.is_symlink())


def read_image(source: Path | str | bytes) -> np.ndarray:
    """Read a picture from a file, or from the bytes of one.

    EXIF orientation is applied; of an animation the first frame counts; 16 bits a channel
    become 8 by their high byte; transparency is laid on white; gray gets three channels.
    Safe to call from several threads.

    Returns
    -------
    image
        (H, W, 3) uint8 RGB, writable.

    Raises
    ------
    ImageError
        If the file cannot be opened, is not a picture, is damaged or cut short, has more
        pixels than PIL allows (`PIL.Image.MAX_IMAGE_PIXELS`), or has pixel values without
        an agreed range (floats, integers over 16 bits).
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
    return np.array(picture), digest


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
    except (OSError, ValueError) as e:  # ValueError: a null character in the name
        raise ImageError(path, getattr(e, "strerror", None) or str(e)) from e


def _decode(data: bytes, name: Path | str, least_side: int | None) -> tuple[Image.Image, int]:
    if not data:
        raise ImageError(name, "empty file (0 bytes)")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        _check_size(image, name)
        factor = _draft(image, least_side)
        image.load()
        upright = UPRIGHT.get(_read_orientation(image))
        image = _to_rgb(image, name)
        return image if upright is None else image.transpose(upright), factor
    except ImageError:
        raise
    except UnidentifiedImageError as e:
        raise ImageError(name, f"not an image (known: {', '.join(FORMATS)})") from e
    except Image.DecompressionBombError as e:
        raise ImageError(name, f"too large: {e}") from e
    except Exception as e:  # on damaged files PIL's decoders raise almost any type
        raise ImageError(name, f"damaged: {e or type(e).__name__}") from e


def _draft(image: Image.Image, least_side: int | None) -> int:
    """Have a JPEG decoded smaller and return by how much; other formats take no notice."""
    width, height = image.size
    for factor in (8, 4, 2) if least_side is not None else ():
        if width % factor == height % factor == 0 and min(width, height) >= factor * least_side:
            image.draft(None, (width // factor, height // factor))
            break
    return width // image.width


def _check_size(image: Image.Image, name: Path | str) -> None:
    # Between this limit and twice as much PIL only warns.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width} x {image.height} pixels"
        raise ImageError(name, f"too large: {size} are more than {limit:,} in all")


def _read_orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF: show the picture as stored, like every viewer does
        return None


def _to_rgb(image: Image.Image, name: Path | str) -> Image.Image:
    if image.mode == "F":
        raise ImageError(name, "floating-point pixels: save as 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _gray16_to_gray8(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # spares a copy


def _gray16_to_gray8(image: Image.Image, name: Path | str) -> Image.Image:
    # PIL's own conversion clips at 255. The high byte is what it keeps of 16-bit RGB.
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(name, "integer pixels over 16 bits: save as 8 or 16 bits a channel")
    return Image.fromarray((values >> 8).astype(np.uint8))
