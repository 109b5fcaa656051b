"""CIRR's layout: captions with subsets of six images that look alike, and where images lie."""

from pathlib import Path, PurePosixPath

from regionlab.datasets.annotations import read_annotations, take, take_targets, take_texts
from regionlab.datasets.triplets import Triplets, keep_captions, make_faults, make_queries

VERSION = "rc2"
SUBSET_SIZE = 6
SOURCE = (
    "CIRR's annotations can be had from the repository of its authors (Cuberick-Orion/CIRR, "
    "branch cirr_dataset); the pictures are those of NLVR2, which its authors give on request."
)


def load_cirr(root: Path | str, *, split: str = "val") -> Triplets:
    """Load one split of CIRR (Liu et al., ICCV 2021), version rc2.

    A query has one caption and a subset of six images that look alike, reference and target
    among them; its id is the published `pairid`. The target is `target_hard`. Of test1 it is
    hidden, and one query has no words: it is listed in `faults`, and stays, without captions,
    as the server wants an answer to each.

    Parameters
    ----------
    root
        The folder that holds `captions/` and `image_splits/`, or the one above, in which that
        folder is named `cirr`. The image split gives paths such as `./dev/x.png`; the folder
        `dev` stands beside `cirr`, as published, or in it.
    split
        "train", "val" or "test1"; any of which there is a file `captions/cap.rc2.<split>.json`.

    Raises
    ------
    FileNotFoundError
        If there are no captions at all, or no image split.
    ValueError
        If there are no captions of the split, a file is broken, or a query is: see `Triplets`.
    """
    root = _find_root(root)
    captions = root / "captions" / f"cap.{VERSION}.{split}.json"
    if split not in (known := _list_splits(root)):
        raise ValueError(
            f"no captions of split {split!r} in {root}, but of {', '.join(known)}. {SOURCE}"
        )
    files = _read_files(root, root / "image_splits" / f"split.{VERSION}.{split}.json")
    queries, faults = _read_queries(captions)
    try:
        return Triplets(
            name="cirr",
            split=split,
            category="",
            queries=make_queries(queries),
            gallery=tuple(files),
            files=files,
            faults=make_faults(faults),
        )
    except ValueError as e:
        raise ValueError(f"{captions}: {e}") from e


def _find_root(root: Path | str) -> Path:
    root = Path(root).expanduser().absolute()
    for folder in (root, root / "cirr"):
        if _list_splits(folder):
            return folder
    raise FileNotFoundError(f"no captions/cap.{VERSION}.<split>.json in {root}. {SOURCE}")


def _list_splits(root: Path) -> list[str]:
    files = (root / "captions").glob(f"cap.{VERSION}.*.json")
    return sorted(file.name.split(".")[2] for file in files)


def _read_files(root: Path, file: Path) -> dict[str, Path]:
    """Return where each image of the split lies, or would lie, in the order of the file."""
    paths = read_annotations(file, dict, SOURCE)
    for name, path in paths.items():
        if not isinstance(path, str) or not path or not _stays_inside(PurePosixPath(path)):
            raise ValueError(f"{file}: {name!r} must have a path in the data set, got {path!r}")
    folders = {PurePosixPath(path).parts[0] for path in paths.values()}
    above = root.parent if root.name == "cirr" else root
    here = any((root / folder).is_dir() for folder in folders)
    return {name: (root if here else above) / path for name, path in paths.items()}


def _stays_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and bool(path.parts) and ".." not in path.parts


def _read_queries(file: Path) -> tuple[list[tuple], list[tuple[str, str]]]:
    """Return the rows of the table of queries, and the faults."""
    entries = read_annotations(file, list, SOURCE)
    targets = take_targets(entries, "target_hard", file)
    queries, faults = [], []
    for i, (entry, target) in enumerate(zip(entries, targets, strict=True)):
        where = f"{file}, entry {i}"
        query_id = str(take(entry, "pairid", (int, str), where))
        captions, found = keep_captions(query_id, (take(entry, "caption", str, where),))
        subset = take_texts(take(entry, "img_set", dict, where), "members", f"{where}, img_set")
        if len(subset) != SUBSET_SIZE:
            raise ValueError(f"{where}: a subset holds {SUBSET_SIZE} images, got {len(subset)}")
        queries.append((query_id, take(entry, "reference", str, where), target, captions, subset))
        faults += found
    return queries, faults
