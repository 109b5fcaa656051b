"""Images with one label each: folders of classes, digits, MNIST and CIFAR-10."""

import gzip
import math
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from regionlab.data.collection import find_split_folders, load_class_folders
from regionlab.data.images import read_image
from regionlab.data.listing import say_missing
from regionlab.util.errors import InputError, MissingFileError

SPLITS = ("train", "test")
FIRST_TEST_DIGIT = 1287  # scikit-learn's digits come writer by writer; here the last four begin

IDX_STEMS = {"train": "train", "test": "t10k"}
IDX_UINT8 = 0x08  # the type code of bytes, third in the magic number
MNIST_SOURCE = (
    "MNIST can be had from yann.lecun.com/exdb/mnist, and as torchvision's MNIST; each file "
    "may be plain or .gz."
)

CIFAR_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
CIFAR_FOLDERS = (
    "cifar-10-batches-py", "cifar-10-batches-bin", ".", "cifar-10-batches-py/cifar-10-batches-py",
    "cifar-10-python/cifar-10-batches-py", "cifar-10-python", "cifar-10-binary",
    "cifar-10-binary/cifar-10-batches-bin",
)  # fmt: skip
CIFAR_PIXELS = 3 * 32 * 32
CIFAR_SOURCE = (
    "CIFAR-10, the python or the binary version, can be had from "
    "www.cs.toronto.edu/~kriz/cifar.html, and as torchvision's CIFAR10."
)


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages:
    """Images and their labels, in the form that `Encoder.encode_images` takes.

    Checked when made (InputError). Images in files stay there until they are encoded or read.
    """

    images: np.ndarray | Sequence[Path]  # (n, H, W, 3) uint8 RGB, or n paths
    labels: np.ndarray  # (n,) str
    name: str  # what the data set calls itself
    split: str

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        object.__setattr__(self, "labels", labels)
        if not len(self.images):
            raise InputError(f"{self.name} {self.split} holds no images")
        if labels.shape != (len(self.images),) or labels.dtype.kind != "U":
            raise InputError(
                f"{self.name} {self.split} needs one text a label for {len(self.images)} images, "
                f"got {labels.shape} {labels.dtype}"
            )
        if isinstance(images := self.images, np.ndarray) and (
            images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8
        ):
            raise InputError(
                f"images must be (n, H, W, 3) uint8, got {images.shape} {images.dtype}"
            )

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
        is_array = isinstance(self.images, np.ndarray)
        images = self.images[rows] if is_array else [self.images[row] for row in rows]
        return replace(self, images=images, labels=self.labels[rows])

    def sample(self, count: int, *, seed: int) -> "LabelledImages":
        """Keep `count` images sampled at random, in their order; all for 0 or too many."""
        if count < 0:
            raise InputError(f"count must be 0, for all, or more, got {count}")
        if not 0 < count < len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))


def load_labelled_folders(root: Path | str, split: str = "train") -> LabelledImages:
    """Load a folder of images a class, from `<split>/<class>/` or `<class>/`.

    Folders of splits are known in any case and by their usual names, such as `Training/` and
    `valid/`. Where there is no `test/`, the validation split is what "test" gives, and its `split`
    is "val". Without folders of splits, every fifth image of a class, in the order of paths, is
    "test" and the others are "train": images of one series may so lie on both sides.

    Raises
    ------
    MissingFileError, NotAFolderError, InputError
        If there is no such folder, none of the split, no image in it, or the split is unknown.
    """
    _check_split(split)
    root = Path(root).expanduser()
    collection = load_class_folders(root)
    table = collection.images
    if "split" in table:
        split = _choose_split(root, split)
        table = table[table["split"] == split]
    else:
        table = table[(table.groupby("label").cumcount() % 5 == 4) == (split == "test")]
    files = [collection.root / path for path in table["path"]]
    return LabelledImages(files, table["label"].to_numpy(str), root.absolute().name, split)


def load_toybox_classes(root: Path | str | None = None, split: str = "train") -> LabelledImages:
    """Load Toybox's images of one object by class, written first where they are missing."""
    if root:
        return load_labelled_folders(root, split)
    from toybox import load_toybox  # late: Toybox is built on this package

    return replace(load_labelled_folders(load_toybox(split="classes").root, split), name="toybox")


def load_digits(split: str = "train", *, root: object = None) -> LabelledImages:
    """Load scikit-learn's 1,797 handwritten digits, (8, 8, 3), labels "0" to "9".

    "train" is the first 1,287, "test" the last 510: they come writer by writer, so the hands of
    the test digits are not in training. The 17 levels of ink are spread over 0 to 255, the three
    channels are alike. `root` is not used: scikit-learn brings the images.
    """
    from sklearn import datasets  # late: a second to import

    _check_split(split)
    digits = datasets.load_digits()
    part = np.s_[:FIRST_TEST_DIGIT] if split == "train" else np.s_[FIRST_TEST_DIGIT:]
    ink = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)
    return LabelledImages(_gray_to_rgb(ink), digits.target[part].astype(str), "digits", split)


def load_mnist(root: Path | str, split: str = "train") -> LabelledImages:
    """Load MNIST, or another data set in its layout, such as Fashion-MNIST.

    Images are (28, 28, 3), the three channels alike (a view: they take the memory of one), labels
    "0" to "9".

    Parameters
    ----------
    root
        The folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of
        `t10k`, each plain or with `.gz` (`train-images.idx3-ubyte` is known as well), or in a
        folder of its own name; or a folder that holds all that as `raw/`, `MNIST/raw/`, or any
        `*/raw/`, as torchvision puts it, `*/` or `*/*/raw/`.
    split
        "train" or "test".

    Raises
    ------
    MissingFileError, InputError
        If a file is not there, or is damaged, cut short or of another kind; if the counts
        disagree, or several folders hold such files.
    """
    _check_split(split)
    root = Path(root).expanduser()
    images_file = _find_idx(root, IDX_STEMS[split], "images", 3)
    labels_file = _find_idx(root, IDX_STEMS[split], "labels", 1)
    images, labels = read_idx(images_file, ndim=3), read_idx(labels_file, ndim=1)
    if len(images) != len(labels):
        raise InputError(
            f"{images_file} holds {len(images)} images, {labels_file.name} {len(labels)} labels"
        )
    return LabelledImages(_gray_to_rgb(images), labels.astype(str), root.absolute().name, split)


def load_cifar10(root: Path | str, split: str = "train") -> LabelledImages:
    """Load CIFAR-10, from its python or binary batches or from a folder a class.

    Images are (32, 32, 3), as an array or as paths; labels the names of the classes.

    Parameters
    ----------
    root
        The folder of `data_batch_1` to `data_batch_5`, `test_batch` and `batches.meta`, or of
        the same as `*.bin` and `batches.meta.txt`; or one that holds either as its archive does
        (`CIFAR_FOLDERS`); or the folder of `train/<class>/` and `test/<class>/` with images (see
        `load_labelled_folders`).
    split
        "train" or "test".

    Raises
    ------
    MissingFileError, InputError
        If none of the layouts, or not every batch, is there; if a batch is damaged, holds another
        kind of data, or asks for code to be run.
    """
    _check_split(split)
    root = Path(root).expanduser()
    for folder in (root / place for place in CIFAR_FOLDERS):
        if (folder / "batches.meta").is_file():
            classes, read, end = _read_cifar_classes(folder / "batches.meta"), _read_pickled, ""
        elif (folder / "batches.meta.txt").is_file():
            classes = (folder / "batches.meta.txt").read_text("utf-8").split()
            read, end = _read_binary, ".bin"
        else:
            continue
        files = [folder / f"{batch}{end}" for batch in CIFAR_BATCHES[split]]
        images, labels = zip(
            *(_read_cifar_batch(file, read, len(classes)) for file in files), strict=True
        )
        labels = np.array(classes)[np.concatenate(labels)]
        return LabelledImages(np.concatenate(images), labels, root.absolute().name, split)
    if root.is_dir() and find_split_folders(root):
        return load_labelled_folders(root, split)
    names = (f"{CIFAR_FOLDERS[0]}/batches.meta", "batches.meta", "batches.meta.txt", f"{split}/")
    raise say_missing("CIFAR-10", root, names, CIFAR_SOURCE)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")


def _choose_split(root: Path, split: str) -> str:
    """Return the split that folders of a root are there for, "val" in place of "test"."""
    folders = find_split_folders(root)
    there = [each for each in (split, "val") if each in folders.values()]
    if not there or (there == ["val"] and split != "test"):
        names = ", ".join(folders)
        raise MissingFileError(f"no folder of the split {split!r} in {root}: there are {names}")
    return there[0]


def _gray_to_rgb(images: np.ndarray) -> np.ndarray:
    """Return (n, H, W) as (n, H, W, 3): a view that takes no memory of its own."""
    return np.broadcast_to(images[..., None], (*images.shape, 3))


def _find_idx(root: Path, stem: str, what: str, ndim: int) -> Path:
    names = [f"{stem}-{what}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    below = [root / "raw", *sorted(root.glob("*/raw"))]
    for folders in ([root], below, sorted(root.glob("*/")), sorted(root.glob("*/*/raw/"))):
        found = []
        for folder in folders:  # the first file there, or in a folder called like one
            files = (folder / place / name for place in ("", *names) for name in names)
            found += [file for file in files if file.is_file()][:1]
        if len(found) > 1:
            places = ", ".join(file.relative_to(root).as_posix() for file in found)
            raise InputError(f"several data sets in {root}: {places}; name the folder of one")
        if found:
            return found[0]
    raise say_missing(names[0], root, names, MNIST_SOURCE)


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """Read an idx file of bytes, packed by gzip or not, as a uint8 array of `ndim` axes."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise InputError(f"{path} is cut short or damaged: {e}") from e
    magic, expected = int.from_bytes(data[:4], "big"), IDX_UINT8 << 8 | ndim
    if magic != expected:
        raise InputError(
            f"{path} is no idx file of bytes with {ndim} axes: its magic number is "
            f"{magic:#010x}, not {expected:#010x}"
        )
    start = 4 + 4 * ndim
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) != start + math.prod(shape):
        raise InputError(
            f"{path} is cut short or damaged: its header says {shape}, which takes "
            f"{start + math.prod(shape)} bytes, and it holds {len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, text and NumPy arrays; a pickle that asks for more is refused."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # so Python 3 writes bytes into old pickles
            return lambda text, encoding: text.encode("latin1")
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")


def _unpickle(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        return {_to_text(key): value for key, value in content.items()}
    except Exception as e:  # on damaged files the unpickler raises almost any type
        raise InputError(f"{path} is no batch of CIFAR-10: {e or type(e).__name__}") from e


def _read_cifar_classes(path: Path) -> list[str]:
    names = _unpickle(path).get("label_names")
    if not isinstance(names, list) or not names:
        raise InputError(f"{path} holds no list label_names")
    return [_to_text(name) for name in names]


def _read_cifar_batch(path: Path, read, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 32, 32, 3) uint8 images and (n,) int64 labels of one batch."""
    if not path.is_file():
        raise MissingFileError(f"no batch {path.name} in {path.parent}. {CIFAR_SOURCE}")
    data, labels = read(path)
    if not all(0 <= label < n_classes for label in labels):
        raise InputError(f"{path} has labels outside [0, {n_classes}), the classes of batches.meta")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def _read_pickled(path: Path) -> tuple[np.ndarray, list[int]]:
    batch = _unpickle(path)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.shape[1:] != (CIFAR_PIXELS,):
        raise InputError(f"{path} holds no (n, {CIFAR_PIXELS}) array data")
    if data.dtype != np.uint8:
        raise InputError(f"{path} holds an array of {data.dtype.str[1:]!r}, not of bytes")
    if not data.flags.c_contiguous:
        raise InputError(f"{path} holds an array that is not bytes, row by row")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise InputError(f"{path} holds no list labels of whole numbers")
    if len(labels) != len(data):
        raise InputError(f"{path} holds {len(data)} images, but {len(labels)} labels")
    return data, labels


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    records = np.fromfile(path, np.uint8)
    if not len(records) or len(records) % (1 + CIFAR_PIXELS):
        raise InputError(f"{path} is cut short: {len(records)} bytes are not whole records")
    records = records.reshape(-1, 1 + CIFAR_PIXELS)
    return records[:, 1:], records[:, 0]


def _to_text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
