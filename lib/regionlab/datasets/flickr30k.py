"""Flickr30K's layouts: pictures in one folder, five captions each in one of several files.

Flickr8k is published in the same layouts, and read by the same code.
"""

import json
import re
from pathlib import Path

import pandas as pd

from regionlab.collection import Collection, make_table
from regionlab.datasets.captioned import check_split, drop_empty_captions, make_skipped, read_lines
from regionlab.datasets.labelled import list_content
from regionlab.suffixes import readable_images

SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = (
    "Images",
    "images",
    "flickr30k_images/flickr30k_images",
    "flickr30k_images",
    "flickr30k-images",
)
CAPTION_FILES = ("captions.txt", "results.csv", "results_20130124.token")
KARPATHY_JSON = "dataset_flickr30k.json"
SOURCE = (
    "Flickr30K's images and captions can be had from the University of Illinois (the page of "
    "the Denotation Graph), the splits from Andrej Karpathy's page at Stanford (Deep "
    "Visual-Semantic Alignments)."
)

# "1.jpg,A dog", "1.jpg#0<tab>A dog" and "1.jpg| 0| A dog"; one published line lacks the last bar.
LINE = re.compile(r"([^\t,|]+\.(?:jpe?g|png))(?:,|#\d+\t|\| *\d+ *\|?)(.*)", re.IGNORECASE)
QUOTED = re.compile(r'"(?:[^"]|"")*"')

Captions = dict[str, list[str]]  # file name -> its captions, in the order of the file


def load_flickr30k(root: Path | str, split: str | None = None) -> Collection:
    """Load Flickr30K, or Flickr8k in the same layout.

    The collection holds the images that the caption file names, on disk or not (see
    `Collection.missing_files`). An image's id is its file name without suffix, a caption's
    that and its number, `1000092795#0`, in every layout the same. Empty captions, and without
    a split pictures that have no captions, are listed in `skipped`.

    Parameters
    ----------
    root
        The folder that holds the pictures in `Images/`, `images/`, `flickr30k_images/` (nested
        or not) or `flickr30k-images/`, and, beside them or among them, the captions.
    split
        "train", "val" or "test" of Karpathy's split, from `dataset_flickr30k.json` or
        `flickr30k_<split>_karpathy.txt`; None for all images, from `captions.txt`,
        `results.csv`, `results_20130124.token` or `dataset_flickr30k.json`. The first file
        found is read.

    Raises
    ------
    FileNotFoundError
        If the pictures' folder or the captions are not there.
    ValueError
        If the split is unknown or empty, or the file is broken.
    """
    split = check_split(split, SPLITS)
    root = Path(root).expanduser().absolute()
    folder = _find_images(root)
    file = _find_captions(root, folder, split)
    captions = _read_json(file, split) if file.suffix == ".json" else _read_text(file)
    if not captions:
        raise ValueError(f"{file} names no image" + (f" of split {split!r}" if split else ""))
    # Of one split, the pictures without captions are those of the others.
    unnamed = [] if split else sorted(_list_pictures(folder) - set(captions))
    place = folder.relative_to(root).as_posix()
    skipped = [(f"{place}/{name}", f"no caption in {file.name}") for name in unnamed]
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


def _list_pictures(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.suffix.lower() in readable_images()}


def _read_text(file: Path) -> Captions:
    captions: Captions = {}
    for number, line in read_lines(file):
        if number == 1 and re.match(r"image(_name)?\s*[,|]", line):
            continue  # the header
        found = LINE.fullmatch(line)
        if not found:
            raise ValueError(f"{file}, line {number} is no image and caption: {line[:200]!r}")
        name, caption = found[1], found[2].strip()
        if file.suffix == ".txt" and QUOTED.fullmatch(caption):  # as CSV puts commas in quotes
            caption = caption[1:-1].replace('""', '"')
        captions.setdefault(name, []).append(caption)
    return captions


def _read_json(file: Path, split: str | None) -> Captions:
    try:
        images = json.loads(file.read_bytes())["images"]
        return {
            image["filename"]: [sentence["raw"].strip() for sentence in image["sentences"]]
            for image in images
            if split in (None, image["split"])
        }
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{file} is not in the format of Karpathy's splits: {e!r}") from e


def _make_collection(
    root: Path, place: str, captions: Captions, skipped: list, split: str | None
) -> Collection:
    ids = {name: Path(name).stem for name in captions}
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
