"""Write Toybox's change triplets in the layouts of CIRR and FashionIQ, and load them from there."""

import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from regionlab.data.images import write_image
from regionlab.data.triplets import Triplets, load_cirr, load_fashioniq
from regionlab.util.files import write_json
from regionlab.util.paths import DATA, expand
from regionlab.util.progress import progress
from toybox import disk, world
from toybox.changes import TRIPLETS, ChangeGroup, change_group, change_rng, check_split
from toybox.render import render_scene

VERSION = 1  # raised whenever the same seed would give other pictures or words
GROUPS = {"train": 3000, "val": 100, "test": 200}  # by default
ROOTS = {  # training pictures are no part of the world that figures are made from
    "train": DATA / "toybox" / "cache" / "changes",
    "val": disk.ROOT / "changes",
    "test": disk.ROOT / "changes",
}
CATEGORIES = {  # of FashionIQ's layout, and the kinds of change in each
    "attribute": ("color", "texture", "shape"),
    "ground": ("ground",),
    "things": ("add", "remove", "move"),
}
LAYOUTS = ("cirr", "fashioniq")


def load_toybox_changes(
    layout: str,
    *,
    split: str,
    category: str | None = None,
    root: Path | str | None = None,
    groups: int | None = None,
    seed: int = 0,
) -> Triplets:
    """Load Toybox's change triplets, writing them to disk first where they are not there yet.

    They are read back by the loader that reads the published data set; see `kinds_of` for the
    kind of each query's change.

    Parameters
    ----------
    layout
        "cirr" (one caption, sets of six) or "fashioniq" (two captions, three categories).
    split
        "train", "val" or "test".
    category
        "attribute", "ground" or "things"; of "fashioniq" only, and there needed.
    root
        Where they lie or will lie; by default the usual place, where another seed or number of
        groups gets a folder of its own. In any other place they replace what lies there.
    groups
        Groups of six pictures and six triplets; by default 3,000, 100 and 200.
    seed
        Which world.

    Raises
    ------
    ValueError
        If the layout, split or category is unknown, `groups` is not positive, or so few that
        none of their changes is of the category.
    """
    _check(layout, category)
    root = find_changes(split=split, root=root, groups=groups, seed=seed)
    if layout == "cirr":
        triplets = load_cirr(root / "cirr", split=split)
    else:
        triplets = load_fashioniq(root / "fashioniq", split=split, category=category)
    return replace(triplets, name=f"toybox {layout}")


def _check(layout: str, category: str | None) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if layout == "cirr" and category is not None:
        raise ValueError(f"the layout cirr has no categories, got {category!r}")
    if layout == "fashioniq" and category not in CATEGORIES:
        raise ValueError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")


def find_changes(
    *, split: str, root: Path | str | None = None, groups: int | None = None, seed: int = 0
) -> Path:
    """Return the folder of the triplets, written first if needed: see `load_toybox_changes`."""
    check_split(split)
    size = GROUPS[split] if groups is None else groups
    if root is None:
        root = ROOTS[split]
        if (seed, size) != (0, GROUPS[split]):
            root = root.with_name(f"{root.name}-seed{seed}-{size}")
    return write_changes(expand(root), split, size, seed=seed)


def kinds_of(root: Path | str, split: str) -> dict[str, str]:
    """Return the kind of change of each query: color, texture, shape, ground, add, ..., combined.

    Parameters
    ----------
    root
        What `write_changes` or `find_changes` returned.
    split
        "train", "val" or "test".

    Returns
    -------
    dict
        By query id, in both forms: CIRR's "12" and FashionIQ's "reference>target".
    """
    entries = json.loads(_captions_file(expand(root), split).read_text(encoding="utf-8"))
    kinds = {str(entry["pairid"]): entry["kind"] for entry in entries}
    return kinds | {f"{e['reference']}>{e['target_hard']}": e["kind"] for e in entries}


def write_changes(root: Path, split: str, groups: int, *, seed: int = 0) -> Path:
    """Write groups of scenes and the triplets between them, unless they lie there already.

    The pictures are on disk once, under two names where the disk allows it (hard links). A
    split cut off half-way is written again. The same seed gives the same bytes, whatever the
    number of processor cores, and the same group whatever the number of groups.

    Parameters
    ----------
    root
        Gets `cirr/` and `fashioniq/`, each as published but for the pictures' suffix and CIRR's
        further key `kind`; of FashionIQ's layout the gallery of each category is the whole split.
    split
        "train", "val" or "test"; they may lie in one folder.
    groups
        How many groups.
    seed
        Which world.

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    ValueError
        If the split is unknown, `groups` is not positive, or other data lies in `root`.
    """
    check_split(split)
    if groups < 1:
        raise ValueError(f"a split of changes needs at least one group, got groups={groups}")
    root = expand(root)
    ours = {"description": "Toybox changes", "version": [world.VERSION, VERSION]}
    info = ours | {"seed": seed, "split": split, "groups": groups}
    marker = root / f"changes_{split}.json"
    if disk.is_written(marker, info):
        return root
    if root.exists() and any(root.iterdir()) and not any(root.glob("changes_*.json")):
        raise ValueError(f"{root} holds other files: choose another folder")
    _make_folders(root, split)
    write_json(marker, {"info": ours})  # from here on it is ours, but not complete
    _remove_pictures(root, split)
    jobs = [(root, split, seed, number) for number in range(groups)]
    written = _in_parallel(jobs, f"toybox changes {split}")
    _write_cirr(root / "cirr", split, written)
    _write_fashioniq(root / "fashioniq", split, written)
    write_json(marker, {"info": info})
    return root


def _picture_folders(root: Path, split: str) -> tuple[Path, Path]:
    return root / "cirr" / split, root / "fashioniq" / "images"


def _captions_file(root: Path, split: str) -> Path:
    return root / "cirr" / "captions" / f"cap.rc2.{split}.json"


def _make_folders(root: Path, split: str) -> None:
    notes = [root / layout / kind for layout in LAYOUTS for kind in ("captions", "image_splits")]
    for folder in (*_picture_folders(root, split), *notes):
        folder.mkdir(parents=True, exist_ok=True)


def _remove_pictures(root: Path, split: str) -> None:
    for folder in _picture_folders(root, split):
        for leftover in folder.glob(f"{split}-*.jpg"):
            leftover.unlink()


def _in_parallel(jobs: list[tuple], title: str) -> list[ChangeGroup]:
    if len(jobs) < 10:  # not worth starting processes
        return [_write_pictures(job) for job in jobs]
    with ProcessPoolExecutor() as workers:
        return list(progress(workers.map(_write_pictures, jobs, chunksize=5), title, len(jobs)))


def _write_pictures(job: tuple[Path, str, int, int]) -> ChangeGroup:
    root, split, seed, number = job
    group = change_group(seed, split, number)
    for member, name in enumerate(_names(split, number, group)):
        grain = change_rng(seed, split, number, 1 + member)
        image, _ = render_scene(group.members[member].scene, grain)
        first, second = (folder / f"{name}.jpg" for folder in _picture_folders(root, split))
        write_image(first, image)
        try:
            os.link(first, second)
        except OSError:  # a disk without hard links
            shutil.copyfile(first, second)
    return group


def _names(split: str, number: int, group: ChangeGroup) -> list[str]:
    return [f"{split}-{number}-{member}" for member in range(len(group.members))]


def _write_cirr(root: Path, split: str, groups: list[ChangeGroup]) -> None:
    entries, paths = [], {}
    for number, group in enumerate(groups):
        names = _names(split, number, group)
        paths |= {name: f"./{split}/{name}.jpg" for name in names}
        for i, triplet in enumerate(group.triplets):
            target = names[triplet.target]
            ranks = {"reference_rank": triplet.reference, "target_rank": triplet.target}
            entries.append({
                "pairid": number * TRIPLETS + i,
                "reference": names[triplet.reference],
                "target_hard": target,
                "target_soft": {target: 1.0},
                "caption": triplet.captions[0],
                "img_set": {"id": number, "members": names, **ranks},
                "kind": triplet.kind,
            })  # fmt: skip
    write_json(root / "image_splits" / f"split.rc2.{split}.json", paths)
    write_json(root / "captions" / f"cap.rc2.{split}.json", entries)


def _write_fashioniq(root: Path, split: str, groups: list[ChangeGroup]) -> None:
    """Write a triplet under the category of its first change."""
    category_of = {kind: name for name, kinds in CATEGORIES.items() for kind in kinds}
    entries = {category: [] for category in CATEGORIES}
    every = [_names(split, number, group) for number, group in enumerate(groups)]
    for names, group in zip(every, groups, strict=True):
        for t in group.triplets:
            pair = {"target": names[t.target], "candidate": names[t.reference]}
            entries[category_of[t.changes[0].kind]].append(pair | {"captions": list(t.captions)})
    for category, rows in entries.items():
        file = f"{category}.{split}.json"
        write_json(root / "image_splits" / f"split.{file}", [n for names in every for n in names])
        write_json(root / "captions" / f"cap.{file}", rows)
