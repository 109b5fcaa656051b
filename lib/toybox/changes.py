"""Groups of Toybox scenes that differ by one change each, and how a person asks for the change.

A group is six scenes under the same light: a base, and five others that each change one thing
of it. A triplet is a reference, a target of the same group and the words between them, as in
FashionIQ (two captions a triplet) and CIRR (sets of six pictures that look alike).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, permutations

import numpy as np

from toybox.captions import RELATIONS, SYNONYMS, WITH_TEXTURE, phrase_thing, place_in_frame
from toybox.variants import KINDS, Change, Member, can_be_said, differences, make_variant, name_way
from toybox.world import MAX_THINGS, Thing, sample_scene

NAMES = (("shape",), ("color", "shape"), ("texture", "shape"), ("color", "texture", "shape"))
BESIDE = {word: holds for word, holds in RELATIONS.items() if "than" not in word}

Wordings = tuple[list[str], list[str], list[str]]  # orders, facts, notes


def say_change(
    reference: Member, target: Member, rng: np.random.Generator
) -> tuple[tuple[Change, ...], tuple[str, str]]:
    """Return what changes from one member of a group to another, and two captions that say it.

    One caption is an order; two changes are joined by "and".
    """
    changes = differences(reference, target)
    speaker = Speaker(reference, target, rng)
    orders, facts, notes = zip(*[WRITERS[c.kind](c, speaker) for c in changes], strict=True)
    if len(changes) == 1:
        facts = (facts[0] + notes[0],)
    captions = [" and ".join(_choose(rng, words) for words in style) for style in (orders, facts)]
    first = int(rng.integers(2))
    return changes, (captions[first], captions[1 - first])


@dataclass(frozen=True)
class Speaker:
    """Names things of the reference so that no other thing of it can be meant."""

    reference: Member
    target: Member
    rng: np.random.Generator

    def the(self, thing: Thing, *, without: str = "") -> str:
        """Name a thing, "the red star"; where it can be done, without saying one attribute."""
        names = [said for said in NAMES if self._is_unique(thing, said)]
        names = [said for said in names if without not in said] or names
        return f"the {self._name(thing, _choose(self.rng, names))}"

    def _is_unique(self, thing: Thing, said: tuple[str, ...]) -> bool:
        alike = [
            t
            for t in self.reference.things.values()
            if all(getattr(t, s) == getattr(thing, s) for s in said)
        ]
        return len(alike) == 1

    def _name(self, thing: Thing, said: tuple[str, ...]) -> str:
        words = [thing.color] if "color" in said else []
        if "texture" in said:  # "plain red star", but "red striped star"
            words.insert(len(words) * (thing.texture != "plain"), self.vary(thing.texture))
        return " ".join([*words, self.vary(thing.shape)])

    def vary(self, word: str) -> str:
        """Return the word or, one time in four, a synonym, as captions of scenes do."""
        options = SYNONYMS.get(word, ())
        return _choose(self.rng, options) if options and self.rng.random() < 0.25 else word

    def a(self, thing: Thing, *, size: bool = False) -> str:
        """Name a thing that is new: "a red star", or "another red star" beside a double."""
        if all(t.combination != thing.combination for t in self.reference.things.values()):
            return phrase_thing(thing, self.rng, size=size)
        more = _choose(self.rng, ("another", "one more"))
        return f"{more} {phrase_thing(thing, self.rng, size=size, article=False)}"

    def beside(self, after: Thing, before: Thing | None = None) -> list[str]:
        """Say how a thing newly lies to those that stay: "above the heart", "below the ring"."""
        staying = [t for k, t in self.reference.things.items() if self.target.things.get(k) == t]
        return [
            f"{word} {self.the(other)}"
            for other in staying
            if self._is_unique(other, NAMES[-1])
            for word, holds in BESIDE.items()
            if holds(after, other) and not (before and holds(before, other))
        ]


def _choose(rng, options):
    return options[int(rng.integers(len(options)))]


def _some(rng, options: list[str]) -> list[str]:
    """Return one of the options, or none where there are none."""
    return [_choose(rng, options)] if options else []


def _an(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


# One writer a kind


def _say_color(change: Change, speaker: Speaker) -> Wordings:
    thing, new, old = change.before, change.after.color, change.before.color
    return (
        [
            f"make {speaker.the(thing)} {new}",
            f"turn {speaker.the(thing)} {new}",
            f"paint {speaker.the(thing)} {new}",
            f"change the color of {speaker.the(thing, without='color')} to {new}",
        ],
        [
            f"{speaker.the(thing)} is {new} now",
            f"{speaker.the(thing, without='color')} is {new} instead of {old}",
        ],
        [_say_replaced(change, speaker)],
    )


def _say_texture(change: Change, speaker: Speaker) -> Wordings:
    thing, new, old = change.before, change.after.texture, change.before.texture
    marks = WITH_TEXTURE.get(new, WITH_TEXTURE.get(old)).removeprefix("with ")
    the = speaker.the(thing, without="texture")
    give = f"take {marks} off {the}" if new == "plain" else f"give {the} {marks}"
    has = f"{the} has {'no ' if new == 'plain' else ''}{marks.removeprefix('a ')}"
    return (
        [f"make {speaker.the(thing)} {speaker.vary(new)}", give],
        [f"{the} is {speaker.vary(new)} instead of {speaker.vary(old)}", has],
        [_say_replaced(change, speaker)],
    )


def _say_shape(change: Change, speaker: Speaker) -> Wordings:
    thing, shape = change.before, _an(speaker.vary(change.after.shape))
    return (
        [
            f"turn {speaker.the(thing)} into {shape}",
            f"replace {speaker.the(thing)} with {speaker.a(change.after)}",
            f"swap {speaker.the(thing)} for {speaker.a(change.after)}",
        ],
        [
            f"{speaker.the(thing)} is {shape} now",
            f"there is {speaker.a(change.after)} where {speaker.the(thing)} was",
        ],
        [_say_replaced(change, speaker)],
    )


def _say_replaced(change: Change, speaker: Speaker) -> str:
    return f"has {speaker.a(change.after)} instead of {speaker.the(change.before)}"


def _say_ground(change: Change, speaker: Speaker) -> Wordings:
    new, old = speaker.vary(change.after), speaker.vary(change.before)
    return (
        [f"put it all on {new}", f"change the ground to {new}", f"swap the {old} for {new}"],
        [f"everything is on {new}", f"the ground is {new} instead of {old}"],
        [f"is on {new} instead of {old}", f"the same but on {new}", f"on {new}, not on {old}"],
    )


def _say_add(change: Change, speaker: Speaker) -> Wordings:
    thing, rng = change.after, speaker.rng
    sized = thing.size != "medium" and rng.random() < 0.25
    new = speaker.a(thing, size=sized)
    where = _choose(rng, [place_in_frame(thing), *_some(rng, speaker.beside(thing))])
    return (
        [f"add {new}", f"put {new} {where}"],
        [f"there is also {new}", f"there is {new} {where}"],
        [f"has {new} too", f"with {new} added"],
    )


def _say_remove(change: Change, speaker: Speaker) -> Wordings:
    the = speaker.the(change.before)
    return (
        [f"remove {the}", f"take away {the}"],
        [f"{the} is gone", f"{the} is not there any more"],
        [f"without {the}", f"no longer has {the}"],
    )


def _say_move(change: Change, speaker: Speaker) -> Wordings:
    before, after = change.before, change.after
    way, place = name_way(before, after), place_in_frame(after)
    beside = _some(speaker.rng, speaker.beside(after, before))
    return (
        [
            f"move {speaker.the(before)} {way}",
            *[f"put {speaker.the(before)} {where}" for where in (place, *beside)],
        ],
        [
            f"{speaker.the(before)} is further {way}",
            f"{speaker.the(before)} is {place} instead of {place_in_frame(before)}",
            *[f"{speaker.the(before)} is {where} now" for where in beside],
        ],
        [],
    )


WRITERS: dict[str, Callable[[Change, Speaker], Wordings]] = {
    "color": _say_color, "texture": _say_texture, "shape": _say_shape, "ground": _say_ground,
    "add": _say_add, "remove": _say_remove, "move": _say_move,
}  # fmt: skip


COMBINED = "combined"  # the kind of a triplet of two clauses
SPLITS = ("train", "val", "test")
MEMBERS = 6  # of a group: a base and its variants
TRIPLETS = 6  # of a group: four from the base on, two back or across
KEY = 5  # tells our generators from those of `world.scene_rng`, which number splits from 0 to 4


@dataclass(frozen=True)
class Triplet:
    """From one member of a group to another (by number), and two wordings of the change."""

    reference: int
    target: int
    changes: tuple[Change, ...]
    captions: tuple[str, str]

    @property
    def kind(self) -> str:
        """One of `KINDS`, or "combined" where the words have two clauses."""
        return self.changes[0].kind if len(self.changes) == 1 else COMBINED


@dataclass(frozen=True)
class ChangeGroup:
    """Six members, the base first, and six triplets between them."""

    members: tuple[Member, ...]
    triplets: tuple[Triplet, ...]


def check_split(split: str) -> None:
    """Raise `ValueError` unless the split is one of "train", "val" and "test"."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of changes; known: {', '.join(SPLITS)}")


def change_rng(seed: int, split: str, number: int, member: int = 0) -> np.random.Generator:
    """Return the generator of a group (member 0), or of the ground's grain of a member from 1."""
    check_split(split)
    return np.random.default_rng([seed, KEY, SPLITS.index(split), number, member])


def change_group(seed: int, split: str, number: int) -> ChangeGroup:
    """Draw one group, independent of all others; no thing in it is held out from training.

    Parameters
    ----------
    seed
        Which world.
    split
        "train", "val" or "test".
    number
        Which group of the split, from 0.

    Raises
    ------
    ValueError
        If the split is unknown.
    """
    rng = change_rng(seed, split, number)
    while True:  # some scenes have too little to change, or things that cannot be told apart
        scene = sample_scene(rng)
        base = Member(scene.ground, scene.light, dict(enumerate(scene.things)))
        members = (base, *_sample_variants(base, rng))
        if len(members) == MEMBERS:
            return ChangeGroup(members, _sample_triplets(members, rng))


def _sample_variants(base: Member, rng) -> list[Member]:
    """Change the base in up to five ways, no two the same in words, two of a kind at most."""
    variants: dict[tuple, Member] = {}
    for turn, kind in enumerate(rng.permutation(KINDS * 2)):
        variant = make_variant(base, str(kind), rng, key=MAX_THINGS + turn)
        if variant is None or len(variants) == MEMBERS - 1:
            continue
        changes = differences(base, variant)
        if can_be_said(changes, base):
            variants.setdefault(_key_in_words(changes[0]), variant)
    return list(variants.values())


def _key_in_words(change: Change) -> tuple:
    """Return what words surely tell: of a move only which thing moved, for ways may be alike."""
    sides = (change.before, change.after)
    return change.kind, *(s.combination if isinstance(s, Thing) else s for s in sides)


def _sample_triplets(members: tuple[Member, ...], rng) -> tuple[Triplet, ...]:
    """Four ways from the base, one back to it and one across, as far as they can be said."""
    variants = [int(n) + 1 for n in rng.permutation(MEMBERS - 1)]
    back = ((n, 0) for n in variants[::-1] if _is_clear(members, n, 0))
    across = ((a, b) for a, b in permutations(variants, 2) if _is_clear(members, a, b))
    pairs = [*islice(back, 1), *islice(across, 1)]
    pairs += [(0, n) for n in variants[: TRIPLETS - len(pairs)]]
    return tuple(Triplet(a, b, *say_change(members[a], members[b], rng)) for a, b in sorted(pairs))


def _is_clear(members: tuple[Member, ...], reference: int, target: int) -> bool:
    """Tell whether words can say the way, and lead to no other member of the group."""
    ways = [differences(members[reference], member) for member in members]
    told = [tuple(map(_key_in_words, way)) for way in ways]
    return can_be_said(ways[target], members[reference]) and told.count(told[target]) == 1
