"""The data sets that are known by name: collections, labelled images and triplets.

A new data set is a loader in a module of its own, a row of `DATA_SETS`, and a profile.
"""

import hashlib
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionlab.util import paths
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.data.collection import Collection
    from regionlab.data.labelled import LabelledImages
    from regionlab.data.triplets import Triplets


@dataclass(frozen=True)
class DataSet:
    """A data set, or a layout of data sets, that is known by name."""

    kind: str  # what its loader returns: "collection", "labelled" images or "triplets"
    name: str
    loader: str  # "module:function", imported when it is asked for; takes `root=` and options
    layout: str  # what it reads, in one line
    needs_root: bool = True  # else it is made where it is missing, or comes with a package

    def load(self, root: Path | str | None, **options: Any) -> Any:
        """Call the loader; without a root, which not all need, it finds its own place."""
        if self.needs_root and not root:
            raise InputError(
                f"a data set of kind {self.name!r} needs root, the folder that it lies in"
            )
        module, function = self.loader.split(":")
        loader = getattr(import_module(module), function)
        return loader(root=root, **options) if root else loader(**options)


HERE = "regionlab.data"
DATA_SETS = (
    DataSet("collection", "coco", f"{HERE}.coco:load_coco",
            "images in a folder, instances and captions in COCO's JSON files"),
    DataSet("collection", "folder", f"{HERE}.collection:load_folder",
            "all images under a folder"),
    DataSet("collection", "classes", f"{HERE}.collection:load_class_folders",
            "one sub-folder of images a class, in folders of splits or not"),
    DataSet("collection", "flickr30k", f"{HERE}.captions:load_flickr30k",
            "a folder of images, one text file or Karpathy's JSON of captions"),
    DataSet("collection", "fashion200k", f"{HERE}.captions:load_fashion200k",
            "women/ with the images, labels/ with a description of each"),
    DataSet("collection", "video", f"{HERE}.video:load_video",
            "a film, or a folder of films, of which frames are taken"),
    DataSet("collection", "toybox", "toybox:load_toybox",
            "a rendered world in COCO's layout, written where it is missing", needs_root=False),
    DataSet("labelled", "digits", f"{HERE}.labelled:load_digits",
            "scikit-learn's handwritten digits", needs_root=False),
    DataSet("labelled", "mnist", f"{HERE}.labelled:load_mnist",
            "idx files of images and labels, plain or .gz"),
    DataSet("labelled", "cifar10", f"{HERE}.labelled:load_cifar10",
            "python or binary batches, or a folder a class"),
    DataSet("labelled", "classes", f"{HERE}.labelled:load_labelled_folders",
            "one sub-folder of images a class, in folders of splits or not"),
    DataSet("labelled", "toybox", f"{HERE}.labelled:load_toybox_classes",
            "rendered images of one object, written where they are missing", needs_root=False),
    DataSet("triplets", "fashioniq", f"{HERE}.triplets:load_fashioniq",
            "captions/ and image_splits/ by category, images/"),
    DataSet("triplets", "cirr", f"{HERE}.triplets:load_cirr",
            "cirr/captions/ and cirr/image_splits/, the images of NLVR2 beside them"),
)  # fmt: skip


def list_data_sets(kind: str) -> dict[str, DataSet]:
    """Return the data sets of a kind, "collection", "labelled" or "triplets", by name."""
    return {each.name: each for each in DATA_SETS if each.kind == kind}


def _find(kind: str, what: str, name: str) -> DataSet:
    known = list_data_sets(kind)
    if name not in known:
        raise InputError(f"unknown kind of {what} {name!r}; known: {', '.join(known)}")
    return known[name]


def load_collection(kind: str, root: Path | str | None = None, **options: Any) -> "Collection":
    """Load the data set under `root`, laid out as `kind` says.

    Parameters
    ----------
    kind
        The name of a collection in `DATA_SETS`.
    root
        The folder of the data set. Toybox alone needs none: it is made where it is missing.
    options
        Passed on to the loader.

    Returns
    -------
    Collection
        Its `name` has a short hash of its folder in it, but for Toybox in its own place: so two
        folders of one name have an index each. `title` is the name without.

    Raises
    ------
    InputError
        If `kind` is unknown, or needs a `root`. Else as the loader does.
    """
    data_set = _find("collection", "data set", kind)
    collection = data_set.load(root, **options)
    in_own_place = not (root or options.get("seed") or options.get("count"))
    return collection if in_own_place else _name_by_place(collection)


def _name_by_place(collection: "Collection") -> "Collection":
    """Let the name tell the folder: as seen from the workspace where it lies in it."""
    root, workspace = collection.root.resolve(), paths.ROOT.resolve()
    inside = root.is_relative_to(workspace)
    place = root.relative_to(workspace).as_posix() if inside else str(root)
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return replace(collection, name=f"{collection.name}-{digest}", shown_as=collection.title)


def load_labelled(
    kind: str, root: Path | str | None = None, *, split: str = "train"
) -> "LabelledImages":
    """Load one split, "train" or "test", of a data set that has a label for each image.

    `kind` is the name of labelled images in `DATA_SETS`, `root` its folder; digits and Toybox
    need none. Raises InputError for an unknown kind or split, or else as the loader does.
    """
    return _find("labelled", "labelled data", kind).load(root, split=split)


def load_triplets(
    kind: str, root: Path | str, *, split: str, category: str | None = None
) -> "Triplets":
    """Load one split of a data set of composed retrieval.

    `kind` is the name of triplets in `DATA_SETS`, `root` its folder. The split is called as the
    data set does: "train", "val", and "test" (FashionIQ) or "test1" (CIRR). FashionIQ needs a
    category, such as "dress"; CIRR has none. Raises InputError for an unknown kind, or else as
    the loader does.
    """
    return _find("triplets", "triplets", kind).load(root, split=split, category=category)
