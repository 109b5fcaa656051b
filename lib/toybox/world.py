"""What exists in Toybox: things with attributes, placed on a ground under a light.

A scene is plain data sampled from a generator; `render` draws it, `captions` describes it.
"""

from dataclasses import dataclass

import numpy as np

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "ring",
    "cross", "crescent", "diamond", "arrow", "flower", "bolt",
)  # fmt: skip
COLORS = {
    "red": (205, 40, 40),
    "orange": (240, 135, 25),
    "yellow": (248, 220, 60),
    "green": (45, 160, 70),
    "blue": (40, 85, 205),
    "purple": (125, 60, 170),
    "pink": (243, 135, 190),
    "white": (240, 240, 238),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
GROUNDS = ("grass", "sand", "water", "snow", "brick", "wood", "tile", "gravel")
SIZES = {"small": (22, 28), "medium": (31, 39), "large": (44, 55)}  # radius in pixels

VERSION = 1  # raised whenever the same seed would give other pictures or words
SIDE = 256  # pixels, width and height of every scene
MAX_THINGS = 4
SPLITS = ("train", "val", "test", "novel", "classes")

Combination = tuple[str, str, str]  # shape, color, texture


@dataclass(frozen=True)
class Thing:
    """One object: its attributes, its centre (x, y) and radius in pixels, its angle in radians."""

    shape: str
    color: str
    texture: str
    size: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def combination(self) -> Combination:
        """Shape, color and texture: what makes two things "the same object"."""
        return self.shape, self.color, self.texture


@dataclass(frozen=True)
class Scene:
    """Things from back to front on a ground; `light` is where the light comes from, in radians."""

    ground: str
    light: float
    things: tuple[Thing, ...]


def is_held_out(combination: Combination) -> bool:
    """Tell whether a combination never occurs in training (one in ten, evenly spread).

    Every shape, color and texture alone, and every pair of them, is still seen.
    """
    shape, color, texture = combination
    code = SHAPES.index(shape) + 3 * list(COLORS).index(color) + 7 * TEXTURES.index(texture)
    return code % 10 == 0


COMBINATIONS = tuple((s, c, t) for s in SHAPES for c in COLORS for t in TEXTURES)
HELD_OUT = tuple(c for c in COMBINATIONS if is_held_out(c))
SEEN = tuple(c for c in COMBINATIONS if not is_held_out(c))


def scene_rng(seed: int, split: str, number: int) -> np.random.Generator:
    """Return the generator of one scene: independent of all others and of who renders it."""
    if split not in SPLITS:
        raise ValueError(f"unknown Toybox split {split!r}; known: {', '.join(SPLITS)}")
    return np.random.default_rng([seed, SPLITS.index(split), number])


def sample_scene(rng: np.random.Generator, *, novel: bool = False) -> Scene:
    """Draw a scene of one to four things; one in six of several things shows one twice.

    Parameters
    ----------
    rng
        The scene's own generator, see `scene_rng`.
    novel
        True puts at least one held-out combination into the scene; False none.
    """
    count = int(rng.integers(1, MAX_THINGS + 1))
    combinations = [_choose(rng, SEEN) for _ in range(count)]
    if count > 1 and rng.random() < 1 / 6:
        combinations[1] = combinations[0]
    if novel:
        combinations[0] = _choose(rng, HELD_OUT)
    return Scene(
        ground=_choose(rng, GROUNDS),
        light=float(rng.uniform(0, 2 * np.pi)),
        things=_place(rng, combinations),
    )


def sample_lone_scene(rng: np.random.Generator, shape: str, color: str) -> Scene:
    """Draw one thing of a given shape and color, alone, anywhere: the folder-per-class view."""
    textures = [t for t in TEXTURES if not is_held_out((shape, color, t))]
    things = _place(rng, [(shape, color, _choose(rng, textures))])
    return Scene(_choose(rng, GROUNDS), float(rng.uniform(0, 2 * np.pi)), things)


def _choose(rng, options):
    return options[int(rng.integers(len(options)))]


def _place(rng, combinations: list[Combination]) -> tuple[Thing, ...]:
    """Give each combination a size, an angle and a place that hides no other thing for the most."""
    while True:  # a crowd of large things may not fit: start over
        placed: list[Thing] = []
        for shape, color, texture in combinations:
            size = _choose(rng, list(SIZES))
            radius = rng.uniform(*SIZES[size])
            spot = _free_spot(rng, radius, placed)
            if spot is None:
                break
            angle = rng.uniform(-0.35, 0.35)
            placed.append(Thing(shape, color, texture, size, *spot, float(radius), float(angle)))
        else:
            order = rng.permutation(len(placed))
            return tuple(placed[i] for i in order)


def _free_spot(rng, radius: float, placed: list[Thing], tries: int = 30):
    for _ in range(tries):
        x, y = rng.uniform(radius * 1.02, SIDE - radius * 1.02, 2)
        if all(np.hypot(x - t.x, y - t.y) > 0.8 * (radius + t.radius) for t in placed):
            return float(x), float(y)
    return None
