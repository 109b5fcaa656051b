"""Flickr30K's layouts: pictures in one folder, five captions each in one of several files.

Flickr8k is published in the same layouts, and read by the same code.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd

from regionlab.collection import Collection, make_table
from regionlab.datasets.caption_tables import is_picture_name, read_captions
from regionlab.datasets.captioned import check_split, drop_empty_captions, make_skipped
from regionlab.datasets.labelled import list_content
from regionlab.datasets.values import is_text, show
from regionlab.listing import list_files
from regionlab.suffixes import readable_images, unread_images

SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = (
    "Images",
    "images",
    "flickr30k_images/flickr30k_images",
    "flickr30k_images",
    "flickr30k-images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
)
CAPTION_FILES = (
    "captions.txt",
    "results.csv",
    "results_20130124.token",
    "captions.csv",
    "Flickr8k.token.txt",
    "Flickr8k_text/Flickr8k.token.txt",
)
KARPATHY_JSON = "dataset_flickr30k.json"
SOURCE = (
    "Flickr30K's images and captions can be had from the University of Illinois (the page of "
    "the Denotation Graph), the splits from Andrej Karpathy's page at Stanford (Deep "
    "Visual-Semantic Alignments)."
)

Captions = dict[str, list[str]]  # file name -> its captions, in the order of the file
Left = list[tuple[str, str]]  # what was left out: path, reason


def load_flickr30k(root: Path | str, split: str | None = None) -> Collection:
    """Load Flickr30K, or Flickr8k in the same layout.

    The collection holds the images that the caption file names, on disk or not (see
    `Collection.missing_files`). An image's id is its file name without suffix (with it, where
    two would be the same), a caption's that and its number, `1000092795#0`, in every layout the
    same. Listed in `skipped` are empty captions, lines that are broken or name no picture and,
    without a split, pictures that have no captions and what else was left out of their folder.

    Parameters
    ----------
    root
        The folder that holds the pictures in `Images/`, `images/`, `flickr30k_images/` (nested
        or not), `flickr30k-images/` or `Flicker8k_Dataset/`, and, beside them or among them,
        the captions.
    split
        "train", "val" or "test" of Karpathy's split, from `dataset_flickr30k.json` or
        `flickr30k_<split>_karpathy.txt`; None for all images, from the first that is there of
        `CAPTION_FILES` and `dataset_flickr30k.json`.

    Raises
    ------
    FileNotFoundError
        If the pictures' folder or the captions are not there.
    ValueError
        If the split is unknown or empty, or the file has an unknown header (`caption_tables`
        says which are known) or no sound line.
    """
    split = check_split(split, SPLITS)
    root = Path(root).expanduser().absolute()
    folder = _find_images(root)
    file = _find_captions(root, folder, split)
    read = _read_json if file.suffix == ".json" else _read_text
    captions, left = read(file, folder, split)
    if not captions:
        what = f"{file} names no image" + (f" of split {split!r}" if split else "")
        first = f"; left out: {len(left):,}, the first: {' '.join(left[0])}" if left else ""
        raise ValueError(what + first)
    place = folder.relative_to(root).as_posix()
    # Of one split, the pictures without captions are those of the others.
    skipped = left if split else left + _list_others(folder, place, captions, file)
    try:
        return _make_collection(root, place, captions, skipped, split)
    except ValueError as e:
        raise ValueError(f"{file}: {e}") from e


def _find_images(root: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(
        f"no folder of images in {root}: looked for {', '.join(IMAGE_FOLDERS)}; "
        f"{list_content(root)}. {SOURCE}"
    )


def _find_captions(root: Path, folder: Path, split: str | None) -> Path:
    if split:
        names = (KARPATHY_JSON, f"flickr30k_{split}_karpathy.txt")
    else:
        names = (*CAPTION_FILES, KARPATHY_JSON)
    for name in names:
        for place in (root, folder, folder.parent):
            if (place / name).is_file():
                return place / name
    what = f"file of Karpathy's split for {split!r}" if split else "captions"
    raise FileNotFoundError(
        f"no {what} in {root}: looked for {', '.join(names)}; {list_content(root)}. {SOURCE}"
    )


def _list_others(folder: Path, place: str, captions: Captions, file: Path) -> Left:
    """List the pictures without captions, and what else was left out of their folder."""
    found = list_files(folder, readable_images(), unread_images())
    reasons = dict.fromkeys(found.paths, f"no caption in {file.name}") | found.skipped
    return [(f"{place}/{path}", why) for path, why in reasons.items() if path not in captions]


def _read_text(file: Path, folder: Path, split: str | None) -> tuple[Captions, Left]:
    content = read_captions(file)
    captions: Captions = {}
    strange: dict[str, list[int]] = {}  # names of no picture -> their lines
    for number, name, caption in content.rows:
        if _names_picture(name, folder):
            captions.setdefault(name, []).append(caption)
        else:
            strange.setdefault(name, []).append(number)
    left = [(f"{file.name}, line {number}", reason) for number, reason in content.broken]
    for name, lines in strange.items():
        texts = "1 caption" if len(lines) == 1 else f"{len(lines)} captions"
        left.append((f"{file.name}, line {lines[0]}", f"{name!r} is no picture: {texts} left out"))
    return captions, left


def _names_picture(name: str, folder: Path) -> bool:
    """Tell whether a name stays in the folder, and is there or could be that of a picture."""
    parts = name.split("/")
    if "" in parts or ".." in parts or "\0" in name or not is_text(name):
        return False
    return is_picture_name(name) or os.path.isfile(folder / name)


def _read_json(file: Path, folder: Path, split: str | None) -> tuple[Captions, Left]:
    captions, left = {}, []
    try:
        entries = list(enumerate(json.loads(file.read_bytes())["images"], start=1))
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise ValueError(f"{file} is not in the format of Karpathy's splits: {e!r}") from e
    for number, image in entries:
        where = f"{file.name}, image {number}"
        try:
            name, part = image["filename"], image["split"] if split else None
            texts, bad = _split_sentences(list(image["sentences"]))
            if not _names_picture(name, folder):
                left.append((where, f"{name!r} is no picture"))
            elif name in captions:
                left.append((where, f"{name} comes a second time"))
            elif part == split:
                captions[name] = texts
                left += [(where, f"{name}: {show(one)} has no caption in 'raw'") for one in bad]
        except (AttributeError, KeyError, TypeError) as e:
            left.append((where, f"not in the format of Karpathy's splits: {e!r}"))
    return captions, left


def _split_sentences(sentences: list) -> tuple[list[str], list]:
    """Return the captions of sentences, and the sentences that have none; some must have one."""
    captions, bad = [], []
    for sentence in sentences:
        raw = sentence.get("raw") if isinstance(sentence, dict) else None
        if isinstance(raw, str) and is_text(raw):
            captions.append(raw.strip())
        else:
            bad.append(sentence)
    if bad and not captions:
        raise AttributeError(f"{show(bad[0])} has no caption in 'raw'")
    return captions, bad


def _name_ids(captions: Captions) -> dict[str, str]:
    """Return file name -> id: the name without suffix, but with it where two would be the same."""
    count = Counter(Path(name).stem for name in captions)
    return {name: stem if count[stem := Path(name).stem] == 1 else name for name in captions}


def _make_collection(
    root: Path, place: str, captions: Captions, skipped: Left, split: str | None
) -> Collection:
    ids = _name_ids(captions)
    paths, unknown = [f"{place}/{name}" for name in ids], [-1] * len(ids)  # no picture is opened
    columns = {"image_id": ids.values(), "path": paths, "width": unknown, "height": unknown}
    images = make_table("images", columns)
    texts = [(ids[name], i, text) for name in ids for i, text in enumerate(captions[name])]
    columns = {
        "caption_id": [f"{image_id}#{number}" for image_id, number, _ in texts],
        "image_id": [image_id for image_id, _, _ in texts],
        "caption": [text for _, _, text in texts],
    }
    table, empty = drop_empty_captions(images, make_table("captions", columns))
    skipped = pd.concat([make_skipped(skipped), empty], ignore_index=True)
    return Collection(root, images, captions=table, name=root.name, split=split, skipped=skipped)
