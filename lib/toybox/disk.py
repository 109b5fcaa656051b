"""Write Toybox to disk and load it: COCO layout, a folder a class, CIRR's and FashionIQ's layout.

All is written once, in parallel: the same seed gives the same bytes, whatever the number of
processor cores. Marks are written last, so that what was cut off half-way is written again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from regionlab.data.images import write_image
from regionlab.data.masks import mask_to_rle
from regionlab.data.triplets import Triplets, load_cirr, load_fashioniq
from regionlab.util.errors import InputError
from regionlab.util.files import atomic_write, write_json
from regionlab.util.paths import DATA, expand
from regionlab.util.progress import progress
from toybox import world
from toybox.changes import TRIPLETS, ChangeGroup, change_group, change_rng, check_split
from toybox.render import render_scene
from toybox.world import SHAPES, SIDE, Scene, describe_scene, sample_scene, scene_rng

ROOT = DATA / "toybox" / "world"
SIZES = {"val": 500, "test": 1000, "novel": 500}  # scenes a split
CLASS_SHAPES = SHAPES[:9]
CLASS_COLORS = ("red", "yellow", "blue")  # 9 shapes x 3 colors: 27 classes, as S3
PER_CLASS = 75

CHANGES_VERSION = 1  # raised whenever the same seed would give other changes, images or words
GROUPS = {"train": 3000, "val": 100, "test": 200}  # by default
ROOTS = {  # training images are no part of the world that figures are made from
    "train": DATA / "toybox" / "cache" / "changes",
    "val": ROOT / "changes",
    "test": ROOT / "changes",
}
CATEGORIES = {  # of FashionIQ's layout, and the kinds of change in each
    "attribute": ("color", "texture", "shape"),
    "ground": ("ground",),
    "things": ("add", "remove", "move"),
}
LAYOUTS = ("cirr", "fashioniq")
ATTRIBUTES = ("shape", "color", "texture", "size")  # of an object


# What all of them share


def is_written(path: Path, info: dict) -> bool:
    """Tell whether a mark is of this world; InputError where it is not of Toybox at all."""
    try:
        found = json.loads(path.read_text())["info"]
        ours = found["description"] == info["description"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{path} is not Toybox's: choose another folder")
    return found == info


def in_parallel(
    work: Callable[[Any], Any], jobs: Iterable, title: str, *, chunk: int = 1
) -> Iterator:
    """Yield what `work` returns for each job, in order, by processes of `chunk` jobs at a time."""
    jobs = list(jobs)
    if len(jobs) <= 2 * chunk:  # not worth starting processes
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor() as workers:
        yield from progress(workers.map(work, jobs, chunksize=chunk), title, len(jobs))


# Scenes in COCO layout, and a folder a class


def write_split(root: Path, split: str, count: int, *, seed: int = 0) -> Path:
    """Write `count` scenes of one split in COCO layout, unless they lie there already.

    `root`, which is returned, gets `images/<split>/*.jpg`, `annotations/instances_<split>.json`
    (RLE masks, XYWH boxes) and `annotations/captions_<split>.json`. "val" and "test" hold no
    held-out combination, like training; each scene of "novel" has one. Raises InputError if the
    split is unknown, `count` is not positive, or other data lies there.
    """
    if split not in SIZES:
        raise InputError(f"unknown Toybox split {split!r}; on disk are: {', '.join(SIZES)}")
    if count < 1:
        raise InputError(f"a split needs at least one scene, got count={count}")
    info = {"description": "Toybox", "version": world.VERSION, "seed": seed, "split": split,
            "count": count}  # fmt: skip
    instances_file = root / "annotations" / f"instances_{split}.json"
    captions_file = root / "annotations" / f"captions_{split}.json"
    if all([is_written(file, info) for file in (instances_file, captions_file)]):
        return root
    captions_file.unlink(missing_ok=True)
    (root / "images" / split).mkdir(parents=True, exist_ok=True)
    captions_file.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(root, split, seed, number) for number in range(count)]
    rows = list(in_parallel(_write_scene, jobs, f"toybox {split}", chunk=20))
    about = {"info": info, "images": [row["image"] for row in rows]}
    instances = [annotation for row in rows for annotation in row["instances"]]
    categories = [{"id": i + 1, "name": shape} for i, shape in enumerate(SHAPES)]
    captions = [annotation for row in rows for annotation in row["captions"]]
    _write_compact(instances_file, {**about, "annotations": instances, "categories": categories})
    _write_compact(captions_file, {**about, "annotations": captions})
    return root


def write_class_folders(root: Path, *, per_class: int = PER_CLASS, seed: int = 0) -> Path:
    """Write the folder-per-class view: 27 kinds of thing, each alone on any ground.

    `root` gets one folder a class, `red_star/0000.jpg` and so on, unless they lie there already,
    and is returned. Raises InputError if `per_class` is not positive.
    """
    if per_class < 1:
        raise InputError(f"a class needs at least one picture, got {per_class}")
    info = {"description": "Toybox classes", "version": world.VERSION, "seed": seed,
            "count": per_class}  # fmt: skip
    marker = root.parent / f"{root.name}.json"
    if is_written(marker, info):
        return root
    marker.unlink(missing_ok=True)
    jobs = []
    for shape, color in product(CLASS_SHAPES, CLASS_COLORS):
        make_empty(root / f"{color}_{shape}", "[0-9][0-9][0-9][0-9].jpg")  # every file counts
        jobs += [(root, shape, color, seed, number) for number in range(per_class)]
    list(in_parallel(_write_single, jobs, "toybox classes", chunk=20))
    _write_compact(marker, {"info": info})
    return root


def make_empty(folder: Path, pattern: str) -> None:
    """Make a folder, without the files of another world."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(pattern):
        leftover.unlink()


def _write_compact(path: Path, content: dict) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content))


def _write_scene(job) -> dict:
    root, split, seed, number = job
    rng = scene_rng(seed, split, number)
    scene = sample_scene(rng, held_out=split == "novel")
    image, masks = render_scene(scene, rng)
    image_id = world.SPLITS.index(split) * 1_000_000 + number + 1
    file_name = f"{image_id:012d}.jpg"
    write_image(root / "images" / split / file_name, image)
    return {
        "image": {
            "id": image_id, "file_name": file_name, "width": SIDE, "height": SIDE,
            "ground": scene.ground, "light": round(scene.light, 4),
        },
        "instances": _annotate(scene, masks, image_id),
        "captions": [
            {"id": image_id * 10 + i, "image_id": image_id, "caption": caption}
            for i, caption in enumerate(describe_scene(scene, rng))
        ],
    }  # fmt: skip


def _annotate(scene: Scene, masks: list[np.ndarray], image_id: int) -> list[dict]:
    """COCO annotations of the scene's things, with their attributes."""
    annotations = []
    for i, (thing, mask) in enumerate(zip(scene.things, masks, strict=True)):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        annotations.append({
            "id": image_id * 10 + i,
            "image_id": image_id,
            "category_id": SHAPES.index(thing.shape) + 1,
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "area": int(mask.sum()),
            "segmentation": mask_to_rle(mask),
            "iscrowd": 0,
            "attributes": {key: getattr(thing, key) for key in ATTRIBUTES},
        })  # fmt: skip
    return annotations


def _write_single(job) -> None:
    root, shape, color, seed, number = job
    key = (CLASS_SHAPES.index(shape) * len(CLASS_COLORS) + CLASS_COLORS.index(color)) * 100_000
    rng = scene_rng(seed, "classes", key + number)
    image, _ = render_scene(world.sample_single_object(rng, shape, color), rng)
    write_image(root / f"{color}_{shape}" / f"{number:04d}.jpg", image)


# Change triplets in the layouts of CIRR and FashionIQ


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

    They are read back by the loader of the published data set; `kinds_of` tells their kinds.

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
        Groups of six images and six triplets; by default 3,000, 100 and 200.
    seed
        Which world.

    Raises
    ------
    InputError
        If the layout, split or category is unknown, `groups` is not positive, or so few that
        none of their changes is of the category.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if layout == "cirr" and category is not None:
        raise InputError(f"the layout cirr has no categories, got {category!r}")
    if layout == "fashioniq" and category not in CATEGORIES:
        raise InputError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")
    root = find_changes(split=split, root=root, groups=groups, seed=seed)
    if layout == "cirr":
        triplets = load_cirr(root / "cirr", split=split)
    else:
        triplets = load_fashioniq(root / "fashioniq", split=split, category=category)
    return replace(triplets, name=f"toybox {layout}")


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
    """Return query id to kind of change: color, texture, shape, ground, add, ..., combined.

    `root` is what `find_changes` returned; ids have both forms, CIRR's "12" and FashionIQ's
    "reference>target".
    """
    entries = json.loads(_captions_file(expand(root), split).read_text(encoding="utf-8"))
    kinds = {str(entry["pairid"]): entry["kind"] for entry in entries}
    return kinds | {f"{e['reference']}>{e['target_hard']}": e["kind"] for e in entries}


def write_changes(root: Path, split: str, groups: int, *, seed: int = 0) -> Path:
    """Write groups of scenes and the triplets between them, unless they lie there already.

    `root`, which is returned, gets `cirr/` and `fashioniq/`, each as published but for the images'
    suffix and CIRR's further key `kind`; of FashionIQ's layout the gallery of each category is the
    whole split. The images are on disk once, under two names where the disk allows it (hard
    links); several splits may lie in one folder. A group is the same whatever their number. Raises
    InputError if the split is unknown, `groups` is not positive, or other data lies in `root`.
    """
    check_split(split)
    if groups < 1:
        raise InputError(f"a split of changes needs at least one group, got groups={groups}")
    root = expand(root)
    ours = {"description": "Toybox changes", "version": [world.VERSION, CHANGES_VERSION]}
    info = ours | {"seed": seed, "split": split, "groups": groups}
    marker = root / f"changes_{split}.json"
    if is_written(marker, info):
        return root
    if root.exists() and any(root.iterdir()) and not any(root.glob("changes_*.json")):
        raise InputError(f"{root} holds other files: choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"info": ours})  # from here on it is ours, but not complete
    for folder in _image_folders(root, split):
        make_empty(folder, f"{split}-*.jpg")
    jobs = [(root, split, seed, number) for number in range(groups)]
    written = list(in_parallel(_write_group, jobs, f"toybox changes {split}", chunk=5))
    _write_cirr(root / "cirr", split, written)
    _write_fashioniq(root / "fashioniq", split, written)
    write_json(marker, {"info": info})
    return root


def _image_folders(root: Path, split: str) -> tuple[Path, Path]:
    return root / "cirr" / split, root / "fashioniq" / "images"


def _captions_file(root: Path, split: str) -> Path:
    return root / "cirr" / "captions" / f"cap.rc2.{split}.json"


def _write_group(job: tuple[Path, str, int, int]) -> ChangeGroup:
    root, split, seed, number = job
    group = change_group(seed, split, number)
    for member, name in enumerate(_names(split, number, group)):
        grain = change_rng(seed, split, number, 1 + member)
        image, _ = render_scene(group.members[member].scene, grain)
        first, second = (folder / f"{name}.jpg" for folder in _image_folders(root, split))
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
