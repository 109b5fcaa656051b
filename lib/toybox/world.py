"""What exists in Toybox, things with attributes on a ground under a light, and its captions.

A scene is plain data sampled from a generator; `render` draws it, five captions describe it, each
built another way.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regionlab.util.errors import InputError

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "ring",
    "cross", "crescent", "diamond", "arrow", "flower", "bolt",
)  # fmt: skip
COLORS = {
    "red": (205, 40, 40), "orange": (240, 135, 25), "yellow": (248, 220, 60),
    "green": (45, 160, 70), "blue": (40, 85, 205), "purple": (125, 60, 170),
    "pink": (243, 135, 190), "white": (240, 240, 238),
}  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "checkered")
GROUNDS = ("grass", "sand", "water", "snow", "brick", "wood", "tile", "gravel")
SIZES = {"small": (22, 28), "medium": (31, 39), "large": (44, 55)}  # radius in pixels

VERSION = 1  # raised whenever the same seed would give other images or words
SIDE = 256  # pixels, width and height of every scene
MAX_THINGS = 4
SPLITS = ("train", "val", "test", "novel", "classes")

SYNONYMS = {
    "circle": ("disc",), "square": ("box",), "ring": ("hoop",), "cross": ("plus sign",),
    "crescent": ("moon",), "diamond": ("rhombus",), "bolt": ("lightning bolt",),
    "flower": ("blossom",), "dotted": ("spotted",), "checkered": ("chequered",),
    "large": ("big",), "small": ("little",), "tile": ("tiles",), "brick": ("bricks",),
    "wood": ("wooden boards",), "gravel": ("pebbles",),
}  # fmt: skip
WITH_TEXTURE = {
    "striped": "with stripes", "dotted": "with dots", "checkered": "with a checker pattern",
}  # fmt: skip
NUMBERS = ("no", "one", "two", "three", "four")
PLURALS = {"cross": "crosses", "box": "boxes", "rhombus": "rhombuses"}

RELATION_GAP = 36  # pixels between centres from which "left of" is said
SIZE_RATIO = 1.3  # of radii from which "larger than" is said

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
    """Return the generator of one scene, independent of all others and of who renders it."""
    if split not in SPLITS:
        raise InputError(f"unknown Toybox split {split!r}; known: {', '.join(SPLITS)}")
    return np.random.default_rng([seed, SPLITS.index(split), number])


def sample_scene(rng: np.random.Generator, *, held_out: bool = False) -> Scene:
    """Sample a scene of one to four things; one in six of several things shows one twice.

    `held_out` puts at least one combination held out from training into it, else there is none.
    """
    count = int(rng.integers(1, MAX_THINGS + 1))
    combinations = [choose(rng, SEEN) for _ in range(count)]
    if count > 1 and rng.random() < 1 / 6:
        combinations[1] = combinations[0]
    if held_out:
        combinations[0] = choose(rng, HELD_OUT)
    return Scene(choose(rng, GROUNDS), _sample_light(rng), _place(rng, combinations))


def sample_single_object(rng: np.random.Generator, shape: str, color: str) -> Scene:
    """Sample one thing of a given shape and color anywhere: the folder-per-class view."""
    textures = [t for t in TEXTURES if not is_held_out((shape, color, t))]
    things = _place(rng, [(shape, color, choose(rng, textures))])
    return Scene(choose(rng, GROUNDS), _sample_light(rng), things)


def _sample_light(rng) -> float:
    return float(rng.uniform(0, 2 * np.pi))


def choose(rng, options):
    """Return one of the options."""
    return options[int(rng.integers(len(options)))]


def _place(rng, combinations: list[Combination]) -> tuple[Thing, ...]:
    """Give each combination a size, an angle and a place that hides no other thing for the most."""
    while True:  # a crowd of large things may not fit: start over
        placed: list[Thing] = []
        for shape, color, texture in combinations:
            size = choose(rng, list(SIZES))
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


# Captions


def describe_scene(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Return five captions: plain list, ground first, relation, count, and sizes.

    Each names every thing with color and shape (and texture, though "plain" mostly goes
    unsaid) and the ground, so that a caption nearly always tells its scene from others.
    """
    return [write(scene, rng) for write in CAPTION_WRITERS]


def phrase_thing(
    thing: Thing, rng: np.random.Generator, *, size: bool = False, article: bool = True
) -> str:
    """Return a noun phrase in varied wording, such as "a big red star with stripes"."""
    words = [vary_word(thing.size, rng)] if size else []
    words.append(thing.color)
    tail = ""
    if thing.texture == "plain":
        words = words[:-1] + ["plain"] * (rng.random() < 0.3) + words[-1:]
    elif rng.random() < 0.25:
        tail = " " + WITH_TEXTURE[thing.texture]
    else:
        words.append(vary_word(thing.texture, rng))
    noun = " ".join([*words, vary_word(thing.shape, rng)])
    return (with_article(noun) if article else noun) + tail


def vary_word(word: str, rng) -> str:
    """Return the word or, one time in four, a synonym."""
    options = SYNONYMS.get(word, ())
    return choose(rng, options) if options and rng.random() < 0.25 else word


def with_article(noun: str) -> str:
    """Return "a star" or "an arrow"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _pluralise(noun: str) -> str:
    head, _, last = noun.rpartition(" ")
    return f"{head} {PLURALS.get(last, last + 's')}".strip()


def _join(phrases: list[str]) -> str:
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def _grouped_phrases(scene: Scene, rng, *, size: bool = False) -> list[str]:
    """Noun phrases of all things, equal ones counted: "two red stars"."""
    groups = Counter((t.combination, t.size if size else "") for t in scene.things)
    phrases = []
    for i in rng.permutation(len(groups)):
        (combination, said_size), count = list(groups.items())[i]
        alike = (t for t in scene.things if t.combination == combination)
        thing = next(t for t in alike if said_size in ("", t.size))
        phrase = phrase_thing(thing, rng, size=size, article=count == 1)
        if count > 1:
            noun, sign, tail = phrase.partition(" with ")
            phrase = f"{NUMBERS[count]} {_pluralise(noun)}{sign}{tail}"
        phrases.append(phrase)
    return phrases


def _list_things(scene: Scene, rng) -> str:
    opening = choose(rng, ("", "", "a picture of ", "there is "))
    return f"{opening}{_join(_grouped_phrases(scene, rng))} on {vary_word(scene.ground, rng)}"


def _ground_first(scene: Scene, rng) -> str:
    ground = vary_word(scene.ground, rng)
    opening = choose(rng, (f"on {ground}", f"a ground of {ground} with"))
    return f"{opening} {_join(_grouped_phrases(scene, rng))}"


def _relate(scene: Scene, rng) -> str:
    """One relation of two things, then the rest; a thing alone is placed in the frame."""
    ground = vary_word(scene.ground, rng)
    if len(scene.things) == 1:
        thing = scene.things[0]
        return f"{phrase_thing(thing, rng)} {place_in_frame(thing)} on {ground}"
    first, second, *rest = (scene.things[i] for i in rng.permutation(len(scene.things)))
    relations = [word for word, holds in RELATIONS.items() if holds(first, second)]
    relation = choose(rng, relations) if relations else "next to"
    caption = f"{phrase_thing(first, rng)} {relation} {phrase_thing(second, rng)}"
    others = f" with {_join([phrase_thing(t, rng) for t in rest])}" if rest else ""
    return f"{caption}{others} on {ground}"


def _count(scene: Scene, rng) -> str:
    count = len(scene.things)
    noun = choose(rng, ("thing", "object")) + ("s" if count > 1 else "")
    names = _join(_grouped_phrases(scene, rng))
    return f"{NUMBERS[count]} {noun} on {vary_word(scene.ground, rng)}: {names}"


def _size_up(scene: Scene, rng) -> str:
    return f"{_join(_grouped_phrases(scene, rng, size=True))} on {vary_word(scene.ground, rng)}"


CAPTION_WRITERS = (_list_things, _ground_first, _relate, _count, _size_up)

RELATIONS: dict[str, Callable[[Thing, Thing], bool]] = {
    "to the left of": lambda a, b: b.x - a.x > RELATION_GAP,
    "to the right of": lambda a, b: a.x - b.x > RELATION_GAP,
    "above": lambda a, b: b.y - a.y > RELATION_GAP,
    "below": lambda a, b: a.y - b.y > RELATION_GAP,
    "larger than": lambda a, b: a.radius > SIZE_RATIO * b.radius,
    "smaller than": lambda a, b: b.radius > SIZE_RATIO * a.radius,
}


def place_in_frame(thing: Thing) -> str:
    """Return where in the picture the thing is, in thirds: "at the top left", "in the middle"."""
    row = ("top", "", "bottom")[min(int(3 * thing.y / SIDE), 2)]
    column = ("left", "", "right")[min(int(3 * thing.x / SIDE), 2)]
    return f"at the {row} {column}".replace("  ", " ").strip() if row or column else "in the middle"
