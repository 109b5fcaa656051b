"""Fashion200K's layout: label files of path, detection score and description.

The pictures are cropped to one garment each; the pictures of a product share a description.
"""

from pathlib import Path

import pandas as pd

from regionlab.collection import Collection, make_table
from regionlab.datasets.captioned import check_split, drop_empty_captions, make_skipped, read_lines
from regionlab.datasets.labelled import list_content

SPLITS = ("train", "test")
ENDING = "_detect_all.txt"
QUERIES = "test_queries.txt"
SOURCE = (
    "Fashion200K's labels and women.tar.gz can be had from the page of its author, Xintong Han "
    "(xthan/fashion-200k)."
)


def load_fashion200k(root: Path | str, split: str | None = None) -> Collection:
    """Load Fashion200K (Han et al., ICCV 2017).

    The collection holds the images that the label files name, on disk or not (see
    `Collection.missing_files`); the authors left about 100,000 others out of the files, for
    their low detection scores. An image's id is its published path, and so is the id of its
    caption, the product's description. Further columns of `images`: `label` str, the category
    (dress, jacket, pants, skirt or top); `product` str, the folder of the product's pictures;
    `detection_score` float, higher is surer; `split` str, "train" or "test".

    Empty descriptions, images listed a second time, lines that are broken and label files that
    name no image are listed in `skipped`.

    Parameters
    ----------
    root
        The folder that holds `labels/` and `women/`.
    split
        "train" or "test"; None for both.

    Raises
    ------
    FileNotFoundError
        If there is no folder of pictures, or no label file of the split.
    ValueError
        If the split is unknown, or the label files are not UTF-8 or have no sound line at all.
    """
    split = check_split(split, SPLITS)
    root = Path(root).expanduser().absolute()
    files = _find_labels(root, split)
    if not (root / "women").is_dir():
        raise FileNotFoundError(f"no folder women/ in {root}; {list_content(root)}. {SOURCE}")
    rows, left = [], []
    for file in files:
        sound, broken = _read_labels(file)
        rows, left = rows + sound, left + broken
        if not sound:
            left.append((f"labels/{file.name}", "label file that names no image"))
    if not rows:
        names = ", ".join(file.name for file in files)
        raise ValueError(
            f"no label file in {root / 'labels'} names an image: {names}; {' '.join(left[0])}"
        )
    try:
        return _make_collection(root, pd.DataFrame(rows), left, split)
    except ValueError as e:
        raise ValueError(f"the label files of {root}: {e}") from e


def load_fashion200k_queries(collection: Collection) -> pd.DataFrame:
    """Load the test queries of TIRG (Vo et al., CVPR 2019): an image and a change in words.

    TIRG counts every image with the target's description as right (`relevance.is_own_image`,
    given descriptions for ids, says which) and leaves the source image out of its own ranking.

    Parameters
    ----------
    collection
        The test split (or all) of Fashion200K, with `test_queries.txt` in its root.

    Returns
    -------
    pd.DataFrame
        One row a query: `source_id`, `target_id`, and `text`, TIRG's "replace a with b", where
        a and b are the first words that only the source's and the target's description have.
        Lines that are not two images of the collection with a description are left out, and
        listed as `attrs["skipped"]`, pairs of place and reason.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no line is two images of the collection that have a description.
    """
    file = collection.root / QUERIES
    if not file.is_file():
        raise FileNotFoundError(
            f"no {QUERIES} in {collection.root}; {list_content(collection.root)}. It is published "
            "with TIRG, the code of Composing Text and Image for Image Retrieval."
        )
    descriptions = collection.captions.set_index("image_id")["caption"].to_dict()
    rows, left = [], []
    for number, line in read_lines(file):
        pair, where = line.split(), f"{file.name}, line {number}"
        if len(pair) != 2:
            left.append((where, f"is not two paths: {line[:200]!r}"))
        elif unknown := [path for path in pair if path not in descriptions]:
            left.append((where, f"{unknown[0]!r} is no image with a description"))
        else:
            rows.append((*pair, _describe_change(*(descriptions[path] for path in pair))))
    if not rows:
        first = f": {' '.join(left[0])}" if left else ""
        raise ValueError(f"{file} holds no query about {collection!r}{first}")
    queries = pd.DataFrame(rows, columns=["source_id", "target_id", "text"], dtype="str")
    queries.attrs["skipped"] = left
    return queries


def _find_labels(root: Path, split: str | None) -> list[Path]:
    pattern = f"*_{split}{ENDING}" if split else f"*{ENDING}"
    files = sorted((root / "labels").glob(pattern))
    if not files:
        folder = root / "labels" if (root / "labels").is_dir() else root
        raise FileNotFoundError(
            f"no label files in {root}: looked for labels/{pattern}; {list_content(folder)}. "
            f"{SOURCE}"
        )
    return files


def _read_labels(file: Path) -> tuple[list[dict], list[tuple[str, str]]]:
    """Read one label file, named `<category>_<split>_detect_all.txt`: its rows, what is broken."""
    category, _, split = file.name.removesuffix(ENDING).rpartition("_")
    rows, broken = [], []
    for number, line in read_lines(file):
        where = f"labels/{file.name}, line {number}"
        try:
            path, score, caption = line.split("\t")
            row = {"path": path, "detection_score": float(score), "caption": caption.strip()}
        except ValueError:
            reason = "is not a path, a score and a description with tabs between them"
            broken.append((where, f"{reason}: {line[:200]!r}"))
            continue
        if {"", ".."} & set(path.split("/")):
            broken.append((where, f"{path!r} leaves the folder"))
        else:
            rows.append(row | {"label": category, "split": split, "file": file.name})
    return rows, broken


def _describe_change(source: str, target: str) -> str:
    """Word a change as TIRG does; where all words are shared, the last one stands for it."""
    old, new = source.split(), target.split()
    removed = next((word for word in old if word not in new), old[-1])
    added = next((word for word in new if word not in old), new[-1])
    return f"replace {removed} with {added}"


def _make_collection(
    root: Path, table: pd.DataFrame, skipped: list[tuple[str, str]], split: str | None
) -> Collection:
    again = table["path"].duplicated()
    twice = [
        (row.path, f"listed a second time, in {row.file}") for row in table[again].itertuples()
    ]
    table = table[~again].reset_index(drop=True)
    paths, unknown = table["path"], [-1] * len(table)  # no picture is opened
    columns = {"image_id": paths, "path": paths, "width": unknown, "height": unknown}
    columns |= {"label": table["label"], "product": [Path(path).parent.name for path in paths]}
    columns |= {name: table[name] for name in ("detection_score", "split")}
    images = make_table("images", columns)
    captions = {"caption_id": paths, "image_id": paths, "caption": table["caption"]}
    described, empty = drop_empty_captions(images, make_table("captions", captions))
    return Collection(
        root,
        images,
        captions=described,
        name=root.name,
        split=split,
        skipped=pd.concat([make_skipped(skipped + twice), empty], ignore_index=True),
    )
