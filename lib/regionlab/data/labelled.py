"""Pictures with one label each, whatever they are stored as."""

import gzip
import math
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from regionlab.data.collection import Collection, find_split_folders, load_class_folders
from regionlab.data.images import read_image
from regionlab.data.listing import list_content

# The file comes in 14 runs of about 130 digits, a writer each (scikit-learn's course, "Sample
# grouping"); here the last four begin.
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages:
    """Pictures and their labels, in the form that `Encoder.encode_images` takes.

    Checked when made. Pictures in files stay there until they are encoded or read.

    Parameters
    ----------
    images
        (n, H, W, 3) uint8 RGB, or n paths.
    labels
        (n,) str.
    name, split
        What the data set calls itself and this part of it.

    Raises
    ------
    ValueError
        If there are no images, not as many labels as images, labels that are not text, or
        images of another kind.
    """

    images: np.ndarray | Sequence[Path]
    labels: np.ndarray
    name: str
    split: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels))
        if not len(self.images):
            raise ValueError(f"{self.name} {self.split} holds no images")
        if self.labels.shape != (len(self.images),) or self.labels.dtype.kind != "U":
            raise ValueError(
                f"{self.name} {self.split} needs one text a label for {len(self.images)} images, "
                f"got {self.labels.shape} {self.labels.dtype}"
            )
        if isinstance(self.images, np.ndarray):
            _check_array(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        counts = f"{len(self):,} images of {len(self.classes)} classes"
        return f"<LabelledImages {self.name} {self.split}: {counts}>"

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted."""
        return np.unique(self.labels).tolist()

    def read(self, row: int) -> np.ndarray:
        """Return an image as (H, W, 3) uint8 RGB; raises as `images.read_image` does."""
        image = self.images[row]
        return image if isinstance(image, np.ndarray) else read_image(image)

    def take(self, rows: np.ndarray) -> "LabelledImages":
        """Keep the images at the (m,) int `rows`, in that order."""
        if isinstance(self.images, np.ndarray):
            images = self.images[rows]
        else:
            images = [self.images[row] for row in rows]
        return replace(self, images=images, labels=self.labels[rows])

    def sample(self, count: int, *, seed: int) -> "LabelledImages":
        """Keep `count` images drawn at random, in their order; all where 0 or too many are asked.

        Raises
        ------
        ValueError
            If `count` is negative.
        """
        if count < 0:
            raise ValueError(f"count must be 0, for all, or more, got {count}")
        if not 0 < count < len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))


def load_labelled_folders(root: Path | str, split: str = "train") -> LabelledImages:
    """Load a folder of pictures a class, from `<split>/<class>/` or `<class>/`.

    Folders of splits are known in any case and by their usual names, such as `Training/` and
    `valid/`. Where there is no `test/`, the validation split is what "test" gives, and its `split`
    is "val". Without folders of splits, every fifth picture of a class, in the order of paths, is
    "test" and the others are "train". Pictures of one series may so lie on both sides.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or none of the split.
    ValueError
        If the split is unknown, or holds no picture.
    """
    check_split(split)
    root = Path(root).expanduser()
    whole = load_class_folders(root)
    if "split" in whole.images:
        split = _choose_split(root, split)
        rows = whole.images["split"] == split
    else:
        rows = (whole.images.groupby("label").cumcount() % 5 == 4) == (split == "test")
    part = whole.subset(whole.images["image_id"][rows])
    return label_collection(part, root.absolute().name, split)


def _choose_split(root: Path, split: str) -> str:
    """Return the split that folders of a root are there for, "val" in place of "test"."""
    folders = find_split_folders(root)
    for choice in (split, "val") if split == "test" else (split,):
        if choice in folders.values():
            return choice
    raise FileNotFoundError(
        f"no folder of the split {split!r} in {root}: there are {', '.join(folders)}"
    )


def label_collection(collection: Collection, name: str, split: str) -> LabelledImages:
    """Return the images of a collection, as paths, with their column `label`."""
    paths = [collection.root / path for path in collection.images["path"]]
    return LabelledImages(paths, collection.images["label"].to_numpy(str), name, split)


def check_split(split: str) -> None:
    """Raise ValueError if a split is neither "train" nor "test"."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")


def gray_to_rgb(images: np.ndarray) -> np.ndarray:
    """Return (n, H, W) as (n, H, W, 3): a view that takes no memory of its own."""
    return np.broadcast_to(images[..., None], (*images.shape, 3))


def _check_array(images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (n, H, W, 3) uint8, got {images.shape} {images.dtype}")


FIRST_TEST = 1287


def load_digits(split: str = "train") -> LabelledImages:
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8 pixels.

    "train" is the first 1,287, "test" the last 510. The file goes by writer, so the hands of
    the test digits are not in training; a draw at random would mix them.

    Returns
    -------
    LabelledImages
        (8, 8, 3) images, the three channels alike, the 17 levels of ink spread over 0 to 255.
        Labels are "0" to "9".

    Raises
    ------
    ValueError
        If the split is neither "train" nor "test".
    """
    from sklearn import datasets  # late: a second to import

    check_split(split)
    digits = datasets.load_digits()
    part = slice(FIRST_TEST) if split == "train" else slice(FIRST_TEST, None)
    ink = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)
    return LabelledImages(gray_to_rgb(ink), digits.target[part].astype(str), "digits", split)


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


BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
FOLDER = "cifar-10-batches-py"
PLACES = (FOLDER, ".", f"{FOLDER}/{FOLDER}", f"cifar-10-python/{FOLDER}", "cifar-10-python")
SIDE = 32
SOURCE_CIFAR10 = (
    "CIFAR-10, the python version, can be had from www.cs.toronto.edu/~kriz/cifar.html, and as "
    "torchvision's CIFAR10."
)


def load_cifar10(root: Path | str, split: str = "train") -> LabelledImages:
    """Load CIFAR-10, from its python batches or from a folder a class.

    Parameters
    ----------
    root
        The folder of `data_batch_1` to `data_batch_5`, `test_batch` and `batches.meta`, or one
        that holds it as `cifar-10-batches-py/`, or deeper, in a folder of the same name or in
        `cifar-10-python/`; or the folder of `train/<class>/` and `test/<class>/` with pictures
        (see `labelled.load_labelled_folders`).
    split
        "train" or "test".

    Returns
    -------
    LabelledImages
        50,000 or 10,000 images, (32, 32, 3), as an array or as paths. Labels are the names
        of the classes.

    Raises
    ------
    FileNotFoundError
        If neither layout, or not every batch, is there.
    ValueError
        If a batch is damaged, holds another kind of data, or asks for code to be run.
    """
    check_split(split)
    root = Path(root).expanduser()
    for place in PLACES:
        if (root / place / "batches.meta").is_file():
            return _load_batches(root / place, split, root.absolute().name)
    if root.is_dir() and find_split_folders(root):
        return load_labelled_folders(root, split)
    raise FileNotFoundError(
        f"no CIFAR-10 in {root}: looked for {FOLDER}/batches.meta, batches.meta and {split}/; "
        f"{list_content(root)}. {SOURCE_CIFAR10}"
    )


def _load_batches(base: Path, split: str, name: str) -> LabelledImages:
    classes = _read_classes(base / "batches.meta")
    batches = [_read_batch(base / batch, len(classes)) for batch in BATCHES[split]]
    images = np.concatenate([images for images, _ in batches])
    rows = np.concatenate([labels for _, labels in batches])
    return LabelledImages(images, np.array(classes)[rows], name, split)


def _read_classes(path: Path) -> list[str]:
    names = _unpickle(path).get("label_names")
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path} holds no list label_names")
    return [_to_text(name) for name in names]


def _read_batch(path: Path, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 32, 32, 3) uint8 images and (n,) labels of one batch."""
    if not path.is_file():
        raise FileNotFoundError(f"no batch {path.name} in {path.parent}. {SOURCE_CIFAR10}")
    batch = _unpickle(path)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.shape[1:] != (3 * SIDE * SIDE,):
        raise ValueError(f"{path} holds no (n, {3 * SIDE * SIDE}) array data")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{path} holds no list labels of whole numbers")
    if len(labels) != len(data):
        raise ValueError(f"{path} holds {len(data)} images, but {len(labels)} labels")
    if not all(0 <= label < n_classes for label in labels):
        raise ValueError(f"{path} has labels outside [0, {n_classes}), the classes of batches.meta")
    images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return images, np.array(labels, np.int64)


# A pickle names the functions that build it. Here it gets stand-ins that build byte arrays and
# nothing else, so that no pickle runs any code but this module's.


class _Dtype:
    """Stands in for numpy.dtype: only bytes."""

    def __init__(self, code, *_):
        if _to_text(code) != "u1":
            raise pickle.UnpicklingError(f"an array of {_to_text(code)!r}, not of bytes")

    def __setstate__(self, state):
        pass


class _Array:
    """Stands in for numpy.ndarray while its parts come in."""

    array = None

    def __setstate__(self, state):
        _, shape, dtype, by_column, data = state
        if not isinstance(dtype, _Dtype) or by_column or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array that is not bytes, row by row")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, by which Python 3 writes bytes into old pickles."""
    return text.encode("latin1")


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")
        return ALLOWED[module, name]


def _unpickle(path: Path) -> dict:
    """Read a pickled dict of arrays, numbers and text, without running what else it asks for."""
    try:
        with path.open("rb") as file:
            content = _Reader(file, encoding="bytes").load()
    except Exception as e:  # on damaged files the unpickler raises almost any type
        raise ValueError(f"{path} is no batch of CIFAR-10: {e or type(e).__name__}") from e
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no batch of CIFAR-10: it holds a {type(content).__name__}")
    values = {_to_text(key): value for key, value in content.items()}
    return {k: v.array if isinstance(v, _Array) else v for k, v in values.items()}


def _to_text(value) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
