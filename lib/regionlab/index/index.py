"""An open index: tables and vectors that belong together, and what can be asked of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from regionlab.data.masks import rle_to_mask
from regionlab.index.staging import finish_swap, is_ready, lock_index, stamp_file
from regionlab.index.tables import (
    IndexFolderError,
    damaged,
    find_root,
    read_images,
    read_manifest,
    read_regions,
)
from regionlab.models.spaces import get_encoding, with_space

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder

SWAP_SECONDS = 10.0  # how long a reader waits for a builder that puts an index in its place


@dataclass(frozen=True, eq=False)
class Index:
    """Image vectors with their table; row i of both belongs together.

    Attributes
    ----------
    folder
        Where it lies.
    manifest
        Schema version, model fingerprint, collection, counts and how the build went.
    root
        Folder that the paths in `images` are relative to. It is found from the index, so the
        two may move together; and by its own path, where only the index has moved.
    images
        `image_id`, `path`, `width`, `height`, `sha256` of the file, and any further columns of
        the collection.
    vectors
        (n, d) float32, unit length, memory-mapped.
    failures
        `image_id`, `path`, `reason` of the images that could not be read, and of what the
        collection's loader had to skip (these have no id).
    regions
        Regions of the images, those of an image together: `region_id`, `image_id`, `row` of the
        image (ascending), box `x0`, `y0`, `x1`, `y1` in pixels, `area` in pixels, `quality`
        (predicted IoU) and `stability`, `rle` (the counts; the size is the image's). None until
        `add_regions`, as the two that follow.
    region_vectors
        (r, d) float32, unit length, memory-mapped; row i belongs to row i of `regions`.
    region_failures
        As `failures`: the indexed images that could not be read again.
    """

    folder: Path
    manifest: dict[str, Any]
    root: Path
    images: pd.DataFrame
    vectors: np.ndarray
    failures: pd.DataFrame
    regions: pd.DataFrame | None = None
    region_vectors: np.ndarray | None = None
    region_failures: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        made = self.manifest
        held = f"{len(self)} images"
        if self.regions is not None:
            held += f", {len(self.regions)} regions"
        failed = f", {len(self.failures)} unreadable" if len(self.failures) else ""
        title = made.get("title", made["collection"])
        return f"<Index {title}: {held} by {made['model']['model']}{failed}>"

    @property
    def id(self) -> str:
        """Short id of the contents: names and bytes of the images, and the model."""
        return self.manifest["id"]

    @property
    def regions_id(self) -> str:
        """Short id of the regions: their images and masks, and how they became vectors."""
        self.check_regions()
        return self.manifest["regions"]["id"]

    def path(self, row: int) -> Path:
        """Return the absolute path of the image in a row."""
        return self.root / self.images["path"].iloc[row]

    def rows_of(self, image_ids: Iterable[str]) -> np.ndarray:
        """Return the rows of images, (n,) int64; KeyError names the first id not indexed."""
        image_ids = list(image_ids)
        rows = pd.Index(self.images["image_id"]).get_indexer(image_ids)
        if (rows < 0).any():
            missing = image_ids[int(np.argmin(rows))]
            raise KeyError(f"no image {missing!r} in the index {self.folder}")
        return rows.astype(np.int64)

    def check_encoder(self, encoder: "Encoder") -> None:
        """Raise `IndexFolderError` if the encoder's vectors live in another space than these."""
        if encoder.space != self.manifest["space"]:
            raise IndexFolderError(
                f"the index {self.folder} holds vectors of {self.manifest['model']['model']} "
                f"(space {self.manifest['space']}), the query is by {encoder.name} (space "
                f"{encoder.space}): load the same model, or build another index"
            )

    def check_space(self, who: str, space: str | None) -> None:
        """Raise `IndexFolderError` if vectors are of another space; None is compared with none.

        `who` begins the sentence, such as "the query vectors are".
        """
        own = self.manifest.get("space")
        if None not in (space, own) and space != own:
            raise IndexFolderError(
                f"{who} of the space {space}, the index {self.folder} holds vectors of "
                f"{self.manifest['model']['model']} (space {own}): load the same model, or build "
                "another index"
            )

    def check_encoding(self, who: str, encoding: str | None) -> None:
        """Raise `IndexFolderError` if a region was encoded in another way than these regions.

        None, for whole images and words, is compared with none.
        """
        made = self.manifest.get("regions") or {}
        own = get_encoding(self.region_vectors) or made.get("encoding")
        if None not in (encoding, own) and encoding != own:
            raise IndexFolderError(
                f"{who} was encoded by {encoding!r}, the regions of the index {self.folder} by "
                f"{own!r}: make it with encoding={own!r}, or add the regions again with "
                f"encoding={encoding!r}"
            )

    def check_regions(self) -> None:
        """Raise `IndexFolderError` if the index has no regions."""
        if self.regions is None:
            raise IndexFolderError(
                f"the index {self.folder} has no regions: add them with "
                "index = add_regions(index, segmenter, encoder)"
            )

    def regions_of(self, row: int) -> slice:
        """Return the rows of `regions` that belong to the image in a row."""
        self.check_regions()
        start, stop = np.searchsorted(self.regions["row"].to_numpy(), [row, row + 1])
        return slice(int(start), int(stop))

    def region_mask(self, region_row: int) -> np.ndarray:
        """Return the mask of a region, (H, W) bool in the size of its image."""
        self.check_regions()
        if not 0 <= region_row < len(self.regions):  # -1 stands for no region in a ranking
            raise IndexError(f"no region {region_row} in an index of {len(self.regions)}")
        region = self.regions.iloc[region_row]
        image = self.images.iloc[region["row"]]
        return rle_to_mask({"size": [image["height"], image["width"]], "counts": region["rle"]})

    def missing_files(self) -> list[Path]:
        """Return the indexed images that are no longer on disk (integrity check of S0 3.3)."""
        return [path for path in map(self.path, range(len(self))) if not path.is_file()]


def open_index(folder: Path | str) -> Index:
    """Open an index after checking that its tables and vectors agree.

    Raises
    ------
    IndexFolderError
        If there is no index, it is of another schema, a file is missing or damaged, or table
        and vectors are not those that were written together.
    """
    folder = Path(folder).expanduser().resolve()
    seen = stamp_file(folder / "manifest.json")
    if not folder.exists() and is_ready(folder):
        with lock_index(folder, wait=SWAP_SECONDS):
            finish_swap(folder)
    try:
        return _read_index(folder)
    except IndexFolderError:
        if stamp_file(folder / "manifest.json") == seen:
            raise
        return open_index(folder)  # it was replaced while it was read


def _read_index(folder: Path) -> Index:
    manifest = read_manifest(folder)
    try:
        images = read_images(folder, manifest)
        regions = read_regions(folder, manifest, images.rows)
        root, space = find_root(folder, manifest), manifest["space"]
        images = images._replace(vectors=with_space(images.vectors, space))
        if regions.rows is not None:
            vectors = with_space(regions.vectors, space, manifest["regions"]["encoding"])
            regions = regions._replace(vectors=vectors)
    except Exception as e:  # parquet, numpy, csv and the manifest each have errors of their own
        raise damaged(folder, e) from e
    return Index(folder, manifest, root, *images, *regions)
