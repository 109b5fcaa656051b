"""Write Toybox to disk as the world writes its data: COCO layout, and a folder a class."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from regionlab.data.images import write_image
from regionlab.data.masks import mask_to_rle
from regionlab.util.paths import DATA
from regionlab.util.progress import progress
from toybox.captions import describe_scene
from toybox.render import render_scene
from toybox.world import (
    SHAPES,
    SIDE,
    SPLITS,
    VERSION,
    Scene,
    sample_lone_scene,
    sample_scene,
    scene_rng,
)

ROOT = DATA / "toybox" / "world"
SIZES = {"val": 500, "test": 1000, "novel": 500}  # scenes a split
CLASS_SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "ring",
    "cross",
    "crescent",
    "diamond",
)
CLASS_COLORS = ("red", "yellow", "blue")  # 9 shapes x 3 colors: 27 classes, as S3
PER_CLASS = 75


def write_split(root: Path, split: str, count: int, *, seed: int = 0) -> Path:
    """Write the scenes of one split in COCO layout, unless they lie there already.

    The annotation files are written last, so a split cut off half-way is written again. The
    same seed gives the same bytes, whatever the number of processor cores.

    Parameters
    ----------
    root
        Gets `images/<split>/*.jpg`, `annotations/instances_<split>.json` (RLE masks, XYWH
        boxes) and `annotations/captions_<split>.json`.
    split
        "val" and "test" hold no held-out combination, like training; each scene of "novel" has one.
    count
        How many scenes.
    seed
        Which world.

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    ValueError
        If the split is unknown, `count` is not positive, or other data lies there.
    """
    if split not in SIZES:
        raise ValueError(f"unknown Toybox split {split!r}; on disk are: {', '.join(SIZES)}")
    if count < 1:
        raise ValueError(f"a split needs at least one scene, got count={count}")
    info = {
        "description": "Toybox",
        "version": VERSION,
        "seed": seed,
        "split": split,
        "count": count,
    }
    instances_file = root / "annotations" / f"instances_{split}.json"
    captions_file = root / "annotations" / f"captions_{split}.json"
    if all([is_written(file, info) for file in (instances_file, captions_file)]):
        return root
    captions_file.unlink(missing_ok=True)
    (root / "images" / split).mkdir(parents=True, exist_ok=True)
    captions_file.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(root, split, seed, number) for number in range(count)]
    rows = _in_parallel(_write_scene, jobs, f"toybox {split}")
    instances = {
        "info": info,
        "images": [row["image"] for row in rows],
        "annotations": [annotation for row in rows for annotation in row["instances"]],
        "categories": [{"id": i + 1, "name": shape} for i, shape in enumerate(SHAPES)],
    }
    captions = {
        "info": info,
        "images": instances["images"],
        "annotations": [annotation for row in rows for annotation in row["captions"]],
    }
    _write_json(instances_file, instances)
    _write_json(captions_file, captions)
    return root


def write_class_folders(root: Path, *, per_class: int = PER_CLASS, seed: int = 0) -> Path:
    """Write the folder-per-class view: 27 kinds of thing, each alone on any ground.

    Parameters
    ----------
    root
        Gets one folder a class, `red_star/0000.jpg` and so on, unless they lie there already.
    per_class
        How many pictures a class.
    seed
        Which world.

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    ValueError
        If `per_class` is not positive.
    """
    if per_class < 1:
        raise ValueError(f"a class needs at least one picture, got {per_class}")
    info = {"description": "Toybox classes", "version": VERSION, "seed": seed, "count": per_class}
    marker = root.parent / f"{root.name}.json"
    if is_written(marker, info):
        return root
    marker.unlink(missing_ok=True)
    jobs = []
    for shape in CLASS_SHAPES:
        for color in CLASS_COLORS:
            _make_class_folder(root / f"{color}_{shape}")
            jobs += [(root, shape, color, seed, number) for number in range(per_class)]
    _in_parallel(_write_lone, jobs, "toybox classes")
    _write_json(marker, {"info": info})
    return root


def _make_class_folder(folder: Path) -> None:
    """Make the folder, without the pictures of another world: every file counts in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("[0-9][0-9][0-9][0-9].jpg"):
        leftover.unlink()


def is_written(path: Path, info: dict) -> bool:
    """Tell whether a file is of this world; refuse to go on where it is not of Toybox at all."""
    try:
        found = json.loads(path.read_text())["info"]
        ours = found["description"] == info["description"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ValueError(f"{path} is not Toybox's: choose another folder")
    return found == info


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _in_parallel(work, jobs: list, title: str) -> list:
    if len(jobs) < 50:  # not worth starting processes
        return [work(job) for job in jobs]
    with ProcessPoolExecutor() as workers:
        return list(progress(workers.map(work, jobs, chunksize=20), title, len(jobs)))


def _write_scene(job) -> dict:
    root, split, seed, number = job
    rng = scene_rng(seed, split, number)
    scene = sample_scene(rng, novel=split == "novel")
    image, masks = render_scene(scene, rng)
    image_id = SPLITS.index(split) * 1_000_000 + number + 1
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
            "attributes": {
                "shape": thing.shape, "color": thing.color,
                "texture": thing.texture, "size": thing.size,
            },
        })  # fmt: skip
    return annotations


def _write_lone(job) -> None:
    root, shape, color, seed, number = job
    key = (CLASS_SHAPES.index(shape) * len(CLASS_COLORS) + CLASS_COLORS.index(color)) * 100_000
    rng = scene_rng(seed, "classes", key + number)
    image, _ = render_scene(sample_lone_scene(rng, shape, color), rng)
    write_image(root / f"{color}_{shape}" / f"{number:04d}.jpg", image)
