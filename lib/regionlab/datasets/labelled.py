"""Pictures with one label each, whatever they are stored as."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from regionlab.collection import Collection
from regionlab.datasets.folders import load_class_folders
from regionlab.datasets.split_folders import find_split_folders
from regionlab.images import read_image

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
