"""Say in words what a Toybox scene shows: five captions a scene, each built another way."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from toybox.world import SIDE, Scene, Thing

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


def describe_scene(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Return five captions: plain list, ground first, relation, count, and sizes.

    Each names every thing with color and shape (and texture, though "plain" mostly goes
    unsaid) and the ground, so that a caption nearly always tells its scene from others.
    """
    return [write(scene, rng) for write in CAPTION_WRITERS]


def describe_thing(thing: Thing) -> str:
    """Return the shortest full name: "red striped star", or "red star" for a plain one."""
    texture = "" if thing.texture == "plain" else f"{thing.texture} "
    return f"{thing.color} {texture}{thing.shape}"


def phrase_thing(
    thing: Thing, rng: np.random.Generator, *, size: bool = False, article: bool = True
) -> str:
    """Return a noun phrase in varied wording, such as "a big red star with stripes"."""
    words = [_word(thing.size, rng)] if size else []
    words.append(thing.color)
    tail = ""
    if thing.texture == "plain":
        words = words[:-1] + ["plain"] * (rng.random() < 0.3) + words[-1:]
    elif rng.random() < 0.25:
        tail = " " + WITH_TEXTURE[thing.texture]
    else:
        words.append(_word(thing.texture, rng))
    noun = " ".join([*words, _word(thing.shape, rng)])
    return (_with_article(noun) if article else noun) + tail


def _word(word: str, rng) -> str:
    """Return the word or, one time in four, a synonym."""
    options = SYNONYMS.get(word, ())
    return options[int(rng.integers(len(options)))] if options and rng.random() < 0.25 else word


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _pluralise(noun: str) -> str:
    head, _, last = noun.rpartition(" ")
    return f"{head} {PLURALS.get(last, last + 's')}".strip()


def _join(phrases: list[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _shuffled(things, rng) -> list[Thing]:
    return [things[i] for i in rng.permutation(len(things))]


def _grouped_phrases(scene: Scene, rng, *, size: bool = False) -> list[str]:
    """Noun phrases of all things, equal ones counted: "two red stars"."""
    groups = Counter((t.combination, t.size if size else "") for t in scene.things)
    phrases = []
    for i in rng.permutation(len(groups)):
        (combination, said_size), count = list(groups.items())[i]
        thing = next(
            t for t in scene.things if t.combination == combination and said_size in ("", t.size)
        )
        if count == 1:
            phrases.append(phrase_thing(thing, rng, size=size))
        else:
            noun, tail = phrase_thing(thing, rng, size=size, article=False), ""
            if " with " in noun:
                noun, tail = noun.split(" with ", 1)
            phrases.append(
                f"{NUMBERS[count]} {_pluralise(noun)}" + (f" with {tail}" if tail else "")
            )
    return phrases


def _list_things(scene: Scene, rng) -> str:
    opening = ("", "", "a picture of ", "there is ")[int(rng.integers(4))]
    return f"{opening}{_join(_grouped_phrases(scene, rng))} on {_word(scene.ground, rng)}"


def _ground_first(scene: Scene, rng) -> str:
    ground = _word(scene.ground, rng)
    opening = (f"on {ground}", f"a ground of {ground} with")[int(rng.integers(2))]
    return f"{opening} {_join(_grouped_phrases(scene, rng))}"


def _relate(scene: Scene, rng) -> str:
    """One relation of two things, then the rest; a thing alone is placed in the frame."""
    ground = _word(scene.ground, rng)
    if len(scene.things) == 1:
        thing = scene.things[0]
        return f"{phrase_thing(thing, rng)} {place_in_frame(thing)} on {ground}"
    first, second, *rest = _shuffled(scene.things, rng)
    relations = [word for word, holds in RELATIONS.items() if holds(first, second)]
    relation = relations[int(rng.integers(len(relations)))] if relations else "next to"
    caption = f"{phrase_thing(first, rng)} {relation} {phrase_thing(second, rng)}"
    others = f" with {_join([phrase_thing(t, rng) for t in rest])}" if rest else ""
    return f"{caption}{others} on {ground}"


def _count(scene: Scene, rng) -> str:
    count = len(scene.things)
    noun = ("thing", "object")[int(rng.integers(2))] + ("s" if count > 1 else "")
    names = _join(_grouped_phrases(scene, rng))
    return f"{NUMBERS[count]} {noun} on {_word(scene.ground, rng)}: {names}"


def _size_up(scene: Scene, rng) -> str:
    return f"{_join(_grouped_phrases(scene, rng, size=True))} on {_word(scene.ground, rng)}"


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
