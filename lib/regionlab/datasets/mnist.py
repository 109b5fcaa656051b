"""MNIST's layout, idx: a header of big-endian numbers, then bytes."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from regionlab.datasets.labelled import LabelledImages, check_split, gray_to_rgb, list_content

STEMS = {"train": "train", "test": "t10k"}
SOURCE = (
    "MNIST can be had from yann.lecun.com/exdb/mnist, and as torchvision's MNIST; each file "
    "may be plain or .gz."
)
IDX_UINT8 = 0x08  # the type code of bytes, third in the magic number


def load_mnist(root: Path | str, split: str = "train") -> LabelledImages:
    """Load MNIST, or another data set in its layout, such as Fashion-MNIST.

    Parameters
    ----------
    root
        The folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of
        `t10k`, each plain or with `.gz` (`train-images.idx3-ubyte` is known as well), or in a
        folder of its own name; or a folder that holds all that as `raw/`, `MNIST/raw/`, or any
        `*/raw/`, as torchvision puts it, `*/` or `*/*/raw/`.
    split
        "train" or "test".

    Returns
    -------
    LabelledImages
        60,000 or 10,000 images, (28, 28, 3), the three channels alike (a view: they take
        the memory of one). Labels are "0" to "9".

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a file is damaged, cut short or of another kind, the counts disagree, or several
        folders hold such files.
    """
    check_split(split)
    root = Path(root).expanduser()
    images_file = _find_file(root, STEMS[split], "images", 3)
    labels_file = _find_file(root, STEMS[split], "labels", 1)
    images, labels = read_idx(images_file, ndim=3), read_idx(labels_file, ndim=1)
    if len(images) != len(labels):
        raise ValueError(
            f"{images_file} holds {len(images)} images, {labels_file.name} {len(labels)} labels"
        )
    return LabelledImages(gray_to_rgb(images), labels.astype(str), root.absolute().name, split)


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """Read an idx file of bytes, packed by gzip or not, as a uint8 array of `ndim` axes.

    Raises
    ------
    ValueError
        If the magic number is another one, or the file is damaged, cut short or too long.
    """
    data = _read_bytes(path)
    expected = IDX_UINT8 << 8 | ndim
    magic = int.from_bytes(data[:4], "big")
    if magic != expected:
        raise ValueError(
            f"{path} is no idx file of bytes with {ndim} axes: its magic number is "
            f"{magic:#010x}, not {expected:#010x}"
        )
    start = 4 + 4 * ndim
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) != start + math.prod(shape):
        raise ValueError(
            f"{path} is cut short or damaged: its header says {shape}, which takes "
            f"{start + math.prod(shape)} bytes, and it holds {len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find_file(root: Path, stem: str, what: str, ndim: int) -> Path:
    names = [f"{stem}-{what}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    below = [root / "raw", *sorted(root.glob("*/raw"))]
    for folders in ([root], below, sorted(root.glob("*/")), sorted(root.glob("*/*/raw/"))):
        found = [file for folder in folders if (file := _look_in(folder, names))]
        if len(found) > 1:
            places = ", ".join(file.relative_to(root).as_posix() for file in found)
            raise ValueError(f"several data sets in {root}: {places}; name the folder of one")
        if found:
            return found[0]
    raise FileNotFoundError(
        f"no {names[0]} in {root}, {root}/raw or {root}/*/raw: looked for {', '.join(names)}; "
        f"{list_content(root)}. {SOURCE}"
    )


def _look_in(folder: Path, names: list[str]) -> Path | None:
    """Return the first file of these names, in the folder or in one of such a name."""
    places = [folder, *(folder / name for name in names)]
    files = (place / name for place in places for name in names)
    return next((file for file in files if file.is_file()), None)


def _read_bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise ValueError(f"{path} is cut short or damaged: {e}") from e
