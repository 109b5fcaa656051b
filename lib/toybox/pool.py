"""Training images of Toybox, rendered once from the seed and kept as flat arrays.

Rendering costs more than a training step reads, so the scenes of the training split are
drawn by all cores into memory-mapped files before training and drawn from there at random.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from regionlab.util.files import write_json
from regionlab.util.paths import DATA
from toybox import world
from toybox.disk import in_parallel
from toybox.render import render_scene
from toybox.world import COMBINATIONS, SIDE, VERSION, sample_scene, scene_rng

CACHE = DATA / "toybox" / "cache"  # of training: what can be made again
CHUNK = 250  # scenes one worker renders at a time
OBJECT_VIEWS = ("erased", "erased crop", "mean crop", "plain crop", "blurred")
MEAN_COLOR = (122, 116, 104)  # CLIP's mean, what normalises to zero


@dataclass(frozen=True)
class Pool:
    """Images of one split as arrays; row i of each belongs to scene i.

    Attributes
    ----------
    scenes : (n, side, side, 3) uint8 RGB, whole scenes
    objects : (n, side, side, 3) uint8 RGB, one thing of the scene by itself, as a region would be
        shown to CLIP: erased to black, cropped, blurred around
    object_names : (n,) int16, the combination of that thing (row of `COMBINATIONS`)
    owners : (n, 256, 256) uint8, which thing each pixel of the whole-size scene shows, from 1 on;
        0 is the ground
    captions : five captions a scene
    """

    scenes: np.ndarray
    objects: np.ndarray
    object_names: np.ndarray
    owners: np.ndarray
    captions: list[list[str]]


def open_pool(folder: Path, *, seed: int, split: str, count: int, side: int) -> Pool:
    """Return the pool in `folder`, rendering it first where it is not there yet, or another's."""
    wanted = {"version": VERSION, "seed": seed, "split": split, "count": count, "side": side}
    wanted["arrays"] = sorted(_shapes(wanted))
    marker = folder / "pool.json"
    if not marker.exists() or json.loads(marker.read_text())["made"] != wanted:
        _render_pool(folder, wanted)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _shapes(wanted)}
    return Pool(**arrays, captions=json.loads(marker.read_text())["captions"])


def _shapes(made: dict) -> dict[str, tuple]:
    n, side = made["count"], made["side"]
    return {
        "scenes": ((n, side, side, 3), np.uint8),
        "objects": ((n, side, side, 3), np.uint8),
        "object_names": ((n,), np.int16),
        "owners": ((n, SIDE, SIDE), np.uint8),
    }


def _render_pool(folder: Path, made: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pool.json").unlink(missing_ok=True)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype) in _shapes(made).items()
    }
    starts = range(0, made["count"], CHUNK)
    captions: list[list[str]] = []
    title = f"render {made['split']} by {CHUNK} scenes"
    chunks = in_parallel(partial(_render_chunk, made), starts, title)
    for start, chunk in zip(starts, chunks, strict=True):
        for name, array in arrays.items():
            array[start : start + len(chunk[name])] = chunk[name]
        captions += chunk["captions"]
    for array in arrays.values():
        array.flush()
    write_json(folder / "pool.json", {"made": made, "captions": captions})


def _render_chunk(made: dict, start: int) -> dict[str, list]:
    stop = min(start + CHUNK, made["count"])
    rows = [_render_row(made, number) for number in range(start, stop)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _render_row(made: dict, number: int) -> dict:
    rng = scene_rng(made["seed"], made["split"], number)
    scene = sample_scene(rng)
    image, masks = render_scene(scene, rng)
    chosen = int(rng.integers(len(masks)))
    view = OBJECT_VIEWS[int(rng.integers(len(OBJECT_VIEWS)))]
    return {
        "objects": _shrink(show_object(image, masks[chosen], view, rng), made["side"]),
        "scenes": _shrink(image, made["side"]),
        "object_names": COMBINATIONS.index(scene.things[chosen].combination),
        "owners": sum(mask * np.uint8(number) for number, mask in enumerate(masks, 1)),
        "captions": world.describe_scene(scene, rng),
    }


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Resize as CLIP's own preprocessing does."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def show_object(image: np.ndarray, mask: np.ndarray, view: str, rng) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, with the masked thing singled out by one of `OBJECT_VIEWS`.

    Like the region encodings, but with context and blur drawn at random.
    """
    if view == "blurred":
        radius = float(rng.uniform(4, 12))
        around = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
        return np.where(mask[..., None], image, around)
    fill = MEAN_COLOR if view == "mean crop" else (0, 0, 0)
    erased = image if view == "plain crop" else np.where(mask[..., None], image, np.uint8(fill))
    return erased if view == "erased" else _crop_square(erased, mask, rng.uniform(1, 1.4), fill)


def _crop_square(image, mask, context: float, fill) -> np.ndarray:
    """Cut a square around the mask, `context` times its longer side, padded with `fill`."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    half = max(np.ptp(rows), np.ptp(columns), 7) * context / 2
    x0, y0, x1, y1 = (round(v) for v in (x - half, y - half, x + half, y + half))
    cut = Image.new("RGB", (x1 - x0, y1 - y0), fill)
    cut.paste(Image.fromarray(image), (-x0, -y0))
    return np.asarray(cut)


@dataclass(frozen=True)
class ToyRecipe:
    """What decides the weights of every model that learns from a pool."""

    seed: int = 0
    scenes: int = 40_000
    steps: int = 1_600
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    save_every: int = 100


def open_pools(cache: Path, recipe: ToyRecipe, side: int) -> tuple[Pool, Pool]:
    """Return the training scenes of a recipe, and up to 500 of validation."""
    train, val = (
        open_pool(cache / f"pool-{split}", seed=recipe.seed, split=split, count=count, side=side)
        for split, count in (("train", recipe.scenes), ("val", min(500, recipe.scenes)))
    )
    return train, val


def sample_rows(rng: np.random.Generator, total: int, size: int) -> np.ndarray:
    """Sample up to `size` rows without replacement, in order, for reading from disk."""
    return np.sort(rng.choice(total, min(size, total), replace=False))


@dataclass(frozen=True)
class Scenes:
    """Images of one split and what is in them.

    Attributes
    ----------
    pool : the images, and which thing each pixel shows
    kinds : (n, combinations) bool, whether a scene holds a thing of each row of `COMBINATIONS`
    classes : (n, things + 1) uint8, the class of the pixels that show each thing: its row of
        `world.SHAPES` counted from 1; the first column, of the ground, is 0
    """

    pool: Pool
    kinds: np.ndarray
    classes: np.ndarray


def open_scenes(folder: Path, split: str, count: int, *, seed: int, side: int) -> Scenes:
    """Return the scenes of a split, see `open_pool`, and what they hold."""
    pool = open_pool(folder, seed=seed, split=split, count=count, side=side)
    kinds = np.zeros((count, len(COMBINATIONS)), bool)
    classes = np.zeros((count, world.MAX_THINGS + 1), np.uint8)
    rows = {combination: row for row, combination in enumerate(COMBINATIONS)}
    for number in range(count):
        things = sample_scene(scene_rng(seed, split, number)).things
        kinds[number, [rows[thing.combination] for thing in things]] = True
        classes[number, 1 : len(things) + 1] = [1 + world.SHAPES.index(t.shape) for t in things]
    return Scenes(pool, kinds, classes)


def class_pixels(scenes: Scenes, rows: np.ndarray) -> np.ndarray:
    """Return the class of each pixel of the models' input, (b, side, side) int64."""
    owners = scenes.pool.owners[rows][:, ::2, ::2]
    classes = [of[who] for of, who in zip(scenes.classes[rows], owners, strict=True)]
    return np.stack(classes).astype(np.int64)
