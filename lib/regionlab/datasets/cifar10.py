"""CIFAR-10's layout: pickled batches, read without trusting them, or a folder a class."""

import pickle
from pathlib import Path

import numpy as np

from regionlab.datasets.labelled import (
    LabelledImages,
    check_split,
    list_content,
    load_labelled_folders,
)
from regionlab.datasets.split_folders import find_split_folders

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
FOLDER = "cifar-10-batches-py"
PLACES = (FOLDER, ".", f"{FOLDER}/{FOLDER}", f"cifar-10-python/{FOLDER}", "cifar-10-python")
SIDE = 32
SOURCE = (
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
        f"{list_content(root)}. {SOURCE}"
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
        raise FileNotFoundError(f"no batch {path.name} in {path.parent}. {SOURCE}")
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
