"""CIRR's layout: captions with subsets of six images that look alike, and where images lie."""

from functools import partial
from pathlib import Path, PurePosixPath

from regionlab.datasets.annotations import (
    explain_nothing_left,
    hides_targets,
    read_annotations,
    read_entries,
    take,
    take_texts,
)
from regionlab.datasets.triplets import (
    Triplets,
    keep_captions,
    keep_sound,
    make_faults,
    make_queries,
)
from regionlab.datasets.values import BadValue, is_text, take_file_name

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
    as the server wants an answer to each. Entries that are broken, or contradict themselves, and
    images without a path are left out and listed there too.

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
        If there are no captions of the split, a file is broken, or no query is left.
    """
    root = _find_root(root)
    captions = root / "captions" / f"cap.{VERSION}.{split}.json"
    if split not in (known := _list_splits(root)):
        raise ValueError(
            f"no captions of split {split!r} in {root}, but of {', '.join(known)}. {SOURCE}"
        )
    files, lost = _read_files(root, root / "image_splits" / f"split.{VERSION}.{split}.json")
    entries = read_annotations(captions, list, SOURCE)
    hidden = hides_targets(entries, "target_hard")
    read, broken = read_entries(entries, partial(_read_query, hidden=hidden))
    queries, unsound = keep_sound(read, files)
    faults = lost + broken + unsound
    if not queries:
        raise ValueError(f"{captions}: {explain_nothing_left(faults)}")
    return Triplets(
        name="cirr",
        split=split,
        category="",
        queries=make_queries(queries),
        gallery=tuple(files),
        files=files,
        faults=make_faults(faults),
    )


def _find_root(root: Path | str) -> Path:
    root = Path(root).expanduser().absolute()
    for folder in (root, root / "cirr"):
        if _list_splits(folder):
            return folder
    raise FileNotFoundError(f"no captions/cap.{VERSION}.<split>.json in {root}. {SOURCE}")


def _list_splits(root: Path) -> list[str]:
    files = (root / "captions").glob(f"cap.{VERSION}.*.json")
    return sorted(file.name.split(".")[2] for file in files)


def _read_files(root: Path, file: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Return where each image of the split lies, or would lie, in order, and the faults."""
    paths, faults = {}, []
    for name, path in read_annotations(file, dict, SOURCE).items():
        try:
            if not name or not is_text(name):
                raise BadValue("which is no name")
            paths[name] = take_file_name({"path": path}, "path")
        except BadValue as e:
            faults.append((f"image {name!r}", f"left out of {file.name}: {e}"))
    folders = {PurePosixPath(path).parts[0] for path in paths.values()}
    above = root.parent if root.name == "cirr" else root
    here = any((root / folder).is_dir() for folder in folders)
    return {name: (root if here else above) / path for name, path in paths.items()}, faults


def _read_query(entry: dict, *, hidden: bool) -> tuple[tuple, list[tuple[str, str]]]:
    """Return a row of the table of queries, and its faults."""
    query_id = str(take(entry, "pairid", (int, str)))
    target = None if hidden else take(entry, "target_hard", str)
    captions, faults = keep_captions(query_id, (take(entry, "caption", str),))
    subset = take_texts(take(entry, "img_set", dict), "members")
    if len(subset) != SUBSET_SIZE:
        raise ValueError(f"a subset holds {SUBSET_SIZE} images, got {len(subset)}")
    return (query_id, take(entry, "reference", str), target, captions, subset), faults
