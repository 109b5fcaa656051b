"""FashionIQ's layout: one file of captions and one of images for each category and split."""

from functools import partial
from pathlib import Path, PurePosixPath

from regionlab.data.records import (
    BadValue,
    explain_nothing_left,
    hides_targets,
    is_text,
    read_annotations,
    read_entries,
    show,
    take,
    take_file_name,
    take_texts,
)
from regionlab.data.triplets import Triplets, keep_captions, keep_sound, make_faults, make_queries

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


SUFFIXES = (".jpg", ".png")
SOURCE_FASHIONIQ = (
    "FashionIQ's captions and image splits can be had from the repository of its authors "
    "(XiaoxiaoGuo/fashion-iq), and the addresses of the pictures with them."
)


def list_categories(root: Path | str, split: str = "val") -> list[str]:
    """List the categories that have captions of a split, sorted; FashionIQ has three."""
    names = (name for name, found in _list_captions(root) if found == split)
    return sorted(names)


def load_fashioniq(
    root: Path | str,
    *,
    split: str = "val",
    category: str = "dress",
    images: Path | str = "images",
) -> Triplets:
    """Load one category of FashionIQ (Wu et al., CVPR 2021).

    Each query has two captions of its own, by two people. A caption without words is left out
    and listed in `faults`; its query stays, with the other caption, so that the counts are the
    published ones. Entries that are broken, or contradict themselves, and what is no name of an
    image are left out and listed there too. A query's id is "reference>target", with a number
    where the pair comes again, as it does where the split hides the targets (test).

    Parameters
    ----------
    root
        The folder that holds `captions/` and `image_splits/`.
    split
        "train", "val" or "test".
    category
        "dress", "shirt" or "toptee"; any `<category>` of which there is a file
        `captions/cap.<category>.<split>.json`.
    images
        The folder of the pictures, `<name>.jpg` or `.png`; relative to `root`, or absolute.

    Raises
    ------
    FileNotFoundError
        If there are no captions at all, or no image split.
    ValueError
        If there are no captions of the split or category, a file is broken, or no query is left.
    """
    root = Path(root).expanduser().absolute()
    captions = root / "captions" / f"cap.{category}.{split}.json"
    _check_known(root, split, category)
    names, lost = _read_names(root / "image_splits" / f"split.{category}.{split}.json")
    entries = read_annotations(captions, list, SOURCE_FASHIONIQ)
    hidden = hides_targets(entries, "target")
    read, broken = read_entries(entries, partial(_read_query_fashioniq, hidden=hidden, times={}))
    queries, unsound = keep_sound(read, names)
    faults = lost + broken + unsound
    if not queries:
        raise ValueError(f"{captions}: {explain_nothing_left(faults)}")
    return Triplets(
        name="fashioniq",
        split=split,
        category=category,
        queries=make_queries(queries),
        gallery=names,
        files=_find_files(root / images, names),
        faults=make_faults(faults),
    )


def _list_captions(root: Path | str) -> list[tuple[str, str]]:
    """List the category and the split of each file of captions."""
    files = (Path(root).expanduser() / "captions").glob("cap.*.*.json")
    return [tuple(file.name.split(".", 1)[1].rsplit(".", 2)[:2]) for file in files]


def _check_known(root: Path, split: str, category: str) -> None:
    found = _list_captions(root)
    if not found:
        raise FileNotFoundError(
            f"no captions/cap.<category>.<split>.json in {root}. {SOURCE_FASHIONIQ}"
        )
    if split not in (splits := {each for _, each in found}):
        known = ", ".join(sorted(splits))
        raise ValueError(
            f"no captions of split {split!r} in {root}, but of {known}. {SOURCE_FASHIONIQ}"
        )
    if category not in (known := list_categories(root, split)):
        raise ValueError(
            f"no captions of category {category!r} and split {split!r} in {root}, but of "
            f"{', '.join(known)}. {SOURCE_FASHIONIQ}"
        )


def _read_names(file: Path) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the names of the images of the split, and the faults."""
    names, faults = {}, []
    for name in read_annotations(file, list, SOURCE_FASHIONIQ):
        if not isinstance(name, str) or not name or {"/", "\\", "\0"} & set(name):
            faults.append((f"image {show(name)}", f"left out of {file.name}: it is no name"))
        elif not is_text(name) or name in names:
            what = "comes a second time" if name in names else "holds half a character"
            faults.append((f"image {show(name)}", f"left out of {file.name}: it {what}"))
        else:
            names[name] = None
    return tuple(names), faults


def _read_query_fashioniq(
    entry: dict, *, hidden: bool, times: dict[str, int]
) -> tuple[tuple, list[tuple[str, str]]]:
    """Return a row of the table of queries, and its faults."""
    reference = take(entry, "candidate", str)
    target = None if hidden else take(entry, "target", str)
    texts = take_texts(entry, "captions")
    query_id = _name_query(reference, target, times)
    captions, faults = keep_captions(query_id, texts)
    return (query_id, reference, target, captions, ()), faults


def _name_query(reference: str, target: str | None, times: dict[str, int]) -> str:
    name = f"{reference}>{target or '?'}"
    times[name] = times.get(name, 0) + 1
    return name if times[name] == 1 else f"{name}#{times[name]}"


def _find_files(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Return where each image lies, or would lie, reading the folder once."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    files = {}
    for name in names:
        found = [suffix for suffix in SUFFIXES if name + suffix in there]
        files[name] = folder / f"{name}{(found or SUFFIXES)[0]}"
    return files
