"""What the readers of captions share."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from regionlab.collection import make_table


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, each with its number from 1.

    Raises
    ------
    ValueError
        If the file is not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{file} is not UTF-8 text: {e}") from e
    lines = enumerate(text.split("\n"), start=1)  # splitlines() also splits within captions
    return [(number, line) for number, line in lines if line.strip()]


def drop_empty_captions(
    images: pd.DataFrame, captions: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the table of captions into those with text and a `skipped` table of the others.

    An image whose captions are all empty stays an image, without captions.
    """
    empty = captions["caption"].str.strip() == ""
    paths = images.set_index("image_id")["path"].to_dict()
    skipped = make_skipped(
        (paths.get(row.image_id, row.image_id), f"caption {row.caption_id} is empty")
        for row in captions[empty].itertuples()
    )
    return captions[~empty].reset_index(drop=True), skipped


def make_skipped(rows: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Make a collection's table `skipped` of pairs of path and reason."""
    texts = [[text.encode("utf-8", "backslashreplace").decode() for text in row] for row in rows]
    paths, reasons = [path for path, _ in texts], [reason for _, reason in texts]
    return make_table("skipped", {"path": paths, "reason": reasons})


def check_split(split: str | None, known: tuple[str, ...]) -> str | None:
    """Return the split, None for "" too, which is how a notebook's parameter asks for all.

    Raises
    ------
    ValueError
        If the split is not one of those known.
    """
    if split and split not in known:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(known)}, or None for all")
    return split or None
