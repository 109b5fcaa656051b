"""What the scenes of a pool hold: kinds of thing, and the class that each pixel shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionlab.toybox.pool import Pool, open_pool
from regionlab.toybox.world import COMBINATIONS, MAX_THINGS, SHAPES, sample_scene, scene_rng


@dataclass(frozen=True)
class Scenes:
    """Pictures of one split and what is in them.

    Attributes
    ----------
    pool
        The pictures, and which thing each pixel shows.
    kinds
        (n, combinations) bool, whether a scene holds a thing of each row of `COMBINATIONS`.
    classes
        (n, things + 1) uint8, the class of the pixels that show each thing: its row of `SHAPES`
        counted from 1. The first column, of the ground, is 0.
    """

    pool: Pool
    kinds: np.ndarray
    classes: np.ndarray


def open_scenes(folder: Path, split: str, count: int, *, seed: int, side: int) -> Scenes:
    """Return the scenes of a split, rendering the pictures first where they are not there yet."""
    pool = open_pool(folder, seed=seed, split=split, count=count, side=side)
    kinds = np.zeros((count, len(COMBINATIONS)), bool)
    classes = np.zeros((count, MAX_THINGS + 1), np.uint8)
    rows = {combination: row for row, combination in enumerate(COMBINATIONS)}
    for number in range(count):
        things = sample_scene(scene_rng(seed, split, number)).things
        kinds[number, [rows[thing.combination] for thing in things]] = True
        classes[number, 1 : len(things) + 1] = [1 + SHAPES.index(t.shape) for t in things]
    return Scenes(pool, kinds, classes)


def class_pixels(scenes: Scenes, rows: np.ndarray) -> np.ndarray:
    """Return the class of each pixel of the models' input, (b, side, side) int64."""
    owners = scenes.pool.owners[rows][:, ::2, ::2]
    return np.stack([of[who] for of, who in zip(scenes.classes[rows], owners, strict=True)]).astype(
        np.int64
    )
